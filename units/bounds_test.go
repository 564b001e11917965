package units

import (
	"strings"
	"testing"
)

// What is just within a limit is taken, and what is just beyond it is refused.
func TestBounds(t *testing.T) {
	n := func(s string, n int) string { return strings.Repeat(s, n) }
	socket := func(name, listen string) string { return "[socket." + Quote(name) + "]\nlisten = " + Quote(listen) }
	for _, tt := range []struct{ name, file, text, beyondFile, beyond, want string }{
		{"a unit's name", n("a", 64) + ".toml", "service.exec='e'", n("a", 65) + ".toml", "service.exec='e'", "is not valid"},
		{"a folder's name", "/d\u00e9/u.toml", "service.exec='e'", "/d\xe9/u.toml", "service.exec='e'", "is not UTF-8 text"},
		{"a socket's name", "u.toml", socket(n("a", 255), ":1"), "u.toml", socket(n("a", 256), ":1"), "is not a socket's name"},
		{"a Unix path", "u.toml", socket("s", "/"+n("a", 106)), "u.toml", socket("s", "/"+n("a", 107)), "has 108 bytes: the kernel takes 107"},
		{"a relative Unix path", "/d/u.toml", socket("s", "./"+n("a", 104)), "/d/u.toml", socket("s", "./"+n("a", 105)), "has 108 bytes: the kernel takes 107"},
		{"an abstract name", "u.toml", socket("s", "@"+n("a", 107)), "u.toml", socket("s", "@"+n("a", 108)), "has 108 bytes: the kernel takes 107"},
		{"a port", "u.toml", socket("s", "tcp://:65535"), "u.toml", socket("s", "tcp://:65536"), "is not in 0..65535"},
		{"a device", "u.toml", socket("s", ":1") + "\nbind_to_device='abcdefghijklmno'", "u.toml", socket("s", ":1") + "\nbind_to_device='abcdefghijklmnop'", "is not a network device"},
		{"the delays", "u.toml", "service={exec='e', restart_delay='30s'}", "u.toml", "service={exec='e', restart_delay='30001ms'}", "is more than"},
		{"the user's number", "u.toml", "service={exec='e', user='4294967294'}", "u.toml", "service={exec='e', user='4294967295'}", "is not in"},
		{"a size", "u.toml", socket("s", ":1") + "\nsend_buffer='1GiB'", "u.toml", socket("s", ":1") + "\nsend_buffer='1073741825B'", "is not in 1B..1GiB"},
		{"a duration", "u.toml", "service={exec='e', watchdog='87600h'}", "u.toml", "service={exec='e', watchdog='87600h1ns'}", "is not in"},
		{"a real-time signal", "u.toml", "service={exec='e', stop_signal='SIGRTMIN+30'}", "u.toml", "service={exec='e', stop_signal='SIGRTMIN+31'}", "is not a signal"},
		{"the size of a file", "u.toml", "service.exec='e'#" + n("a", maxFile-17), "u.toml", "service.exec='e'#" + n("a", maxFile-16), "larger than 1 MiB"},
		{"keys and values", "u.toml", "service.exec='e'\nx-a=[" + n("1,", maxNodes-3) + "]", "u.toml", "service.exec='e'\nx-a=[" + n("1,", maxNodes-2) + "]", "more than 10000"},
		{"depth", "u.toml", "service.exec='e'\nx-a" + n(".x", 15) + "=1\n", "u.toml", "service.exec='e'\nx-a" + n(".x", 16) + "=1\n", "nested deeper"},
		{"quotes at the end of a long string", "u.toml", `service.exec=["e", """a"""""]`, "u.toml", `service.exec=["e", """a""""""]`, ":1:"},
	} {
		if _, err := Parse(tt.file, []byte(tt.text)); err != nil {
			t.Errorf("%s: %.300v", tt.name, err)
		}
		if _, err := Parse(tt.beyondFile, []byte(tt.beyond)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: beyond it: got %.300v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestProblemsOfOneLineAreInOrderOfColumn(t *testing.T) {
	_, err := Parse("u.toml", []byte("service = { wotch = 1 }"))
	want := "u.toml:1:1: service.exec: is missing (leave [service] out if the unit only holds sockets)\nu.toml:1:13: service.wotch: unknown key"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
