package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { roles["filtered"] = filtered }

// filtered starts a program under a filter that answers the system call with the
// number in its first argument with the errno in its second. It prints whether the
// direct way works here, and what came of the start, in a cgroup if the third says so;
// or it tries the direct way before there is a filter.
func filtered() int {
	call, _ := strconv.Atoi(os.Args[1])
	errno, _ := strconv.Atoi(os.Args[2])
	when := os.Args[3]
	if when == afterTest {
		Direct()
	}
	if err := forbid(uint32(call), uint32(errno)); err != nil {
		fmt.Println("no filter:", err)
		return 0
	}
	fmt.Printf("direct=%v", Direct() == nil)
	s := spec("/bin/sh", "-c", `test "$LISTEN_PID" = $$ && test -z "${LISTEN_PIDFDID+set}" && exit 7; test "$LISTEN_PIDFDID" -gt 0 && exit 8`)
	s.Output, s.PidEnv, s.PidfdEnv = -1, []string{"LISTEN_PID"}, []string{"LISTEN_PIDFDID"}
	if when == inCgroup {
		c, err := OpenCgroup()
		if err != nil {
			fmt.Println(" no cgroup:", err)
			return 0
		}
		defer c.Close()
		if s.Leaf, err = c.NewLeaf(); err != nil {
			fmt.Println(err)
			return 1
		}
		defer s.Leaf.Remove()
	}
	child, err := Start(&s)
	if f := (*Failure)(nil); errors.As(err, &f) {
		fmt.Println("", f.Stage, int(f.Errno))
		return 0
	}
	if err := child.Execed(); err != nil {
		fmt.Println(err)
		return 0
	}
	st, err := child.Wait()
	child.Reap()
	fmt.Println("", st.Code, err)
	return 0
}

const (
	atOnce    = ""
	inCgroup  = "in a cgroup"
	afterTest = "after the self-test"
)

// forbid makes the kernel answer a system call with errno, in all threads and in
// everything started from here on, as container engines do.
func forbid(call, errno uint32) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number; seccomp_data begins with it
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if err != 0 {
		return err
	}
	return nil
}

// What a container's filter forbids costs the direct way at most, and never a start;
// only birth in a cgroup has no other way, and says so.
func TestForbiddenCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and the race detector sees nothing new in it: without -short")
	}
	needDirect(t)
	tests := []struct {
		name string
		call int
		when string
		want string // E stands for the errno, I for the code of one who knows his pidfd's number
	}{
		{"close_range", unix.SYS_CLOSE_RANGE, atOnce, "direct=false I <nil>"},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, atOnce, "direct=true 7 <nil>"},
		{"pidfd_open late", unix.SYS_PIDFD_OPEN, afterTest, "direct=true 7 <nil>"},
		{"clone3", unix.SYS_CLONE3, atOnce, "direct=true I <nil>"},
		{"clone3 and a cgroup", unix.SYS_CLONE3, inCgroup, "direct=true fork E"},
		{"setsid", unix.SYS_SETSID, atOnce, "direct=false fork E"},
		{"faccessat", unix.SYS_FACCESSAT, atOnce, "direct=true I <nil>"},
		{"memfd_create", unix.SYS_MEMFD_CREATE, atOnce, "direct=true I <nil>"},
		{"prlimit64", unix.SYS_PRLIMIT64, atOnce, "direct=true I <nil>"},
	}
	informed := "7"
	if pidfs() {
		informed = "8"
	}
	for _, tt := range tests {
		for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
			if tt.call == unix.SYS_CLONE3 && errno == unix.EPERM {
				continue // ends every program of the GNU C library that makes a thread, this test too
			}
			t.Run(tt.name+" "+unix.ErrnoName(errno), func(t *testing.T) {
				s := rolePlayer("filtered")
				s.Env = append(s.Env, "GORACE=atexit_sleep_ms=0")
				s.Argv = append(s.Argv, strconv.Itoa(tt.call), strconv.Itoa(int(errno)), tt.when)
				o := ways[0].run(t, newPipe(t), s)
				if o.failure != nil || o.status != (Status{}) {
					t.Fatalf("%v %+v\n%s", o.failure, o.status, o.output)
				}
				got := strings.TrimSpace(o.output)
				if strings.Contains(got, "no filter") || strings.Contains(got, "no cgroup") {
					t.Skip(got)
				}
				if want := strings.NewReplacer("E", strconv.Itoa(int(errno)), "I", informed).Replace(tt.want); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}
