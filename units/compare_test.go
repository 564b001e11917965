package units

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// summary writes changes as a table row wants them.
func summary(changes []Change) []string {
	list := []string{}
	for _, c := range changes {
		line := fmt.Sprintf("%s %s", c.What, c.Unit)
		if c.Replace {
			line += " replace"
		}
		for _, k := range c.Keys {
			line += " " + k
		}
		for _, s := range c.Sockets {
			line += fmt.Sprintf("; %s %s %s", s.What, s.ID.Socket, s.ID.Address)
			if s.ID.Index > 0 {
				line += fmt.Sprintf("@%d", s.ID.Index)
			}
			for _, k := range s.Keys {
				line += " " + k
			}
		}
		list = append(list, line)
	}
	return list
}

func TestCompare(t *testing.T) {
	const base = `
[service]
exec = "web"
instances = 2
[socket.http]
listen = "tcp://:80"
per_instance = true
[socket.admin]
listen = ["unix:///run/a.sock", "tcp://:81"]
`
	change := func(oldNew ...string) string { return strings.NewReplacer(oldNew...).Replace(base) }
	for _, tt := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing", base, base, []string{}},
		{"only the writing", base, "# hello\n" + change(`"web"`, `["web"]`, `"tcp://:80"`, `["80"]`), []string{}},
		{"added", "", base, []string{"added web; added admin unix:///run/a.sock; added admin tcp://:81; added http tcp://:80@1; added http tcp://:80@2"}},
		{"removed", base, "", []string{"removed web; removed admin unix:///run/a.sock; removed admin tcp://:81; removed http tcp://:80@1; removed http tcp://:80@2"}},
		{"another command", base, change(`"web"`, `"web -v"`), []string{"changed web replace service.exec"}},
		{"another environment", base, change("instances = 2", "instances = 2\nenvironment.A = '1'"), []string{"changed web replace service.environment"}},
		{"a process sees the watchdog", base, change("instances = 2", "instances = 2\nwatchdog = '1s'"), []string{"changed web replace service.watchdog"}},
		{"only policy", base, change("instances = 2", "instances = 2\nrestart = 'no'\nstop_timeout = '1s'\nready = 'notify'\nstart = 'boot'"),
			[]string{"changed web service.start service.ready service.stop_timeout service.restart"}},
		{"a gate on a socket of its own", base, change("instances = 2", "instances = 2\nready = { http = '/' }"), []string{"changed web replace service.ready"}},
		{"a gate that no process sees", base, change("instances = 2", "instances = 2\nready = { command = 'check' }"), []string{"changed web service.ready"}},
		{"another question on the same socket", change("instances = 2", "instances = 2\nready = { http = '/' }"), change("instances = 2", "instances = 2\nready = { tcp = true, timeout = '1s' }"),
			[]string{"changed web service.ready"}},
		{"more instances", base, change("instances = 2", "instances = 3"), []string{"changed web service.instances; added http tcp://:80@3"}},
		{"fewer instances", base, change("instances = 2", "instances = 1"), []string{"changed web service.instances; removed http tcp://:80@2"}},
		{"an option of a kept socket", base, change("per_instance = true", "per_instance = true\nbacklog = 5\nmark = 0"),
			[]string{"changed web; changed http tcp://:80@1 backlog mark; changed http tcp://:80@2 backlog mark"}},
		{"an option that the process sees", base, change("\"tcp://:81\"]", "\"tcp://:81\"]\nnon_blocking = true"),
			[]string{"changed web replace; changed admin unix:///run/a.sock non_blocking; changed admin tcp://:81 non_blocking"}},
		{"another address", base, change("tcp://:81", "tcp://:82"), []string{"changed web replace; added admin tcp://:82; removed admin tcp://:81"}},
		{"another name", base, change("socket.admin", "socket.control"),
			[]string{"changed web replace; added control unix:///run/a.sock; added control tcp://:81; removed admin unix:///run/a.sock; removed admin tcp://:81"}},
		{"another order of descriptors", base, change(`["unix:///run/a.sock", "tcp://:81"]`, `["tcp://:81", "unix:///run/a.sock"]`), []string{"changed web replace"}},
		{"shared instead of per instance", base, change("per_instance = true", ""),
			[]string{"changed web replace; added http tcp://:80; removed http tcp://:80@1; removed http tcp://:80@2"}},
		{"sockets that a process has for itself", change("tcp://:80", "udp://:80"), change("tcp://:80", "udp://:80", "per_instance = true", "per_instance = true\nflows = 'quic'"),
			[]string{"changed web replace; changed http udp://:80@1 flows; changed http udp://:80@2 flows"}},
		{"how many flows are remembered", change("tcp://:80", "udp://:80", "per_instance = true", "per_instance = true\nflows = 'sticky'"),
			change("tcp://:80", "udp://:80", "per_instance = true", "per_instance = true\nflows = 'sticky'\nflows_max = 5"),
			[]string{"changed web; changed http udp://:80@1 flows_max; changed http udp://:80@2 flows_max"}},
		{"no service any more", base, "[socket.admin]\nlisten = ['unix:///run/a.sock', 'tcp://:81']",
			[]string{"changed web replace; removed http tcp://:80@1; removed http tcp://:80@2"}},
	} {
		parse := func(text string) *Set {
			if text == "" {
				return nil
			}
			u, err := Parse("web.toml", []byte(text))
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			return &Set{[]*Unit{u}}
		}
		if got := summary(Compare(parse(tt.old), parse(tt.new))); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestCompareIsInOrderOfName(t *testing.T) {
	set := func(names ...string) *Set {
		s := &Set{}
		for _, n := range names {
			name, exec, _ := strings.Cut(n, "=")
			u, err := Parse(name+".toml", []byte("service.exec = '"+exec+"'"))
			if err != nil {
				t.Fatal(err)
			}
			s.Units = append(s.Units, u)
		}
		return s
	}
	got := summary(Compare(set("a=1", "c=1", "d=1"), set("b=1", "c=2", "d=1")))
	if want := []string{"removed a", "added b", "changed c replace service.exec"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
