package sys

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const rest = " S 10 20 30 34816 20 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2 3 4 5 6"
	tests := []struct {
		name, line string
		want       stat
		ok         bool
	}{
		{"plain", "42 (sh)" + rest, stat{pid: 42, parent: 10, group: 20, session: 30, state: 'S', threads: 1, start: 777}, true},
		{"parentheses in the name", "42 (a) R 1 (b))" + rest, stat{pid: 42, parent: 10, group: 20, session: 30, state: 'S', threads: 1, start: 777}, true},
		{"newline in the name", "42 (a\n b)" + rest + "\n", stat{pid: 42, parent: 10, group: 20, session: 30, state: 'S', threads: 1, start: 777}, true},
		{"kernel thread", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0", stat{pid: 2, state: 'S', threads: 1, kernel: true, start: 5}, true},
		{"exiting", "42 (sh) R 10 20 30 34816 20 4194308 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0", stat{pid: 42, parent: 10, group: 20, session: 30, state: 'R', threads: 1, exiting: true, start: 777}, true},
		{"empty", "", stat{}, false},
		{"short", "42 (sh) S 1 2", stat{}, false},
		{"no name", "42 sh S", stat{}, false},
		{"backwards", ")42(" + rest, stat{}, false},
		{"letters", "42 (sh) S x 20 30 34816 20 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1", stat{}, false},
	}
	for _, tt := range tests {
		got, ok := parseStat([]byte(tt.line))
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: %+v %v", tt.name, got, ok)
		}
	}
	if s, ok := readStat(os.Getpid()); !ok || s.pid != os.Getpid() || s.parent != os.Getppid() || s.env == 0 {
		t.Errorf("of ourselves: %+v %v", s, ok)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) R 1 (b)) S 10 20 30 34816 20 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2 3 4 5 6"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}

// Who belongs to whom, in a made-up world.
func TestMembers(t *testing.T) {
	self := os.Getpid()
	world := func(list ...stat) snapshot {
		snap := snapshot{1: {pid: 1, state: 'S'}, self: {pid: self, parent: 1, group: self, session: 7, state: 'S', start: 1}}
		for _, s := range list {
			if s.state == 0 {
				s.state = 'S'
			}
			snap[s.pid] = &s
		}
		return snap
	}
	const a, b = 2000001, 2000002 // no process can have such a number, so no environment is found
	main := stat{pid: a, parent: self, group: a, session: a, state: 'Z', start: 10}
	other := stat{pid: b, parent: self, group: b, session: b, start: 10}
	tests := []struct {
		name string
		s    stat
		of   int // the mark it belongs to; -1: nobody's
	}{
		{"same session, orphaned", stat{pid: 2000003, parent: 1, group: 5, session: a}, 0},
		{"same group", stat{pid: 2000003, parent: 1, group: a, session: 5}, 0},
		{"child in a session of its own", stat{pid: 2000003, parent: a, group: 2000003, session: 2000003}, 0},
		{"the other's child", stat{pid: 2000003, parent: b, group: 2000003, session: 2000003}, 1},
		{"dead", stat{pid: 2000003, parent: a, group: a, session: a, state: 'Z'}, -1},
		{"stranger", stat{pid: 2000003, parent: 1, group: 2000003, session: 2000003}, -1},
		{"in our own session", stat{pid: 2000003, parent: self, group: self, session: 7}, -1},
		{"kernel thread", stat{pid: 2000003, parent: a, session: a, kernel: true}, -1},
		{"its own parent", stat{pid: 2000003, parent: 2000003}, -1},
	}
	for _, tt := range tests {
		found := world(main, other, tt.s).members([]Mark{{Main: a}, {Main: b}})
		for i, list := range found {
			if (len(list) == 1) != (tt.of == i) || len(list) > 1 {
				t.Errorf("%s: mark %d has %+v", tt.name, i, list)
			}
		}
	}
	// A main process in our own session must not make all of it its own.
	tame := world(stat{pid: a, parent: self, group: self, session: 7, start: 10}, stat{pid: 2000003, parent: 1, group: self, session: 7, start: 11})
	if found := tame.members([]Mark{{Main: a}}); len(found[0]) != 0 {
		t.Errorf("%+v", found)
	}
}

// A process that has left session, group and parents is known by its environment.
func TestMarkedByEnvironment(t *testing.T) {
	var sweeper Sweeper
	stray := func(env string) *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = []string{env}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	main := begin(t, spec("true"))
	defer main.Reap()
	main.Wait()
	ours, longer := stray("NOTIFY_SOCKET=@x/1"), stray("NOTIFY_SOCKET=@x/12")
	mark := Mark{Main: main.Pid, Env: "NOTIFY_SOCKET=@x/1"}
	if !sweeper.Has(mark, ours.Process.Pid) || sweeper.Has(mark, longer.Process.Pid) {
		t.Error("taken for one another")
	}
	var killed []int
	if err := sweeper.KillRest(mark, func(pid int) { killed = append(killed, pid) }); err != nil || len(killed) != 1 || killed[0] != ours.Process.Pid {
		t.Errorf("killed %v, %v", killed, err)
	}
	if err := ours.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
	if err := longer.Process.Signal(unix.Signal(0)); err != nil {
		t.Error("a bystander is dead")
	}
}

// Also who is just becoming another program has an environment.
func TestEnvironmentOfOneThatExecs(t *testing.T) {
	again := `exec /bin/sh -c "$AGAIN"`
	cmd := exec.Command("/bin/sh", "-c", again)
	cmd.Env = []string{"AGAIN=" + again, "MARK=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	s, _ := readStat(cmd.Process.Pid)
	for range 3000 {
		if !strings.Contains(string(environment(&s)), "MARK=1") {
			t.Fatal("it has none")
		}
	}
}

// Nobody is waited for who has none.
func TestNoEnvironment(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Env = []string{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	s, _ := readStat(cmd.Process.Pid)
	if env := environment(&s); len(env) > 0 {
		t.Errorf("%q", env)
	}
	if now, _ := readStat(cmd.Process.Pid); now.env == 0 || now.env != now.envEnd {
		t.Errorf("%+v", now)
	}
}

// Many who ask while somebody looks are served by one look.
func TestLooksAreShared(t *testing.T) {
	sweeper := Sweeper{busy: true}
	var wg sync.WaitGroup
	const many = 100
	for range many {
		wg.Go(func() {
			if list, err := sweeper.members(Mark{Main: 1 << 22}); err != nil || len(list) != 0 {
				t.Error(list, err)
			}
		})
	}
	for asked, late := 0, time.Now().Add(longWait); asked < many; runtime.Gosched() {
		if sweeper.mu.Lock(); sweeper.next != nil {
			asked = len(sweeper.next.marks)
		}
		sweeper.mu.Unlock()
		if time.Now().After(late) {
			t.Fatalf("%d of %d have asked", asked, many)
		}
	}
	sweeper.work()
	wg.Wait()
	if sweeper.next != nil || sweeper.looks != 1 || sweeper.busy {
		t.Errorf("%d looks for %d questions", sweeper.looks, many)
	}
}
