package activation

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { roles["remember"], roles["hoard"], roles["nostore"] = remember, hoard, nostore }

// remember prints what an earlier process stored, and stores more.
func remember() error {
	for _, name := range []string{"memory", "conn", "gone"} {
		files, err := Stored(name)
		if err != nil {
			return err
		}
		for _, f := range files {
			if c, err := net.FileConn(f); err == nil {
				fmt.Fprintf(c, "from process %d\n", os.Getpid())
				fmt.Println(name, "connection")
				c.Close()
				continue
			}
			b := make([]byte, 100)
			n, err := f.ReadAt(b, 0)
			if err != nil && err != io.EOF {
				return err
			}
			fmt.Printf("%s %q\n", name, b[:n])
		}
		if again, err := Stored(name); len(again) != 0 || err != nil {
			fmt.Println("handed out twice:", name, err)
		}
	}
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "memory")
	fmt.Fprintf(f, "note %s", os.Getenv("NOTE"))
	if err := errors.Join(Store("memory", f), Store("gone", f, f), Forget("gone")); err != nil {
		return err
	}
	address := os.Getenv("DIAL")
	if address == "" {
		return nil
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	cf, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	before, _ := unix.FcntlInt(cf.Fd(), unix.F_GETFL, 0)
	if err := Store("conn", cf); err != nil {
		return err
	}
	if after, _ := unix.FcntlInt(cf.Fd(), unix.F_GETFL, 0); after != before {
		fmt.Println("flags changed")
	}
	return nil
}

// hoard stores more files than one message holds.
func hoard() error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := Store("many", slices.Repeat([]*os.File{f}, 300)...); err != nil {
		return err
	}
	f.Close()
	fmt.Println(Store("closed", f))
	for _, name := range []string{"", "a:b", "a\nb", "ä", strings.Repeat("x", 256)} {
		if err := errors.Join(Store(name, os.Stdin), Forget(name)); err == nil {
			fmt.Printf("stored as %q\n", name)
		}
	}
	return Store(strings.Repeat("x", 255), os.Stdin)
}

// nostore says what it is told where nobody keeps anything.
func nostore() error {
	files, err := Stored("memory")
	fmt.Println(len(files), err, Store("memory", os.Stdin), Forget("memory"))
	return nil
}

// A keeping is a supervisor's store, by the rules of sd_notify(3) and in order of
// insertion.
type keeping struct {
	names []string
	files []*os.File
}

// take does what a message says.
func (k *keeping) take(t *testing.T, text string, fds []int) {
	t.Helper()
	lines := strings.Split(text, "\n")
	name, ok := strings.CutPrefix(lines[len(lines)-1], "FDNAME=")
	if !ok || len(lines) != 2 {
		t.Fatalf("message %q", text)
	}
	switch lines[0] {
	case "FDSTORE=1":
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), name)
			t.Cleanup(func() { f.Close() })
			k.names, k.files = append(k.names, name), append(k.files, f)
		}
	case "FDSTOREREMOVE=1":
		for i := slices.Index(k.names, name); i >= 0; i = slices.Index(k.names, name) {
			k.names, k.files = slices.Delete(k.names, i, i+1), slices.Delete(k.files, i, i+1)
		}
	default:
		t.Fatalf("message %q", text)
	}
}

func TestStoreAndStored(t *testing.T) {
	s, m, k := listenAll(t), newManager(t, filepath.Join(t.TempDir(), "notify")), &keeping{}
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for round, row := range []struct{ env, want string }{
		{"DIAL=" + far.Addr().String(), ""},
		{"DIAL=", "memory \"note 0\"\nconn connection\n"},
		{"DIAL=", "memory \"note 0\"\nmemory \"note 1\"\nconn connection\n"},
	} {
		names := append([]string{"web"}, k.names...)
		c := start(t, "remember", append([]*os.File{s.files[0]}, k.files...), m.env(), row.env, fmt.Sprint("NOTE=", round), "FDSTORE=9",
			"LISTEN_PID=self", fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		messages := 3
		if round == 0 {
			messages = 4
		}
		for range messages {
			text, fds := m.read(t)
			k.take(t, text, fds)
		}
		if got := c.rest(t); got != row.want {
			t.Errorf("process %d got:\n%swant:\n%s", round, got, row.want)
		}
	}
	if got := strings.Join(k.names, " "); got != "memory conn memory memory" {
		t.Errorf("stored %q", got)
	}
}

func TestStoreManyAndWrong(t *testing.T) {
	m, k := newManager(t, filepath.Join(t.TempDir(), "notify")), &keeping{}
	c := start(t, "hoard", nil, m.env())
	for _, want := range []int{253, 47, 1} {
		text, fds := m.read(t)
		if len(fds) != want {
			t.Errorf("%q with %d descriptors, want %d", text, len(fds), want)
		}
		k.take(t, text, fds)
	}
	if got := c.rest(t); !strings.Contains(got, "use of closed file") || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
}

func TestNoStore(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	none := fmt.Sprintf("0 <nil> %v %v\n", ErrNoStore, ErrNoStore)
	for _, row := range []struct {
		name string
		env  []string
	}{
		{"by hand", nil},
		{"sockd without fd_store_max", []string{m.env(), "SOCKD_UNIT=web"}},
	} {
		if got := start(t, "nostore", nil, row.env...).rest(t); got != none {
			t.Errorf("%s: %q", row.name, got)
		}
	}
	// Systemd before 254 does not say whether it keeps anything: it is told.
	c := start(t, "nostore", nil, m.env())
	for _, want := range []string{"FDSTORE=1\nFDNAME=memory", "FDSTOREREMOVE=1\nFDNAME=memory"} {
		text, fds := m.read(t)
		for _, fd := range fds {
			unix.Close(fd)
		}
		if text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
	if got := c.rest(t); got != "0 <nil> <nil> <nil>\n" {
		t.Error(got)
	}
}
