package supervisor

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Where epoll(7) takes no more, a run is heard all the same as soon as it does: what it has
// said meanwhile is not lost.
func TestRunThatCouldNotBeWatchedIsHeard(t *testing.T) {
	f := newFixture(t, "web", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\n[socket.http]\nlisten = \"tcp://127.0.0.1:0\"\n")
	f.do("start", "web", Done)
	regular, err := os.Open(os.Args[0]) // epoll refuses it: EPERM
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	var address unix.Sockaddr
	err = f.s.ask(t.Context(), func() error {
		r := f.s.units["web"].runs[1]
		notify := r.notify
		address, err = unix.Getsockname(notify)
		f.s.watch.Remove(notify)
		r.notify, r.notified = int(regular.Fd()), 0
		if f.s.watchNotify(r) == nil {
			t.Error("a regular file can be watched")
		}
		r.notify = notify
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("STATUS=heard"), 0, address); err != nil {
		t.Fatal(err)
	}
	f.until("its word", func() bool { return f.unit("web").Instances[0].Runs[0].Status == "heard" })
}
