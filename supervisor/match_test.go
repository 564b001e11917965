package supervisor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// service is a unit with these tables.
func service(tables ...string) string {
	return "[service]\nrole = serve\nready = \"notify\"\n" + strings.Join(tables, "")
}

// table is a socket of a unit.
func table(name, listen string, more ...string) string {
	return fmt.Sprintf("[socket.%s]\nlisten = %q\n%s\n", name, listen, strings.Join(more, "\n"))
}

// inodes are those of a unit's sockets, by name and instance.
func (f *fixture) inodes(unit string) map[string]uint64 {
	f.t.Helper()
	all := map[string]uint64{}
	for _, k := range f.unit(unit).Sockets {
		all[fmt.Sprint(k.Name, "@", k.Instance)] = k.Inode
	}
	return all
}

// A socket is what it is bound to, not what it is called.
func TestRenamedSocketIsTheSame(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	unit := func(shared, own, on string) string {
		return service("instances = 2\nstart = \"boot\"\n", table(shared, "tcp://127.0.0.1:0"), table(own, "tcp://127.0.0.2:0", "per_instance = true"), table(on, "unix://"+path))
	}
	f.write("web", unit("a", "b", "c"))
	f.start()
	f.do("start", "web", Done)
	before, address := f.inodes("web"), f.address("web", "b")
	f.write("web", unit("c", "x", "a")) // names of others are no way to them
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		after := f.inodes("web")
		for was, is := range map[string]string{"a@0": "c@0", "b@1": "x@1", "b@2": "x@2", "c@0": "a@0"} {
			if before[was] != after[is] || before[was] == 0 {
				t.Errorf("%s was %d, and %s is %d", was, before[was], is, after[is])
			}
		}
		for _, at := range [][2]string{{"tcp", address}, {"unix", path}} {
			if _, err := ask(at[0], at[1]); err != nil {
				t.Error(err)
			}
		}
	}
	check()
	level := f.unit("web").Sockets[1].Steering
	f.crash()
	f.start()
	check()
	if again := f.unit("web").Sockets[1].Steering; again != level || strings.Contains(f.log.String(), "not steered") {
		t.Errorf("steered by %q, then by %q", level, again)
	}
	f.write("web", "[service")
	if f.s.Reload(t.Context()) == nil {
		t.Error("reloaded")
	}
	check()
	f.stop()
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*.sock*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// An address moves from one unit to another, and both stay; so do the socket and its path.
func TestAddressMovesBetweenUnits(t *testing.T) {
	f := prepare(t)
	path := filepath.Join(f.dir, "s.sock")
	keeps := table("keeps", "tcp://127.0.0.1:0")
	moves := table("on", "unix://"+path) + table("at", "tcp://127.0.0.1:0", "per_instance = true")
	f.write("from", service(keeps, moves))
	f.write("to", service(keeps))
	f.start()
	before, from := f.inodes("from"), "from"
	for round := range uint64(2) {
		to := map[string]string{"from": "to", "to": "from"}[from]
		f.write(from, service(keeps))
		f.write(to, service(keeps, moves))
		f.write("bad", "[service")
		if f.s.Reload(t.Context()) == nil {
			t.Fatal("reloaded")
		}
		os.Remove(filepath.Join(f.dir, "bad.toml"))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			// A run of the unit before may still have it: its mode is not ours to change.
			f.s.ask(t.Context(), func() error {
				for _, k := range f.s.units[to].sockets {
					if upto, ok := k.others[from]; k.name != "keeps" && (!ok || upto < round) {
						t.Errorf("%s: others are %v in round %d", k.name, k.others, round)
					}
				}
				return nil
			})
			after := f.inodes(to)
			if before["on@0"] != after["on@0"] || before["at@1"] != after["at@1"] {
				t.Errorf("the sockets were %v and are %v", before, after)
			}
			if _, err := ask("unix", path); err != nil {
				t.Error(err)
			}
			f.crash()
			f.start()
		}
		from = to
	}
	f.stop()
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*.sock*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What cannot be bound beside what is open is said in the words of unit files, whether
// a service has the old socket too or not; and nothing changes.
func TestOverlapIsExplained(t *testing.T) {
	f := prepare(t)
	f.write("web", service(table("http", "tcp://127.0.0.1:0")))
	f.start()
	port := netip.MustParseAddrPort(f.address("web", "http")).Port()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	f.write("web", service(table("http", "tcp://"+address)))
	if err := f.s.Reload(t.Context()); err != nil {
		t.Errorf("the port that it had been given, by its number: %v", err)
	}
	for _, alive := range []bool{false, true} {
		if alive {
			if _, err := ask("tcp", address); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range map[string]string{
			"all addresses": service(table("http", fmt.Sprintf("tcp://:%d", port))),
			"per instance":  service(table("http", "tcp://"+address, "per_instance = true")),
		} {
			before := f.inodes("web")
			f.write("web", text)
			err := f.s.Reload(t.Context())
			for _, want := range []string{"address already in use by unit web, socket http, tcp://" + address + ":", "no reload goes from one to the other", "take the old one out of the file, sockd reload"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, alive %v: %v, without %q", name, alive, err, want)
				}
			}
			if after := f.inodes("web"); after["http@0"] != before["http@0"] {
				t.Errorf("%s: %v, then %v", name, before, after)
			}
		}
	}
}

// One that leaves has its sockets until it has gone.
func TestOverlapWithALeavingUnit(t *testing.T) {
	f := newFixture(t, "web", strings.Replace(service("start = \"boot\"\nstop_timeout = \"0s\"\n", table("http", "tcp://127.0.0.1:0")), "role = serve", "role = deaf", 1))
	pid := f.awaitState("web", 1, "ready").Pid
	port := netip.MustParseAddrPort(f.address("web", "http")).Port()
	os.Remove(filepath.Join(f.dir, "web.toml"))
	f.write("other", service())
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.write("other", service(table("main", fmt.Sprintf("tcp://:%d", port))))
	err := f.s.Reload(t.Context())
	if want := "address already in use by unit web, socket http, tcp://127.0.0.1:"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "reload again when its processes have ended") {
		t.Errorf("%v, want %q", err, want)
	}
	kill(t, pid)
	f.until("web is gone", func() bool { _, ok := f.s.Unit("web"); return !ok })
	if err := f.s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The same address in other words is the same socket.
func TestAddressInOtherWords(t *testing.T) {
	f := newFixture(t, "web", service(table("http", "tcp://127.0.0.1:0")))
	before := f.inodes("web")
	for _, network := range []string{"tcp4", "tcp"} {
		f.write("web", service(table("http", network+"://127.0.0.1:0")))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := f.inodes("web"); after["http@0"] != before["http@0"] || f.unit("web").Sockets[0].Network != network {
			t.Errorf("%s: %v, then %v", network, before, after)
		}
	}
}
