package steer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// maps are what the program reads and writes. The group's program holds them as long
// as it is attached; whoever has their descriptors can go on steering.
type maps struct {
	sockets *ebpf.Map // REUSEPORT_SOCKARRAY: place → socket. Lookups give the socket's cookie
	table   *ebpf.Map // one value: slot → place
	counts  *ebpf.Map // one value: countWords counters
	flows   *ebpf.Map // LRU hash: flow → place; nil unless sticky
}

// named lists the maps that there are, under the names by which they are held.
func (m *maps) named() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{"sockets": m.sockets, "table": m.table, "counts": m.counts}
	if m.flows != nil {
		all["flows"] = m.flows
	}
	return all
}

func (m *maps) close() {
	for _, one := range m.named() {
		one.Close() // of a nil map too
	}
}

const (
	defaultFlows       = 65536
	defaultFlowTimeout = 2 * time.Minute
)

func newMaps(flows int) (*maps, error) {
	m := new(maps)
	specs := []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.sockets, ebpf.MapSpec{Name: "sockd_sockets", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: MaxPlaces}},
		{&m.table, ebpf.MapSpec{Name: "sockd_table", Type: ebpf.Array, KeySize: 4, ValueSize: 2 * Slots, MaxEntries: 1}},
		{&m.counts, ebpf.MapSpec{Name: "sockd_counts", Type: ebpf.Array, KeySize: 4, ValueSize: 8 * countWords, MaxEntries: 1}},
		{&m.flows, ebpf.MapSpec{Name: "sockd_flows", Type: ebpf.LRUHash, KeySize: 4, ValueSize: 8, MaxEntries: uint32(flows)}},
	}
	for _, s := range specs {
		if s.to == &m.flows && flows == 0 {
			continue
		}
		var err error
		if *s.to, err = ebpf.NewMap(&s.spec); err != nil {
			m.close()
			return nil, fmt.Errorf("make map %s: %w", s.spec.Name, err)
		}
	}
	return m, nil
}

// A mapped is the engine of level EBPF. Places are keys of a map, so the kernel's
// order does not matter, and a change is one write.
type mapped struct {
	s    *steering // to reach members
	maps *maps
	prog *ebpf.Program
	// lost: the group has died and come back without its program, and every socket in
	// it is locked.
	lost bool
}

// errLost stands where steering would be a pretence.
var errLost = errors.New("the group has lost its program, and no socket of it may be given another")

func openEBPF(s *steering, o Options) (*mapped, error) {
	if e, err := adoptEBPF(s, o); err == nil {
		return e, nil
	}
	flows := 0
	if o.Sticky && !s.kind.stream {
		if flows = o.Flows; flows <= 0 {
			flows = defaultFlows
		}
	}
	m, err := newMaps(flows)
	if err != nil {
		return nil, err
	}
	e := &mapped{s: s, maps: m}
	if err := e.load(s, o.FlowTimeout); err != nil {
		e.free()
		return nil, err
	}
	return e, nil
}

// load fills the maps before the program begins to use them.
func (e *mapped) load(s *steering, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = defaultFlowTimeout
	}
	units := min((timeout+1<<30-1)>>30, 1<<30)
	var err error
	if e.prog, err = ebpf.NewProgram(program(e.maps, s.kind.stream, uint32(units))); err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	for place, fd := range s.fds {
		if fd < 0 {
			continue
		}
		if err := e.enterFirst(place, fd); err != nil {
			return err
		}
	}
	if err := e.spread(s.table, nil); err != nil {
		return err
	}
	return s.attach(e.attach)
}

func (e *mapped) attach(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, e.prog.FD())
}

