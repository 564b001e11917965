package supervisor

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys"
	"golang.org/x/sys/unix"
)

const spread = `
[service]
role = serve
ready = "notify"
start = "boot"
instances = %d
%s
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
`

// allowed is the kernel's list of CPUs that a process may run on.
func allowed(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
	list, _, _ := strings.Cut(rest, "\n")
	return list
}

func TestInstancesAreSpreadOverCPUs(t *testing.T) {
	cpus, err := sys.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, trampoline := range []bool{false, true} {
		sys.AlwaysTrampoline(trampoline)
		defer sys.AlwaysTrampoline(false)
		n := len(cpus) + 1 // one CPU has two
		if trampoline && testing.Short() {
			break
		}
		f := newFixture(t, "web", fmt.Sprintf(spread, n, `cpu = "spread"`))
		f.do("start", "web", Done)
		f.do("restart", "web", Done)
		for i, in := range f.unit("web").Instances {
			if got, want := allowed(t, in.Runs[0].Pid), fmt.Sprint(cpus[i%len(cpus)]); got != want {
				t.Errorf("instance %d of %d may run on %s, not %s (trampoline %v)", i+1, n, got, want, trampoline)
			}
		}
		// The key is one that a process sees: without it they are replaced.
		f.write("web", fmt.Sprintf(spread, n, ""))
		last := f.unit("web").LastGen
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.until("all replaced", func() bool {
			for _, in := range f.unit("web").Instances {
				if len(in.Runs) != 1 || in.Runs[0].Gen <= last {
					return false
				}
			}
			return true
		})
		for _, in := range f.unit("web").Instances {
			if got, want := allowed(t, in.Runs[0].Pid), allowed(t, os.Getpid()); got != want {
				t.Errorf("instance %d may run on %s, not on %s", in.Instance, got, want)
			}
		}
		f.stop()
	}
}

// Where the kernel chooses, a sibling has what arrives on its CPU, but only when there
// are exactly as many as CPUs.
func TestSiblingsAreSpreadOverCPUs(t *testing.T) {
	cpus, err := sys.CPUs()
	if err != nil || len(cpus) < 2 {
		t.Skipf("needs two CPUs or more: %v, %v", cpus, err)
	}
	n := len(cpus)
	levels := []string{"hash", "off", ""}
	if testing.Short() {
		levels = levels[:1]
	}
	for _, level := range levels {
		t.Setenv(levelVariable, level)
		f := newFixture(t, "web", fmt.Sprintf(spread, n, `cpu = "spread"`))
		check := func(when string, set bool) {
			t.Helper()
			for _, k := range f.unit("web").Sockets {
				want := sys.AnyCPU
				if set && (k.Steering == "hash" || k.Steering == "") {
					want = cpus[k.Instance-1]
				}
				if got, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU); err != nil || got != want {
					t.Errorf("%s, %q: %s of instance %d is for CPU %d (%v), not %d", when, level, k.Network, k.Instance, got, err, want)
				}
			}
		}
		f.do("start", "web", Done)
		check("as many as CPUs", true)
		if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, n+1); err != nil || out.Outcome != Done {
			t.Fatal(out, err)
		}
		check("one more", false)
		if out, err := f.s.scaleUnit(t.Context(), errand{unit: "web", wait: true}, n); err != nil || out.Outcome != Done {
			t.Fatal(out, err)
		}
		check("as many again", true)
		f.write("web", fmt.Sprintf(spread, n, ""))
		if err := f.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("not asked for", false)
		f.stop()
	}
}
