package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/supervisor/internal/sys"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

// defaultPath is the PATH of a service that inherits no environment and sets none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process says what to start for a run, with the variables of its files. An error names
// the key that is wrong.
func (u *unit) process(r *run, notifyAddress string, sockets []*socket, stored []*stored, fromFiles []string) (keeper.Process, error) {
	sv := u.conf.Service
	p := keeper.Process{Argv: sv.Exec, Dir: sv.Directory, Output: -1, Umask: sv.Umask}
	var names []string // LISTEN_FDNAMES
	for _, k := range sockets {
		p.Sockets, names = append(p.Sockets, k.held), append(names, k.name)
	}
	if r.door != 0 {
		p.Sockets, names = append(p.Sockets, r.held("gate")), append(names, units.ReadySocket)
	}
	for _, e := range stored {
		p.Sockets, names = append(p.Sockets, e.held), append(names, e.name)
	}
	var err error
	if p.CPU, err = u.cpu(r.id.Instance); err != nil {
		return p, err
	}
	home, err := u.credential(&p)
	if err != nil {
		return p, err
	}
	env := u.environment(home, fromFiles)
	env.set("NOTIFY_SOCKET", notifyAddress)
	env.set("SOCKD_UNIT", u.conf.Name)
	env.set("SOCKD_INSTANCE", strconv.Itoa(r.id.Instance))
	env.set("SOCKD_INSTANCES", strconv.Itoa(u.instances()))
	env.set("SOCKD_GENERATION", strconv.FormatUint(r.id.Gen, 10))
	if prefix := u.idPrefix(r); prefix != "" {
		env.set("SOCKD_CONNECTION_ID_PREFIX", prefix)
	}
	if len(names) > 0 {
		env.set("LISTEN_FDS", strconv.Itoa(len(names)))
		env.set("LISTEN_FDNAMES", strings.Join(names, ":"))
		p.PidEnv, p.PidfdEnv = append(p.PidEnv, "LISTEN_PID"), append(p.PidfdEnv, "LISTEN_PIDFDID")
	}
	if sv.FDStoreMax > 0 {
		env.set("FDSTORE", strconv.Itoa(sv.FDStoreMax))
	}
	if sv.Watchdog > 0 {
		env.set("WATCHDOG_USEC", strconv.FormatInt(sv.Watchdog.Microseconds(), 10))
		p.PidEnv = append(p.PidEnv, "WATCHDOG_PID")
	}
	p.Env = env.list
	return p, nil
}

// credential resolves user and group when a run starts, so that an account made
// after sockd began counts. It returns variables that go with another user.
func (u *unit) credential(p *keeper.Process) ([]string, error) {
	sv := u.conf.Service
	if sv.User == "" && sv.Group == "" {
		return nil, nil
	}
	c := &keeper.Credential{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	var vars []string
	if sv.User != "" {
		a, err := sys.LookupUser(sv.User)
		if err != nil && !(errors.Is(err, sys.ErrNoEntry) && sv.Group != "") {
			return nil, fmt.Errorf("user: %w", err)
		}
		c.UID, c.GID, c.Groups = a.UID, a.GID, a.Groups
		if err == nil {
			vars = []string{"HOME=" + a.Home, "USER=" + sv.User, "LOGNAME=" + sv.User}
		}
	}
	if sv.Group != "" {
		gid, err := sys.LookupGroup(sv.Group)
		if err != nil {
			return nil, fmt.Errorf("group: %w", err)
		}
		c.GID = gid
	}
	p.Credential = c
	return vars, nil
}

// environment builds a service's variables from the inherited ones, its own, and
// its files, later ones winning, as in systemd.exec(5). None of sockd's own leak.
func (u *unit) environment(account, fromFiles []string) *environ {
	sv := u.conf.Service
	env := &environ{}
	if sv.InheritEnvironment {
		env.list = slices.DeleteFunc(os.Environ(), func(v string) bool { // each stands there once
			name, _, _ := strings.Cut(v, "=")
			return ours(name)
		})
	}
	if env.find("PATH=") < 0 {
		env.list = append(env.list, defaultPath)
	}
	for _, v := range account {
		env.add(v)
	}
	for _, v := range sv.Environment {
		env.add(v)
	}
	for _, v := range fromFiles {
		env.add(v)
	}
	return env
}

// ours are the variables of sockd's own that are not passed on: they speak of its sockets
// and its manager. Others that begin so may be the machine's for some service, but who
// could tell; a unit sets them itself.
func ours(name string) bool {
	return strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "WATCHDOG_") ||
		strings.HasPrefix(name, "SOCKD_") || name == "NOTIFY_SOCKET" || name == "FDSTORE"
}

// An environ keeps each variable once, in the order of first mention.
type environ struct{ list []string }

func (e *environ) set(name, value string) { e.add(name + "=" + value) }

func (e *environ) add(v string) {
	name := v[:strings.IndexByte(v, '=')+1]
	if i := e.find(name); i >= 0 {
		e.list[i] = v
		return
	}
	e.list = append(e.list, v)
}

// find says where the variable is whose name, with the sign behind it, that is; -1:
// nowhere. There are some dozens: looking at each takes less than keeping an index.
func (e *environ) find(name string) int {
	return slices.IndexFunc(e.list, func(v string) bool { return strings.HasPrefix(v, name) })
}

// maxEnvironmentFile bounds what is read of an environment file.
const maxEnvironmentFile = 1 << 20

// readEnvironmentFile reads lines of NAME=value. Empty lines and lines beginning
// with # or ; are skipped; a value may stand in single or double quotes. It never
// waits: only a regular file is read.
func readEnvironmentFile(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxEnvironmentFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxEnvironmentFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return parseEnvironmentFile(path, text)
}

func parseEnvironmentFile(path string, text []byte) ([]string, error) {
	var vars []string
	for n, line := range bytes.Split(text, []byte{'\n'}) {
		l := strings.TrimSpace(string(line))
		if l == "" || l[0] == '#' || l[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(l, "export "), "=")
		name = strings.TrimSpace(name)
		if !ok || !validVariable(name) {
			return nil, fmt.Errorf("%s:%d: not NAME=value", path, n+1)
		}
		if units.Reserved(name) {
			return nil, fmt.Errorf("%s:%d: %s is set by sockd", path, n+1, name)
		}
		value = strings.TrimSpace(value)
		if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		if strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("%s:%d: %s holds a NUL byte", path, n+1, name)
		}
		vars = append(vars, name+"="+value)
	}
	return vars, nil
}

// validVariable: letters, digits and _, not beginning with a digit.
func validVariable(name string) bool {
	for i, c := range name {
		digit := c >= '0' && c <= '9'
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digit && i > 0) {
			return false
		}
	}
	return name != ""
}
