package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// A Finding is one thing that this machine allows or does not, and what follows for
// sockd. Its keys and the subjects are stable.
type Finding struct {
	Subject string `json:"subject"`
	OK      bool   `json:"ok"`
	Found   string `json:"found"`
	Follows string `json:"follows"`
	Remedy  string `json:"remedy,omitempty"` // how to have more; only where not OK
}

// Diagnose tries out what this machine allows to a process such as this one. It
// needs no running sockd and leaves nothing behind. set is the units that are to be
// run, for what they need; nil is none. It takes some tens of milliseconds.
func Diagnose(set *units.Set, runtimeDir string) []Finding {
	r := steer.Probe()
	list := append(findSteering(r), findCgroup(), findSpawning(), findPidfd(), findProc(), findDescriptors(set), findBacklog(set), findRuntimeDir(runtimeDir), findIPv6())
	return append(list, findFlows(set, r, sys.MayRedeliver())...)
}

// findSteering is the three levels, then what moves connections.
func findSteering(r steer.Report) (list []Finding) {
	follows := map[steer.Level]string{
		steer.EBPF:       "siblings have weights, queues move to live siblings, udp flows and QUIC connections can be kept, connections are counted",
		steer.ClassicBPF: "siblings that are down get nothing new",
		steer.Hash:       "siblings share as the kernel deals; one that is down holds its clients until it is back",
	}
	for _, l := range r.Levels {
		f := Finding{Subject: "steering " + l.Level.String(), OK: l.OK, Found: "works", Follows: follows[l.Level]}
		switch {
		case !l.OK:
			f.Found, f.Follows, f.Remedy = l.Failed, "not: "+f.Follows, "needs "+l.Needs
			if l.Level == steer.EBPF && errors.Is(l.Err, unix.EPERM) {
				f.Remedy += "; for an ordinary user: setcap cap_bpf+ep on the file of sockd"
			}
		case l.Level == r.Best:
			f.Found = "works, and is used"
		}
		list = append(list, f)
	}
	f := Finding{Subject: "tcp_migrate_req", OK: true, Found: "net.ipv4.tcp_migrate_req is 1", Follows: "connections of a listener that goes move to its siblings"}
	if !r.Migration {
		f.Found = "net.ipv4.tcp_migrate_req is 0"
		if r.Best == steer.EBPF {
			f.Follows = "nothing is lost by that: the eBPF program moves connections itself"
		} else {
			f.OK, f.Remedy = false, "sysctl net.ipv4.tcp_migrate_req=1"
			f.Follows = "connections queued on an instance that has died wait until it is back; and one that is scaled away may take queued ones along"
		}
	}
	return append(list, f)
}

func findCgroup() Finding {
	c, err := sys.OpenCgroup()
	if err != nil {
		return Finding{"cgroup", false, err.Error(), "what a run leaves behind is found by session, descent and a mark in the environment, and killed",
			"delegate a cgroup to sockd, or give its container a writable one"}
	}
	c.Close()
	return Finding{Subject: "cgroup", OK: true, Found: "cgroup v2 is writable", Follows: "each run has a cgroup of its own; nothing of it outlives its end"}
}

func findSpawning() Finding {
	if err := sys.Direct(); err != nil {
		return Finding{Subject: "spawning", OK: true, Found: "trampoline: " + err.Error(), Follows: "a start takes some milliseconds more"}
	}
	return Finding{Subject: "spawning", OK: true, Found: "direct", Follows: "services are started without a detour"}
}

func findPidfd() Finding {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return Finding{"pidfd", false, "pidfd_open: " + errnoText(err), "processes are known by pid and start time", "needs Linux 5.3, and a filter that allows it"}
	}
	defer unix.Close(fd)
	f := Finding{Subject: "pidfd", OK: true, Found: "pidfd_open and pidfd_getfd work", Follows: "a signal never meets a process that has taken over a pid"}
	if got, err := unix.PidfdGetfd(fd, fd, 0); err == nil {
		unix.Close(got)
	} else {
		f.Found = "pidfd_open works, pidfd_getfd: " + errnoText(err)
		f.Follows += "; after the death of the keeper sockets of survivors cannot be taken over"
	}
	return f
}

func findProc() Finding {
	if err := sys.CheckProc(); err != nil {
		return Finding{"proc", false, err.Error(), "`sockd run` refuses to start", "mount -t proc proc /proc"}
	}
	return Finding{Subject: "proc", OK: true, Found: "/proc is there and is ours", Follows: "sockd can start itself and find leftovers"}
}

