package units

import (
	"os"
	"path/filepath"
	"testing"
)

// What the kernel permits, and one socket loses by, is a warning with its place.
func TestCheckWarnsOfWhatIsTakenAway(t *testing.T) {
	shared := "\nreuse_port = true\n"
	for _, c := range []struct{ name, a, b, want string }{
		{"equal ones share", `listen = ":80"` + shared, `listen = ":80"` + shared, ""},
		{"IPv4 beside dual stack", `listen = "tcp4://:80"` + shared, `listen = ":80"` + shared,
			"b.toml:2:10: socket.x.listen: tcp4://:80 of unit a, socket x at a.toml:2:10 takes all IPv4 from tcp://:80"},
		{"dual stack beside IPv4", `listen = ":80"` + shared, `listen = "tcp://0.0.0.0:80"` + shared,
			"b.toml:2:10: socket.x.listen: tcp://0.0.0.0:80 takes all IPv4 from tcp://:80 of unit a, socket x at a.toml:2:10"},
		{"a specific address beside all", `listen = "udp://127.0.0.1:80"` + shared, `listen = "udp4://:80"` + shared,
			"b.toml:2:10: socket.x.listen: udp://127.0.0.1:80 of unit a, socket x at a.toml:2:10 takes what is sent to that address from udp4://:80"},
		{"IPv6 alone", `listen = "tcp4://:80"`, `listen = "tcp6://:80"`, ""},
		{"two in one file", `listen = ["tcp4://:80", ":80"]` + shared, `listen = ":81"`,
			"a.toml:2:25: socket.x.listen: tcp4://:80 of socket x at a.toml:2:11 takes all IPv4 from tcp://:80"},
		{"datagrams and reuse_addr", "listen = \"udp://:80\"\nreuse_addr = true", `listen = ":80"`,
			"a.toml:2:10: socket.x.listen: reuse_addr = true lets any user of the machine bind it too, and the last to do so gets all datagrams but those to a multicast group"},
		{"a multicast group", "listen = \"udp://239.1.2.3:80\"\nreuse_addr = true", `listen = ":80"`, ""},
	} {
		dir := t.TempDir()
		t.Chdir(dir)
		for name, text := range map[string]string{"a.toml": c.a, "b.toml": c.b} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("[socket.x]\n"+text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, warnings, err := Check("a.toml", "b.toml")
		if got := warnings.Error(); err != nil || got != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, got, c.want)
		}
	}
}
