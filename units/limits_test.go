package units

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostile are texts made to be costly. Each must be refused early.
func hostile() map[string]struct{ text, want string } {
	const deep = 100_000
	million := func(line string) string {
		var b strings.Builder
		for i := range 1_000_000 {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	return map[string]struct{ text, want string }{
		"arrays 100,000 deep":            {"x-a = " + strings.Repeat("[", deep), "1:23: nested deeper than 16"},
		"closed arrays 100,000 deep":     {"x-a = " + strings.Repeat("[", deep) + strings.Repeat("]", deep), "1:23: nested deeper than 16"},
		"inline tables 100,000 deep":     {"x-a = " + strings.Repeat("{a=", deep), "1:53: nested deeper than 16"},
		"a dotted key 100,000 deep":      {"x-a" + strings.Repeat(".a", deep) + " = 1", "1:35: nested deeper than 16"},
		"a header 100,000 deep":          {"[x-a" + strings.Repeat(".a", deep) + "]", "1:36: nested deeper than 16"},
		"quoted, spaced header":          {"[x-a" + strings.Repeat(` . "a"`, deep) + "]", "1:98: nested deeper than 16"},
		"all ways of nesting added up":   {"[x-a.b.c.d]\ne.f.g.h = [[[[{i.j.k = [[1]]}]]]]", "2:26: nested deeper than 16"},
		"nesting behind a syntax error":  {"a = @" + strings.Repeat("[", deep), ""},
		"nesting in an unfinished table": {"[a\n" + strings.Repeat("[", deep), ""},
		"a million keys":                 {million("x-%d=1\n"), "larger than 1 MiB"},
		"keys up to the size":            {strings.Repeat("x=1\n", maxFile/4), "x: set twice"},
		"many keys": {func() string {
			var b strings.Builder
			for i := range 50_000 {
				fmt.Fprintf(&b, "x-%d=1\n", i)
			}
			return b.String()
		}(), "more than 10000 keys and values"},
		"many tables":       {strings.Repeat("[[x-a]]\n", 100_000), "more than 10000 keys and values"},
		"a long array":      {"x-a = [" + strings.Repeat("1,", 400_000) + "]", "more than 10000 keys and values"},
		"a very long key":   {strings.Repeat("a", maxFile-100) + " = 1", "unknown key"},
		"a very long value": {"[service]\nexec = \"e\"\nrestart = \"" + strings.Repeat("é", maxFile/2-100) + "\"", "is not one of"},
		"as many problems as may be": {func() string {
			var b strings.Builder
			b.WriteString("service = {")
			for i := range 9_000 {
				fmt.Fprintf(&b, "k%d='%s', ", i, strings.Repeat("é", 40))
			}
			b.WriteString("exec='e'}")
			return b.String()
		}(), "unknown key"},
	}
}

func TestHostileTextsAreRefusedEarly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	for name, tt := range hostile() {
		text := []byte(tt.text)
		var err error
		took, used := measure(func() { _, err = Parse("web.toml", text) })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %.200v, want %s", name, err, tt.want)
		}
		t.Logf("%-32s %v, %d KiB", name, took.Round(time.Millisecond), used>>10)
		if used > 64<<20 {
			t.Errorf("%s: took %d MiB", name, used>>20)
		}
		if took > time.Minute { // a second is meant; a busy machine gets a minute
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// measure says how long f takes and how much memory it asks for in all, which is
// more than it holds at any moment.
func measure(f func()) (time.Duration, uint64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc
}

func TestLoadRefusesWhatIsNoUnitFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	sparse, err := os.Create("huge.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := sparse.Truncate(1 << 30); err != nil {
		t.Skip("no sparse files here:", err)
	}
	sparse.Close()
	if err := syscall.Mkfifo("fifo.toml", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Mkdir("folder.toml", 0o700), os.Symlink("/dev/zero", "zero.toml"), os.Symlink("gone", "dangling.toml"),
		os.Symlink("/proc/self/maps", "proc.toml")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got error
	took, used := measure(func() { _, got = Load(".", "fifo.toml", "/dev/tty") })
	if used > 16<<20 || took > time.Minute {
		t.Errorf("took %v and %d MiB", took, used>>20)
	}
	for _, want := range []string{"huge.toml: larger than 1 MiB\n", "fifo.toml: is not a regular file\n", "folder.toml: is a folder, not a unit file\n",
		"zero.toml: is not a regular file", "dangling.toml: no such file or directory\n", "proc.toml:1:"} {
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, got)
		}
	}
}

func TestLoadRefusesTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range maxUnits + 1 {
		if err := os.Link(first(t, dir), filepath.Join(dir, fmt.Sprintf("u%d.toml", i))); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(first(t, dir))
	if _, err := Load(dir); err == nil || err.Error() != dir+": more than 10000 unit files" {
		t.Errorf("got %v", err)
	}
	os.Remove(filepath.Join(dir, "u0.toml"))
	if set, err := Load(dir); err != nil || len(set.Units) != maxUnits {
		t.Errorf("%d files: %v", maxUnits, err)
	}
	file := write(t, t.TempDir(), "one-more.toml", "service.exec = \"e\"")
	if _, err := Load(dir, file); err == nil || err.Error() != file+": more than 10000 unit files" {
		t.Errorf("got %v", err)
	}
}

// first is a file to be linked from.
func first(t *testing.T, dir string) string {
	path := filepath.Join(dir, "first.toml")
	if _, err := os.Stat(path); err != nil {
		write(t, dir, "first.toml", "service.exec = \"e\"")
	}
	return path
}
