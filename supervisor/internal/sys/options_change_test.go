package sys

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bound socket gets the options of a fresh one, and back again.
func TestChangeOptions(t *testing.T) {
	tos, ttl, priority := 0x10, 33, 5
	for _, row := range []struct {
		network string
		set     func(*Options)
		stays   string // what cannot be changed
	}{
		{"tcp", func(o *Options) { o.KeepAlive, o.NoDelay, o.FastOpen, o.DeferAccept = true, true, 9, 3*time.Second }, ""},
		{"tcp", func(o *Options) { o.IPTOS, o.IPTTL, o.Priority = &tos, &ttl, &priority }, ""},
		{"tcp", func(o *Options) { o.ReceiveBuffer, o.SendBuffer = 100_000, 50_000 }, ""},
		{"udp", func(o *Options) { o.ReceiveBuffer, o.IPTTL = 100_000, &ttl }, ""},
		{"tcp", func(o *Options) { o.FreeBind = true }, "free_bind"},
		{"udp", func(o *Options) { o.BindToDevice = "lo" }, "bind_to_device"},
	} {
		plain, other := none(), none()
		row.set(&other)
		held := mustBind(t, row.network, "127.0.0.1:0", plain)
		want := mustBind(t, row.network, "127.0.0.1:0", other)
		before, inode := optionsAt(t, held.FD), mustInode(t, held.FD)
		after := optionsAt(t, want.FD)
		for _, step := range []struct {
			was, is *Options
			want    []string
		}{{&plain, &other, after}, {&other, &other, after}, {&other, &plain, before}} {
			warnings := ChangeOptions(held.FD, step.was, step.is)
			if row.stays != "" {
				if step.was != step.is && (len(warnings) == 0 || !strings.HasPrefix(warnings[0], row.stays+": stays")) {
					t.Errorf("%s: warnings %q", row.stays, warnings)
				}
				continue
			}
			if got := optionsAt(t, held.FD); len(warnings) > 0 || !slices.Equal(got, step.want) {
				t.Errorf("%s: %v, want %v; warnings %q", row.network, got, step.want, warnings)
			}
		}
		if mustInode(t, held.FD) != inode {
			t.Error("another socket")
		}
	}
}

func TestChangeBacklogKeepsTheQueue(t *testing.T) {
	o := none()
	o.Backlog = 10
	more := o
	more.Backlog = 20
	b := mustBind(t, "tcp", "127.0.0.1:0", o)
	sa, err := unix.Getsockname(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	if err := unix.Connect(client, sa); err != nil {
		t.Fatal(err)
	}
	if w := ChangeOptions(b.FD, &o, &more); len(w) > 0 {
		t.Fatal(w)
	}
	if queued, backlog, _, err := Queue(b.FD); err != nil || queued != 1 || backlog != 20 {
		t.Errorf("%d queued, backlog %d, %v", queued, backlog, err)
	}
}

func optionsAt(t *testing.T, fd int) []string {
	t.Helper()
	list, err := OptionsOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func mustInode(t *testing.T, fd int) uint64 {
	t.Helper()
	inode, err := Inode(fd)
	if err != nil {
		t.Fatal(err)
	}
	return inode
}
