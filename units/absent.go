package units

import (
	"os"
	"path/filepath"
	"strings"
)

// servicePath is the PATH of a service that inherits no environment and sets none.
const servicePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// absent says what a unit's service needs and this machine does not have.
func (s *source) absent() Problems {
	var all Problems
	missing := func(name string, f *fault) {
		if at, ok := s.here[name]; ok && f != nil {
			all = append(all, Problem{s.file, at.line, at.col, "service." + name, f.text, f.hint})
		}
	}
	sv := s.unit.Service
	if sv == nil {
		return nil
	}
	missing("exec", sv.program())
	if s.shell != "" {
		missing("exec", wrong("%s is given to the program as it is: there is no shell", quote(s.shell)).write(`["/bin/sh", "-c", "…"] if you want one, or put it in quotes`))
	}
	for _, file := range sv.EnvironmentFiles {
		missing("environment_files", variables(file))
	}
	if st, err := os.Stat(sv.Directory); err != nil {
		missing("directory", wrong("%s: %s", quote(sv.Directory), cannot(err).text))
	} else if !st.IsDir() {
		missing("directory", wrong("%s is not a folder", quote(sv.Directory)))
	}
	if !known("/etc/passwd", sv.User) {
		missing("user", wrong("there is no user %s in /etc/passwd", quote(sv.User)))
	}
	if !known("/etc/group", sv.Group) {
		missing("group", wrong("there is no group %s in /etc/group", quote(sv.Group)))
	}
	return all
}

// variables says why a start would fail for want of a file of environment_files.
func variables(file string) *fault {
	file, may := strings.CutPrefix(file, "-")
	switch st, err := os.Stat(file); {
	case err != nil && may:
		return nil
	case err != nil:
		return &fault{quote(file) + ": " + cannot(err).text, `a leading "-" says that it may be missing`}
	case !st.Mode().IsRegular():
		return wrong("%s is not a regular file", quote(file))
	}
	return nil
}

// known says whether a name stands in a file such as /etc/passwd. What is a number, or not
// given, needs no entry. The files are what sockd looks at when it starts a service.
func known(file, name string) bool {
	if name == "" || isDigits(name) {
		return true
	}
	text, _ := os.ReadFile(file)
	return strings.HasPrefix(string(text), name+":") || strings.Contains(string(text), "\n"+name+":")
}

// program says why the command could not be started here, as far as can be seen.
func (sv *Service) program() *fault {
	name := sv.Exec[0]
	if strings.Contains(name, "/") {
		return executable(name)
	}
	if len(sv.EnvironmentFiles) > 0 {
		return nil // a PATH may stand there
	}
	path := servicePath
	if p, ok := os.LookupEnv("PATH"); ok && sv.InheritEnvironment {
		path = p
	}
	for _, v := range sv.Environment {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if executable(filepath.Join(dir, name)) == nil {
			return nil
		}
	}
	return &fault{"there is no program " + quote(name) + " in the service's PATH", `a program in the unit's folder is written with a slash: "./` + name + `"`}
}

func executable(file string) *fault {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return wrong("%s: %s", quote(file), cannot(err).text)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return wrong("%s is not a program that can be executed", quote(file))
	}
	return nil
}
