package sys

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// settings has one value for each key that sets an option, none of them the system's.
func settings() map[string]func(*Options) {
	yes, tos, ttl, mark, priority := true, 0x10, 33, 7, 3
	return map[string]func(*Options){
		"reuse_addr":     func(o *Options) { o.ReuseAddr = &yes },
		"reuse_port":     func(o *Options) { o.ReusePort = true },
		"free_bind":      func(o *Options) { o.FreeBind = true },
		"transparent":    func(o *Options) { o.Transparent = true },
		"bind_to_device": func(o *Options) { o.BindToDevice = "lo" },
		"mark":           func(o *Options) { o.Mark = &mark },
		"priority":       func(o *Options) { o.Priority = &priority },
		"receive_buffer": func(o *Options) { o.ReceiveBuffer = 100_000 },
		"send_buffer":    func(o *Options) { o.SendBuffer = 50_000 },
		"keep_alive":     func(o *Options) { o.KeepAlive = true },
		"no_delay":       func(o *Options) { o.NoDelay = true },
		"defer_accept":   func(o *Options) { o.DeferAccept = 3 * time.Second },
		"fast_open":      func(o *Options) { o.FastOpen = 9 },
		"ip_tos":         func(o *Options) { o.IPTOS = &tos },
		"ip_ttl":         func(o *Options) { o.IPTTL = &ttl },
	}
}

// valuesOf are those of OptionsOf that belong to a key.
func valuesOf(t *testing.T, fd int, key string) (mine []string) {
	t.Helper()
	for _, line := range optionsAt(t, fd) {
		if slices.ContainsFunc(options, func(row option) bool { return row.key == key && strings.HasPrefix(line, row.name+"=") }) {
			mine = append(mine, line)
		}
	}
	return mine
}

// No option undoes another: not when a socket is made with both, and not when the one
// comes to, or leaves, a socket that has the other (ip(7): IP_TOS sets the priority too).
func TestOptionsDoNotDisturbEachOther(t *testing.T) {
	all, pairs := settings(), 0
	for _, row := range options {
		if all[row.key] == nil && row.key != "ipv6_only" && row.key != "multicast" {
			t.Errorf("%s is not tried", row.key)
		}
	}
	if os.Geteuid() != 0 {
		delete(all, "mark")
		delete(all, "transparent")
	}
	for _, at := range [][2]string{{"tcp", ":0"}, {"tcp4", "127.0.0.1:0"}, {"udp", ":0"}, {"udp4", "127.0.0.1:0"}} {
		for a, setA := range all {
			one := none()
			setA(&one)
			alone := mustBind(t, at[0], at[1], one)
			want := valuesOf(t, alone.FD, a)
			for b, setB := range all {
				both := one
				setB(&both)
				pairs++
				check := func(how string, fd int) {
					t.Helper()
					if got := valuesOf(t, fd, a); !slices.Equal(got, want) {
						t.Errorf("%s: %s %s %s: %v, want %v", at[0], a, how, b, got, want)
					}
				}
				made := mustBind(t, at[0], at[1], both)
				check("beside", made.FD)
				ChangeOptions(alone.FD, &one, &both)
				check("before the change to", alone.FD)
				ChangeOptions(alone.FD, &both, &one)
				check("after the change from", alone.FD)
				made.close()
			}
			alone.close()
		}
	}
	t.Logf("%d pairs of options, each read back as it was set", pairs)
}
