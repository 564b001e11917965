package sys

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys/trampoline"
)

func TestLookupUser(t *testing.T) {
	dir := t.TempDir()
	passwd, group := filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	os.WriteFile(passwd, []byte("# comment\nroot:x:0:0:root:/root:/bin/sh\nshort:x:1\n+nis\nwww:x:33:34::/var/www:/bin/false\nbad:x:-1:0::/:/\nlast:x:4294967295:1::/:/\n"), 0o644)
	os.WriteFile(group, []byte("root:x:0:\nwww:x:34:\ntls:x:50:api,www\ndata:x:40:www\nother:x:60:wwww\n"), 0o644)
	www := User{UID: 33, GID: 34, Groups: []uint32{34, 40, 50}, Home: "/var/www"}
	tests := []struct {
		name string
		want User
		err  string
	}{
		{"www", www, ""},
		{"33", www, ""},
		{"root", User{Groups: []uint32{0}, Home: "/root"}, ""},
		{"nobody-here", User{}, "unknown user nobody-here"},
		{"bad", User{}, "unknown user bad"},
		{"last", User{}, "unknown user last"},
		{"4294967295", User{}, "unknown user 4294967295"},
		{"-1", User{}, "unknown user -1"},
		{"77", User{UID: 77}, "user 77: no entry in the user database: say which group as well"},
	}
	for _, tt := range tests {
		got, err := lookupUser(passwd, group, tt.name)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	if gid, err := lookupGroup(group, "tls"); gid != 50 || err != nil {
		t.Error(gid, err)
	}
	if gid, err := lookupGroup(group, "51"); gid != 51 || err != nil {
		t.Error(gid, err)
	}
	if _, err := lookupGroup(group, "x"); err == nil || err.Error() != "unknown group x" {
		t.Error(err)
	}
	if u, err := LookupUser("root"); err != nil || u.UID != 0 {
		t.Error(u, err)
	}
}

// All ids change, real, effective, saved and of the file system, and so do the groups.
func TestUserSwitching(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	s := spec("grep", "-E", "^(Uid|Gid|Groups|CapEff|CapPrm):", "/proc/self/status")
	s.Credential = &trampoline.Credential{UID: 1234, GID: 2345, Groups: []uint32{2345, 77, 4000000000}}
	out, st, err := launch(t, s)
	if err != nil || st != (Status{}) {
		t.Fatal(err, st)
	}
	got := strings.Join(strings.Fields(out), " ")
	want := "Uid: 1234 1234 1234 1234 Gid: 2345 2345 2345 2345 Groups: 77 2345 4000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	dir := t.TempDir() // 0700, or below such a folder
	os.Chmod(dir, 0o700)
	s = spec("/bin/true")
	s.Credential = &trampoline.Credential{UID: 1234, GID: 2345}
	s.Dir = dir
	if _, _, err := launch(t, s); err == nil || err.Error() != "directory: "+dir+": permission denied" {
		t.Errorf("the folder is entered with rights the program has not got: %v", err)
	}
}

// Who is not root may start programs as himself, and as nobody else.
func TestUserSwitchingWithoutRoot(t *testing.T) {
	if os.Getuid() == 0 {
		s := rolePlayer("plain user")
		s.Credential = &trampoline.Credential{UID: 1234, GID: 2345, Groups: []uint32{2345}}
		s.Argv = []string{reachable(t)}
		if out, st, err := launch(t, s); err != nil || st != (Status{}) {
			t.Errorf("%v %+v\n%s", err, st, out)
		}
		return
	}
	t.Skip("plays the plain user itself only as root")
}

func init() {
	roles["plain user"] = func() int {
		run := func(c trampoline.Credential) error {
			s := spec("/bin/true")
			s.Credential, s.Output = &c, -1
			child, err := Start(&s)
			if err != nil {
				return err
			}
			defer child.Reap()
			defer child.Wait()
			return child.Execed()
		}
		ok := true
		check := func(err error, want string) {
			if got := errorText(err); got != want || err != nil && !errors.Is(err, unix.EPERM) {
				println("got", got, "want", want)
				ok = false
			}
		}
		check(run(trampoline.Credential{UID: 1234, GID: 2345, Groups: []uint32{2345}}), "")
		check(run(trampoline.Credential{UID: 1, GID: 2345, Groups: []uint32{2345}}), "user: uid 1: operation not permitted")
		check(run(trampoline.Credential{UID: 1234, GID: 1, Groups: []uint32{2345}}), "user: gid 1: operation not permitted")
		check(run(trampoline.Credential{UID: 1234, GID: 2345}), "user: supplementary groups: operation not permitted")
		if !ok {
			return 1
		}
		return 0
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// reachable copies this test binary to where another user can run it.
func reachable(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "sockd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "test")
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}
