package steer

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs tests of this binary as nobody, without any capability but those named,
// in a network of their own, and returns what they print.
func asNobody(t *testing.T, migrate bool, pattern string, capabilities ...uintptr) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	namespace(t) // the thread's, which the child inherits
	migration(t, migrate)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	child, err := os.StartProcess("/proc/self/exe", []string{"steer.test", "-test.v", "-test.run=" + pattern}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{inNamespace + "=1"},
		Files: []*os.File{null, w, w},
		Sys:   &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: capabilities},
	})
	w.Close()
	must(t, err)
	var out strings.Builder
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	state, err := child.Wait()
	must(t, err)
	runtime.KeepAlive(child)
	if !state.Success() {
		t.Errorf("as nobody: %v\n%s", state, out.String())
	}
	return out.String()
}

// Everything but level EBPF works for an ordinary user.
func TestWithoutPrivilege(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		t.Skip("is the child itself")
	}
	for _, migrate := range []bool{false, true} {
		t.Run(fmt.Sprintf("migrate=%t", migrate), func(t *testing.T) {
			out := asNobody(t, migrate,
				"^(TestShares|TestFlush|TestFlushOfTheLastIsRefused|TestJoinAndLeave|TestFlowsStayWithTheirPlace|TestSuccessorTakesOver|TestProbe)$")
			want := []string{
				fmt.Sprintf("TestShares/classic-bpf_tcp4_migrate=%t", migrate),
				fmt.Sprintf("TestFlush/classic-bpf_tcp4_migrate=%t", migrate),
				fmt.Sprintf("TestFlush/hash_tcp4_migrate=%t", migrate),
				fmt.Sprintf("TestFlushOfTheLastIsRefused/classic-bpf_tcp4_migrate=%t", migrate),
				fmt.Sprintf("TestJoinAndLeave/classic-bpf_tcp4_migrate=%t", migrate),
				"TestFlowsStayWithTheirPlace/classic-bpf_udp4",
				"TestFlowsStayWithTheirPlace/classic-bpf_udp",
				"TestProbe",
			}
			if migrate {
				want = append(want, "TestSuccessorTakesOver/classic-bpf")
			}
			for _, name := range want {
				if !strings.Contains(out, "--- PASS: "+name+" (") {
					t.Errorf("as nobody: %s did not pass", name)
				}
			}
			skips := regexp.MustCompile(`level ebpf is not to be had here: (.*)`).FindStringSubmatch(out)
			if skips == nil || !strings.Contains(skips[1], "EPERM") {
				t.Errorf("as nobody: level ebpf is not said to fail with EPERM: %q\n%s", skips, out)
			}
		})
	}
}

// CAP_BPF is all that level EBPF needs: the kernel reads its programs more strictly then
// than root's.
func TestWithNoMorePrivilegeThanBPF(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		t.Skip("is the child itself")
	}
	if !mayBPF(t) {
		t.Skip("needs CAP_BPF, to pass it on")
	}
	out := asNobody(t, false, "^(TestShares|TestFlush|TestJoinAndLeave|TestFlowsStayWithTheirPlace|TestStickyFlowsDoNotMove|TestFlowsStayWithTheirGeneration|TestConnectionIDs|TestProbe)$", unix.CAP_BPF)
	for _, name := range []string{"TestShares/ebpf_tcp4_migrate=false", "TestFlush/ebpf_tcp4_migrate=false", "TestJoinAndLeave/ebpf_tcp4_migrate=false",
		"TestFlowsStayWithTheirPlace/ebpf_udp4", "TestStickyFlowsDoNotMove/udp4", "TestFlowsStayWithTheirGeneration/udp4", "TestConnectionIDs/udp4", "TestProbe"} {
		if !strings.Contains(out, "--- PASS: "+name+" (") {
			t.Errorf("with CAP_BPF alone: %s did not pass", name)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestProbe(t *testing.T) {
	r := Probe()
	if len(r.Levels) != 3 || r.Levels[2].Level != Hash || !r.Levels[2].OK {
		t.Fatalf("levels: %+v", r.Levels)
	}
	first := Best
	for _, l := range r.Levels {
		if l.OK != (l.Err == nil) || l.OK != (l.Failed == "") || l.Needs == "" {
			t.Errorf("%+v contradicts itself", l)
		}
		if l.OK && first == Best {
			first = l.Level
		}
	}
	if r.Best != first {
		t.Errorf("best is %s, want %s", r.Best, first)
	}
	if mayBPF(t) != r.Levels[0].OK {
		t.Errorf("CAP_BPF %t, but level ebpf: %+v", mayBPF(t), r.Levels[0])
	}
	if !r.Levels[1].OK {
		t.Errorf("classic BPF needs no privilege: %s", r.Levels[1].Failed)
	}
	text, err := json.Marshal(r)
	must(t, err)
	t.Logf("%s", text)
	for _, want := range []string{`"best":"` + first.String() + `"`, `"level":"classic-bpf","ok":true`, `"tcp_migrate_req":`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// mayBPF reads the thread's effective capabilities: CAP_BPF, or CAP_SYS_ADMIN, which
// includes it.
func mayBPF(t *testing.T) bool {
	t.Helper()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&head, &data[0]))
	return data[unix.CAP_BPF/32].Effective&(1<<(unix.CAP_BPF%32)) != 0 || data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
