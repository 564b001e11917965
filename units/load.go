package units

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Load reads unit files and folders: of a folder its *.toml in order of name, but
// not those that begin with a dot. It reports all problems of all files at once,
// as Problems; then nothing is loaded. A file named twice is read once.
func Load(paths ...string) (*Set, error) {
	set, _, err := loadAll(paths)
	return set, err
}

// Check is Load; it warns too of what the units need and this machine does not have:
// programs, folders, users. They may come later, or be those of another machine.
func Check(paths ...string) (*Set, Problems, error) {
	set, sources, err := loadAll(paths)
	var warnings Problems
	for _, s := range sources {
		warnings = append(warnings, s.absent()...)
	}
	warnings = append(warnings, steals(sources)...)
	warnings.err() // in order
	return set, warnings, err
}

func loadAll(paths []string) (*Set, []*source, error) {
	var problems Problems
	whole := func(file string, f *fault) {
		problems = append(problems, Problem{File: file, Text: f.text, Hint: f.hint})
	}
	var files []string
	for _, path := range paths {
		list, f := expand(path)
		if f != nil {
			whole(path, f)
		}
		files = append(files, list...)
	}
	if len(files) > maxUnits {
		whole(files[maxUnits], wrong("more than %d unit files", maxUnits))
		files = nil
	}
	var sources []*source
	seen := map[string]bool{}
	for _, file := range files {
		if abs, err := filepath.Abs(file); err == nil && seen[abs] {
			continue
		} else {
			seen[abs] = true
		}
		text, f := readFile(file)
		if f != nil {
			whole(file, f)
			continue
		}
		s := parseSource(file, text)
		problems = append(problems, s.problems...)
		sources = append(sources, s)
	}
	set, more := join(sources)
	if err := append(problems, more...).err(); err != nil {
		return nil, nil, err
	}
	return set, sources, nil
}

// join makes a set of units and checks what no unit can see alone.
func join(sources []*source) (*Set, Problems) {
	slices.SortStableFunc(sources, func(a, b *source) int { return cmp.Compare(a.unit.Name, b.unit.Name) })
	set := &Set{}
	var problems Problems
	for i, s := range sources {
		if i > 0 && sources[i-1].unit.Name == s.unit.Name {
			f := wrong("the unit %s is also %s", s.unit.Name, sources[i-1].file)
			problems = append(problems, Problem{File: s.file, Text: f.text})
		}
		set.Units = append(set.Units, s.unit)
	}
	return set, append(problems, conflicts(sources)...)
}

// Unit returns the unit of that name, or nil.
func (s *Set) Unit(name string) *Unit {
	i, ok := slices.BinarySearchFunc(s.Units, name, func(u *Unit, name string) int { return cmp.Compare(u.Name, name) })
	if !ok {
		return nil
	}
	return s.Units[i]
}

// expand lists the unit files of a folder; a file is itself.
func expand(path string) ([]string, *fault) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cannot(err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, cannot(err)
	}
	defer dir.Close()
	var files []string
	for {
		// In portions: a folder with millions of entries must not fill the memory.
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".toml") && name[0] != '.' {
				files = append(files, filepath.Join(path, name))
			}
		}
		switch {
		case len(files) > maxUnits:
			return nil, wrong("more than %d unit files", maxUnits)
		case errors.Is(err, io.EOF):
			slices.Sort(files)
			return files, nil
		case err != nil:
			return nil, cannot(err)
		}
	}
}

// readFile reads a regular file of at most maxFile bytes. It never waits and never
// touches a device: what is not a file is refused before it is opened.
func readFile(path string) ([]byte, *fault) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cannot(err)
	}
	if f := unfit(info); f != nil {
		return nil, f
	}
	// It may have been exchanged since: O_NONBLOCK keeps a FIFO from holding us.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, cannot(err)
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, cannot(err)
	}
	if f := unfit(info); f != nil {
		return nil, f
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, cannot(err)
	}
	return text, nil // still too long if it grew, or says 0 like those in /proc: parse refuses it
}

func unfit(info fs.FileInfo) *fault {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return wrong("is a folder, not a unit file")
	case !mode.IsRegular():
		return wrong("is not a regular file")
	case info.Size() > maxFile:
		return tooLarge()
	}
	return nil
}

// cannot is a system's error without the path, which stands before it already.
func cannot(err error) *fault {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return wrong("%v", err)
}
