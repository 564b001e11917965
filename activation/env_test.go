package activation

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// env makes a map of KEY=value words separated by blanks.
func env(words string) map[string]string {
	m := map[string]string{}
	for _, word := range strings.Fields(words) {
		key, value, _ := strings.Cut(word, "=")
		m[key] = value
	}
	return m
}

func TestParse(t *testing.T) {
	const pid, id = 42, 7000
	for _, tt := range []struct {
		name, env string
		names     []string
		want      string // the error's text; "none": ErrNotActivated in any words
	}{
		{"nothing", "", nil, "none"},
		{"no pid", "LISTEN_FDS=1", nil, "none"},
		{"no count", "LISTEN_PID=42", nil, "none"},
		{"another's pid", "LISTEN_PID=41 LISTEN_FDS=1", nil, "activation: this process was given no sockets: LISTEN_PID is 41 and this is process 42 (a shell or launcher in between?)"},
		{"another's pid hides what is wrong after it", "LISTEN_PID=41 LISTEN_FDS=x", nil, "none"},
		{"pid is no number", "LISTEN_PID=self LISTEN_FDS=1", nil, `activation: LISTEN_PID="self" is not a process id`},
		{"pid is 0", "LISTEN_PID=0 LISTEN_FDS=1", nil, `activation: LISTEN_PID="0" is not a process id`},
		{"pid is negative", "LISTEN_PID=-42 LISTEN_FDS=1", nil, `activation: LISTEN_PID="-42" is not a process id`},
		{"pid overflows", "LISTEN_PID=4294967338 LISTEN_FDS=1", nil, `activation: LISTEN_PID="4294967338" is not a process id`},
		{"pid is empty", "LISTEN_PID= LISTEN_FDS=1", nil, `activation: LISTEN_PID="" is not a process id`},
		{"our pidfd", "LISTEN_PID=42 LISTEN_PIDFDID=7000 LISTEN_FDS=1", []string{"unknown"}, ""},
		{"another's pidfd", "LISTEN_PID=42 LISTEN_PIDFDID=7001 LISTEN_FDS=1", nil, "none"},
		{"pidfd is no number", "LISTEN_PID=42 LISTEN_PIDFDID=-1 LISTEN_FDS=1", nil, `activation: LISTEN_PIDFDID="-1" is not a number`},
		{"one, no names", "LISTEN_PID=42 LISTEN_FDS=1", []string{"unknown"}, ""},
		{"three, no names", "LISTEN_PID=42 LISTEN_FDS=3", []string{"unknown", "unknown", "unknown"}, ""},
		{"names", "LISTEN_PID=42 LISTEN_FDS=3 LISTEN_FDNAMES=web:web:admin", []string{"web", "web", "admin"}, ""},
		{"one empty name", "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_FDNAMES=", []string{""}, ""},
		{"an empty name among others", "LISTEN_PID=42 LISTEN_FDS=3 LISTEN_FDNAMES=a::b", []string{"a", "", "b"}, ""},
		{"a name too few", "LISTEN_PID=42 LISTEN_FDS=2 LISTEN_FDNAMES=web", nil, `activation: LISTEN_FDNAMES="web" has 1 names and LISTEN_FDS says 2`},
		{"a name too many", "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_FDNAMES=a:b", nil, `activation: LISTEN_FDNAMES="a:b" has 2 names and LISTEN_FDS says 1`},
		{"count is 0", "LISTEN_PID=42 LISTEN_FDS=0", nil, `activation: LISTEN_FDS="0" is not a number from 1 to 1048576`},
		{"count is negative", "LISTEN_PID=42 LISTEN_FDS=-1", nil, `activation: LISTEN_FDS="-1" is not a number from 1 to 1048576`},
		{"count is no number", "LISTEN_PID=42 LISTEN_FDS=two", nil, `activation: LISTEN_FDS="two" is not a number from 1 to 1048576`},
		{"count is signed", "LISTEN_PID=42 LISTEN_FDS=+1", nil, `activation: LISTEN_FDS="+1" is not a number from 1 to 1048576`},
		{"count overflows", "LISTEN_PID=42 LISTEN_FDS=18446744073709551617", nil, `activation: LISTEN_FDS="18446744073709551617" is not a number from 1 to 1048576`},
		{"count is more than can be", "LISTEN_PID=42 LISTEN_FDS=1048577", nil, `activation: LISTEN_FDS="1048577" is not a number from 1 to 1048576`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			names, err := parse(env(tt.env), pid, id)
			if !slices.Equal(names, tt.names) {
				t.Errorf("names %q, want %q", names, tt.names)
			}
			switch {
			case tt.want == "" && err != nil, tt.want != "" && err == nil:
				t.Errorf("error %v, want %q", err, tt.want)
			case tt.want == "none" && !errors.Is(err, ErrNotActivated):
				t.Errorf("error %v, want ErrNotActivated", err)
			case tt.want != "" && tt.want != "none" && err.Error() != tt.want:
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

func TestParseKnowsNoPidfdOnOldKernels(t *testing.T) {
	names, err := parse(env("LISTEN_PID=42 LISTEN_PIDFDID=7001 LISTEN_FDS=1"), 42, 0)
	if err != nil || len(names) != 1 {
		t.Errorf("got %q, %v; an unknown id must not refuse", names, err)
	}
}

// Where pidfds of different processes have different inodes, ours is our id; where
// all have the same, there is no id.
func TestOwnPidfdID(t *testing.T) {
	inode := func(pid int) uint64 {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Skip("no pidfd: ", err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	want := inode(os.Getpid())
	if want == inode(os.Getppid()) {
		want = 0
	}
	if got := ownPidfdID(); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestParseWatchdog(t *testing.T) {
	for _, tt := range []struct {
		name, env string
		want      time.Duration
		err       string
	}{
		{"nothing", "", 0, ""},
		{"only a pid", "WATCHDOG_PID=42", 0, ""},
		{"for everybody", "WATCHDOG_USEC=3000000", 3 * time.Second, ""},
		{"for us", "WATCHDOG_USEC=20 WATCHDOG_PID=42", 20 * time.Microsecond, ""},
		{"for another", "WATCHDOG_USEC=20 WATCHDOG_PID=41", 0, ""},
		{"pid wrong", "WATCHDOG_USEC=20 WATCHDOG_PID=me", 0, `activation: WATCHDOG_PID="me" is not a process id`},
		{"zero", "WATCHDOG_USEC=0", 0, `activation: WATCHDOG_USEC="0" is not a number of microseconds from 1 to 9223372036854775`},
		{"too long for a Duration", "WATCHDOG_USEC=9223372036854776", 0, `activation: WATCHDOG_USEC="9223372036854776" is not a number of microseconds from 1 to 9223372036854775`},
		{"a unit", "WATCHDOG_USEC=3s", 0, `activation: WATCHDOG_USEC="3s" is not a number of microseconds from 1 to 9223372036854775`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseWatchdog(env(tt.env), 42)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if got != tt.want || text != tt.err {
				t.Errorf("got %v, %q; want %v, %q", got, text, tt.want, tt.err)
			}
		})
	}
}

// FuzzParse looks for an environment that is neither refused nor understood.
func FuzzParse(f *testing.F) {
	f.Add("42", "7000", "2", "a:b", uint8(15), 42, uint64(7000))
	f.Add("42", "", "1", "", uint8(5), 42, uint64(0))
	f.Add("-1", "x", "99999999999999999999", ":::", uint8(15), 1, uint64(1))
	f.Fuzz(func(t *testing.T, pidText, id, count, names string, set uint8, pid int, pidfd uint64) {
		e := map[string]string{}
		for i, value := range []string{pidText, id, count, names} {
			if set&(1<<i) != 0 {
				e[variables[i]] = value
			}
		}
		got, err := parse(e, pid, pidfd)
		if (err == nil) == (len(got) == 0) {
			t.Fatalf("%q: %d names and error %v", e, len(got), err)
		}
		if err != nil {
			return
		}
		if n, _ := strconv.Atoi(e["LISTEN_FDS"]); n != len(got) {
			t.Errorf("%q: %d names", e, len(got))
		}
		if want, _ := strconv.Atoi(e["LISTEN_PID"]); want != pid {
			t.Errorf("%q: taken by %d", e, pid)
		}
		if text, ok := e["LISTEN_FDNAMES"]; ok && strings.Join(got, ":") != text {
			t.Errorf("%q: names %q", e, got)
		}
	})
}

func TestConsume(t *testing.T) {
	t.Setenv("ACTIVATION_TEST_A", "1")
	t.Setenv("ACTIVATION_TEST_B", "")
	got := consume("ACTIVATION_TEST_A", "ACTIVATION_TEST_B", "ACTIVATION_TEST_C")
	if a, b := got["ACTIVATION_TEST_A"], got["ACTIVATION_TEST_B"]; a != "1" || b != "" || len(got) != 2 {
		t.Errorf("got %q", got)
	}
	if _, ok := os.LookupEnv("ACTIVATION_TEST_B"); ok {
		t.Error("an empty variable stayed")
	}
}
