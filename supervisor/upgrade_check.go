package supervisor

import (
	"cmp"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// HandshakeArgument, as the only one, makes sockd say who it is, as JSON, and end.
// It is what a file is asked before it may take over.
const HandshakeArgument = "--handshake"

// A Build says what a program is, as far as another may have to do with it.
type Build struct {
	Program string    `json:"program"` // "sockd"
	Version string    `json:"version"`
	Time    time.Time `json:"time,omitzero"` // of the commit; zero if unknown
	Wire    int       `json:"wire"`          // of the messages between keeper and supervisor
	State   int       `json:"state"`         // of saved units
	Keeper  int       `json:"keeper"`        // of what one keeper leaves to the next
}

// NewBuild describes this program, which calls itself version, of a commit made at
// that time.
func NewBuild(version string, at time.Time) Build {
	return Build{Program: "sockd", Version: version, Time: at, Wire: keeper.WireVersion, State: stateVersion, Keeper: keeper.StateVersion}
}

// Handshake answers HandshakeArgument.
func (b Build) Handshake(w io.Writer) error { return json.NewEncoder(w).Encode(b) }

// A refusal is why a file may not take over. Nothing has changed.
type refusal struct{ text string }

func (e *refusal) Error() string { return e.text }

func refused(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// openProgram opens an executable and checks it without running it: only a program
// that was built with sockd's code gets as far as that. The descriptor is what was
// checked, whatever the name means later.
func openProgram(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not keep us waiting
	if err != nil {
		return nil, refused("%v", err)
	}
	if err := checkProgram(f); err != nil {
		f.Close()
		return nil, refused("%s: %v", name, err)
	}
	return f, nil
}

func checkProgram(f *os.File) error {
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("is not a regular file")
	case st.Mode()&0o111 == 0:
		return errors.New("is not executable")
	case st.Mode()&0o002 != 0:
		return errors.New("may be written by everybody")
	}
	e, err := elf.NewFile(f)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("is no program, or truncated: it has %d bytes", st.Size())
	}
	if err != nil {
		return fmt.Errorf("is no program: %w", err)
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]; want != 0 && e.Machine != want {
		return fmt.Errorf("is for %v and not for this machine (%s)", e.Machine, runtime.GOARCH)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return fmt.Errorf("is no program but %v", e.Type)
	}
	for _, p := range e.Progs {
		if end := p.Off + p.Filesz; end < p.Off || end > uint64(st.Size()) {
			return fmt.Errorf("is truncated: it has %d bytes and needs %d", st.Size(), end)
		}
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return fmt.Errorf("is not sockd: %w", err)
	}
	const module = "github.com/sockd/sockd"
	if info.Main.Path != module && info.Path != module && !strings.HasPrefix(info.Path, module+"/") {
		return fmt.Errorf("is not sockd but %s", cmp.Or(info.Path, "something else"))
	}
	return nil
}

// handshakePatience is how long a program may take to say who it is, and end; tests have less.
var handshakePatience = 10 * time.Second

// maxHandshake bounds what it may say, in bytes.
const maxHandshake = 64 << 10

// askProgram runs the program, with no environment, and returns what it says of itself.
func askProgram(f *os.File) (b Build, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return b, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return b, err
	}
	defer r.Close()
	// The descriptor and not the name is executed. Not a service: nobody supervises it.
	p, err := os.StartProcess("/proc/self/fd/3", []string{"sockd", HandshakeArgument}, &os.ProcAttr{ // allowed: the file asked who it is
		Env: []string{}, Files: []*os.File{null, w, null, f},
	})
	w.Close()
	if err != nil {
		return b, refused("cannot be executed: %v", err)
	}
	late := time.AfterFunc(handshakePatience, func() { p.Kill() })
	r.SetReadDeadline(time.Now().Add(handshakePatience)) // somebody else may have the other end
	text, err := io.ReadAll(io.LimitReader(r, maxHandshake))
	r.Close() // who has more to say is not waited for
	if err != nil {
		p.Kill()
	}
	st, waitErr := p.Wait()
	inTime := late.Stop()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) || !inTime:
		return b, refused("did not say within %v who it is", handshakePatience)
	case err != nil || waitErr != nil:
		return b, errors.Join(err, waitErr)
	case !st.Success():
		return b, refused("does not work: asked who it is, it ended with %v", st)
	}
	if err := json.Unmarshal(text, &b); err != nil || b.Program != "sockd" {
		return b, refused("is not sockd: asked who it is, it said %q", clip(string(text), 80))
	}
	return b, nil
}

// mayReplace says why now must not be followed by next.
func mayReplace(now, next Build, allowOlder bool) error {
	switch {
	case next.Wire != now.Wire:
		return refused("%s speaks version %d of the messages between keeper and supervisor, not %d; stop sockd and start the new one", next.Version, next.Wire, now.Wire)
	case next.State != now.State:
		return refused("%s reads version %d of saved units, not %d; stop sockd and start the new one", next.Version, next.State, now.State)
	case next.Keeper != now.Keeper:
		return refused("%s reads version %d of a keeper's state, not %d; stop sockd and start the new one", next.Version, next.Keeper, now.Keeper)
	case !allowOlder && older(next, now):
		return refused("%s is older than %s, which is running; --allow-older goes back all the same", next.Version, now.Version)
	}
	return nil
}

// older compares versions if both have numbers, else the times of their commits. Who
// cannot be compared is not older.
func older(a, b Build) bool {
	x, okA := parseVersion(a.Version)
	y, okB := parseVersion(b.Version)
	if okA && okB && x != y {
		return x.less(y)
	}
	return !a.Time.IsZero() && !b.Time.IsZero() && a.Time.Before(b.Time)
}

// A semver is vMAJOR.MINOR.PATCH and perhaps -PRE; what follows a + does not count.
type semver struct {
	major, minor, patch int
	pre                 string
}

func parseVersion(s string) (v semver, ok bool) {
	s, ok = strings.CutPrefix(s, "v")
	s, _, _ = strings.Cut(s, "+")
	s, v.pre, _ = strings.Cut(s, "-")
	numbers := strings.Split(s, ".")
	if !ok || len(numbers) != 3 {
		return v, false
	}
	for i, p := range []*int{&v.major, &v.minor, &v.patch} {
		n, err := strconv.Atoi(numbers[i])
		if err != nil || n < 0 {
			return v, false
		}
		*p = n
	}
	return v, true
}

// less: a version with -PRE comes before the one without. Those of Go's pseudo-versions
// begin with the commit's time, so text is compared as text.
func (v semver) less(w semver) bool {
	if c := cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch)); c != 0 {
		return c < 0
	}
	if (v.pre == "") != (w.pre == "") {
		return v.pre != ""
	}
	return v.pre < w.pre
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// programFile is the file that this supervisor's keeper was started from.
func programFile() string {
	if name := os.Getenv(fileVariable); name != "" {
		return name
	}
	name, _ := os.Executable()
	return name
}