// What the keeper and the supervisor have open: a few for themselves, and for each
// process its output, its notify socket, its pidfd, its cgroup and what readiness takes.
const (
	descriptorsOfOurs = 100
	descriptorsOfRun  = 6
)

// descriptorsFor is how many descriptors units take, each replacement under way.
func descriptorsFor(set *units.Set) (n int) {
	for _, u := range set.Units {
		instances := instancesIn(u)
		n += len(places(u, instances, routesFlows()))
		if sv := u.Service; sv != nil {
			n += descriptorsOfRun*(instances+min(sv.Step, instances)) + sv.FDStoreMax*instances
		}
	}
	return n + descriptorsOfOurs
}

func findDescriptors(set *units.Set) Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return Finding{"descriptors", false, errnoText(err), "unknown", ""}
	}
	f := Finding{Subject: "descriptors", OK: true, Found: fmt.Sprintf("at most %d (the hard limit, which sockd takes for itself)", limit.Max)}
	if set == nil {
		f.Follows = fmt.Sprintf("enough for about %d sockets", max(0, int64(min(limit.Max, 1<<40))-descriptorsOfOurs))
		return f
	}
	need := descriptorsFor(set)
	f.Follows = fmt.Sprintf("the units need about %d", need)
	if uint64(need) > limit.Max {
		f.OK, f.Remedy = false, fmt.Sprintf("raise the limit: ulimit -Hn %d, or LimitNOFILE= under systemd", need)
	}
	return f
}

func findBacklog(set *units.Set) Finding {
	most, err := readNumber("/proc/sys/net/core/somaxconn")
	if err != nil {
		return Finding{"backlog", false, err.Error(), "unknown", ""}
	}
	f := Finding{Subject: "backlog", OK: true, Found: fmt.Sprintf("net.core.somaxconn is %d", most), Follows: fmt.Sprintf("up to %d connections wait in a queue", most)}
	var cut []string
	if set != nil {
		for _, u := range set.Units {
			for _, k := range u.Sockets {
				if k.Backlog > most {
					cut = append(cut, fmt.Sprintf("%s of unit %s asks for %d", k.Name, u.Name, k.Backlog))
				}
			}
		}
	}
	switch {
	case cut != nil:
		f.OK, f.Follows, f.Remedy = false, strings.Join(cut, ", ")+", and gets less", "sysctl net.core.somaxconn"
	case most < 1024:
		f.OK, f.Follows, f.Remedy = false, f.Follows+", which is few while a service restarts", "sysctl net.core.somaxconn=4096"
	}
	return f
}

// findRuntimeDir looks whether the folder could be had. It makes nothing.
func findRuntimeDir(dir string) Finding {
	f := Finding{Subject: "runtime folder", OK: true, Found: dir, Follows: "the control socket can be made there"}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := NewClient(dir).Units(ctx); err == nil {
		f.Follows = "a sockd is running there"
		return f
	} else if errors.Is(err, ErrDenied) {
		return Finding{f.Subject, false, err.Error(), "that is another user's, and no second `sockd run` can be there", "choose another with --runtime-dir or SOCKD_RUNTIME_DIR"}
	} else if !errors.Is(err, ErrNotRunning) {
		return Finding{f.Subject, false, dir + ": " + err.Error(), "a sockd is there, and does not answer well", "see its log"}
	}
	if path := filepath.Join(dir, ControlSocket); len(path) > 107 {
		return Finding{f.Subject, false, path + ": longer than the 107 bytes that a Unix socket allows", "`sockd run` refuses", "choose a shorter --runtime-dir"}
	}
	above := dir
	var err error
	for {
		if err = unix.Access(above, unix.W_OK|unix.X_OK); !errors.Is(err, unix.ENOENT) || above == filepath.Dir(above) {
			break
		}
		above = filepath.Dir(above)
	}
	if err != nil {
		return Finding{f.Subject, false, above + ": " + errnoText(err), "`sockd run` refuses", "choose another with --runtime-dir or SOCKD_RUNTIME_DIR"}
	}
	return f
}

func findIPv6() Finding {
	const remedy = "sysctl net.ipv6.conf.all.disable_ipv6=0, if the kernel has it at all"
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Finding{"ipv6", false, errnoText(err), `":8080" takes IPv4 only; tcp6 and udp6 addresses are refused`, remedy}
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}); err != nil {
		return Finding{"ipv6", false, "bind [::1]: " + errnoText(err), `":8080" is bound, and only IPv4 comes to it`, remedy}
	}
	return Finding{Subject: "ipv6", OK: true, Found: "works", Follows: `":8080" takes IPv6 and IPv4`}
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func errnoText(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Sprintf("%v (%s)", err, unix.ErrnoName(errno))
	}
	return err.Error()
}