// enterFirst also takes a socket away from the array of a supervisor that has died
// with its descriptors: that lives as long as the old program is attached, and its
// end comes some time after it is detached, without any news.
func (e *mapped) enterFirst(place, fd int) error {
	err := e.put(place, fd)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := detach(fd); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Second); ; {
		err := e.put(place, fd)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

// adoptEBPF takes over what an earlier supervisor has left in the keeper's hands. The
// program stays attached as it is.
func adoptEBPF(s *steering, o Options) (*mapped, error) {
	e := &mapped{s: s, maps: new(maps)}
	err := e.take(o.Held)
	t := new(table)
	if err == nil {
		err = e.maps.table.Lookup(uint32(0), t)
	}
	for place, fd := range s.fds {
		if fd >= 0 && err == nil {
			err = e.put(place, fd)
		}
	}
	if err != nil {
		e.free()
		return nil, err
	}
	s.adopt(t)
	return e, nil
}

// take duplicates the descriptors held.
func (e *mapped) take(held map[string]int) error {
	dup := func(name string) (int, error) {
		fd, ok := held[name]
		if !ok {
			return -1, fmt.Errorf("%s is not held", name)
		}
		return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	for name, to := range map[string]**ebpf.Map{
		"sockets": &e.maps.sockets, "table": &e.maps.table, "counts": &e.maps.counts, "flows": &e.maps.flows,
	} {
		if _, ok := held[name]; !ok && name == "flows" {
			continue
		}
		fd, err := dup(name)
		if err != nil {
			return err
		}
		if *to, err = ebpf.NewMapFromFD(fd); err != nil { // closes fd if it fails
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fd, err := dup("program")
	if err != nil {
		return err
	}
	e.prog, err = ebpf.NewProgramFromFD(fd)
	return err
}

func (e *mapped) level() Level { return EBPF }

func (e *mapped) spread(t *table, _ []int) error {
	if e.lost {
		return errLost
	}
	if err := e.maps.table.Put(uint32(0), t); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (e *mapped) migrates() bool         { return !e.lost || migrateReq() }
func (e *mapped) leaving(int, int) error { return nil }

// left: the kernel drops a listener by itself. It is asked, as it is not told to for
// a datagram socket, and another socket may have the place by now.
func (e *mapped) left(place, fd int) error {
	if same, err := e.is(place, fd); err != nil || !same {
		return err
	}
	err := e.maps.sockets.Delete(uint32(place))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// entered attaches the program again: a group whose last member had gone is another
// one now. A locked socket refuses, and does not need it as long as others are there.
func (e *mapped) entered(place, fd int) error {
	if err := e.put(place, fd); err != nil {
		return err
	}
	err := e.attach(fd)
	if err == unix.EPERM {
		e.lost = e.lost || !e.s.other(place, func(int) bool { return true })
		return nil
	}
	e.lost = false
	return os.NewSyscallError("set SO_ATTACH_REUSEPORT_EBPF", err)
}

// put enters a socket into the map.
func (e *mapped) put(place, fd int) error {
	// A socket that is in the map already is refused as busy, at its own place too.
	if same, err := e.is(place, fd); err != nil || same {
		return err
	}
	if err := e.maps.sockets.Put(uint32(place), uint64(fd)); err != nil {
		return fmt.Errorf("put socket at place %d: %w", place, err)
	}
	return nil
}

// is says whether the socket at place is fd.
func (e *mapped) is(place, fd int) (bool, error) {
	want, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return false, err
	}
	var cookie uint64
	err = e.maps.sockets.Lookup(uint32(place), &cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return cookie == want, err
}

func (e *mapped) counts(places int) (Counts, bool) {
	var words [countWords]uint64
	if err := e.maps.counts.Lookup(uint32(0), &words); err != nil {
		return Counts{}, false
	}
	return Counts{
		Steered: append([]uint64(nil), words[:places]...),
		Hashed:  words[countHashed],
		Moved:   words[countMoved],
	}, true
}

func (e *mapped) held() map[string]int {
	fds := make(map[string]int)
	for name, m := range e.maps.named() {
		fds[name] = m.FD()
	}
	fds["program"] = e.prog.FD()
	return fds
}

// close takes the sockets out by hand: the map itself ends some time later, and until
// then they could not join another.
func (e *mapped) close(fd int) error {
	var errs []error
	if fd >= 0 {
		errs = append(errs, detach(fd))
	}
	for place, fd := range e.s.fds {
		if fd >= 0 {
			errs = append(errs, e.left(place, fd))
		}
	}
	e.free()
	return errors.Join(errs...)
}

func (e *mapped) free() {
	e.maps.close()
	e.prog.Close() // of nil too
}
