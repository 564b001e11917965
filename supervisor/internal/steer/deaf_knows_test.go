package steer

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket tells whether it was made deaf; a service's own filter is no deafness.
func TestDeafIsKnown(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	want := func(what string, deaf bool) {
		t.Helper()
		if Deaf(fd) != deaf {
			t.Errorf("%s: deaf is %v", what, !deaf)
		}
	}
	want("a new socket", false)
	if err := Deafen(fd); errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	want("deafened", true)
	own := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &own[0]}); err != nil {
		t.Fatal(err)
	}
	want("with another filter", false)
	if err := Deafen(fd); err != nil {
		t.Fatal(err)
	}
	if err := Undeafen(fd); err != nil {
		t.Fatal(err)
	}
	want("undeafened", false)
}
