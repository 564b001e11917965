package units

import (
	"os"
	"path/filepath"
	"testing"
)

// What a unit needs and the machine does not have is a warning with its place.
func TestCheckWarnsOfWhatIsNotHere(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	put("there", "", 0o755)
	put("plain", "", 0o644)
	for _, c := range []struct{ name, text, want string }{
		{"a program by path", "exec = './gone -v'", `:2:8: service.exec: "` + dir + `/gone": no such file or directory`},
		{"one that is there", "exec = './there'", ""},
		{"one that is no program", "exec = ['./plain']", `:2:8: service.exec: "` + dir + `/plain" is not a program that can be executed`},
		{"a program by name", "exec = 'sockd-no-such-program'", `:2:8: service.exec: there is no program "sockd-no-such-program" in the service's PATH (a program in the unit's folder is written with a slash: "./sockd-no-such-program")`},
		{"one that is in the service's PATH", "exec = 'there'\nenvironment = { PATH = '" + dir + "' }", ""},
		{"one whose PATH may stand in a file", "exec = 'there'\nenvironment_files = ['plain']", ""},
		{"a folder", "exec = './there'\ndirectory = 'gone'", `:3:13: service.directory: "` + dir + `/gone": no such file or directory`},
		{"a folder that is none", "exec = './there'\ndirectory = './plain'", `:3:13: service.directory: "` + dir + `/plain" is not a folder`},
		{"a user", "exec = './there'\nuser = 'sockd-nobody'", `:3:8: service.user: there is no user "sockd-nobody" in /etc/passwd`},
		{"a group", "exec = './there'\ngroup = 'sockd-nobody'", `:3:9: service.group: there is no group "sockd-nobody" in /etc/group`},
		{"a file of variables", "exec = './there'\nenvironment_files = ['-gone.env', 'plain', 'gone.env']", `:3:21: service.environment_files: "` + dir + `/gone.env": no such file or directory (a leading "-" says that it may be missing)`},
		{"a file of variables that is a folder", "exec = './there'\nenvironment_files = '-.'", `:3:21: service.environment_files: "` + dir + `" is not a regular file`},
		{"a user that is there", "exec = './there'\nuser = 'root'", ""},
		{"a user by number", "exec = './there'\nuser = '4000000'", ""},
	} {
		put("u.toml", "[service]\n"+c.text+"\n", 0o644)
		file := filepath.Join(dir, "u.toml")
		set, warnings, err := Check(file)
		if err != nil || len(set.Units) != 1 {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := c.want
		if want != "" {
			want = file + want
		}
		if got := warnings.Error(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	put("u.toml", "[service]\nexec = './gone'\nwotch = 1\n", 0o644)
	if _, warnings, err := Check(filepath.Join(dir, "u.toml")); err == nil || len(warnings) != 0 {
		t.Errorf("of a unit that is not valid: %v, %v", warnings, err)
	}
}

func TestWhatEndsTooEarly(t *testing.T) {
	for text, want := range map[string]string{
		"[service":     "u.toml:1:8: the line ends too early: expected '.' or ']' to end table name",
		"[service]\nx": "u.toml:2:1: the line ends too early: expected key separator '='",
	} {
		if _, err := Parse("u.toml", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// A problem of what stands in no file begins with its key.
func TestProblemWithoutAFile(t *testing.T) {
	if got := (Problem{Key: "service.instances", Text: "wrong"}).Error(); got != "service.instances: wrong" {
		t.Errorf("got %q", got)
	}
}

// What only a shell would understand is given to the program as it is: most often that is
// not what was meant, and nobody says so but the program, if it minds.
func TestCheckWarnsOfWhatIsForAShell(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "u.toml")
	for command, want := range map[string]string{
		`"cat *.c"`:                     "*",
		`"cat $HOME/x"`:                 "$",
		`"cat ${HOME}"`:                 "$",
		`"cat a | cat"`:                 "|",
		`"cat a; cat b"`:                ";",
		`"cat a && cat b"`:              "&",
		`"cat <a"`:                      "<",
		`"cat >b"`:                      ">",
		"\"cat `date`\"":                "`",
		`"cat '*.c' \"a|b\" '$HOME'"`:   "",
		`"cat \\*.c \\$HOME"`:           "",
		`"cat costs 5$ a$ '$' $ ,"`:     "",
		`["cat", "*.c", "$HOME", "|"]`:  "",
		`'cat -c "echo $HOME; exit 1"'`: "",
	} {
		if err := os.WriteFile(file, []byte("[service]\nexec = "+command+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if want != "" {
			want = file + `:2:8: service.exec: "` + want + `" is given to the program as it is: there is no shell (write ["/bin/sh", "-c", "…"] if you want one, or put it in quotes)`
		}
		if _, warnings, err := Check(file); err != nil || warnings.Error() != want {
			t.Errorf("%s: %v\n got %s\nwant %s", command, err, warnings.Error(), want)
		}
	}
}
