package steer

import (
	"errors"
	"fmt"
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
	return e.attachToGroup()
}

func (e *mapped) attachToGroup() error {
	err := e.s.attach(e.attach)
	if errors.Is(err, unix.EPERM) {
		if e.s.ferry(e.attach) == nil {
			return nil
		}
	}
	return err
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
// program goes on as it is.
func adoptEBPF(s *steering, o Options) (*mapped, error) {
	if _, sticky := o.Held["flows"]; sticky != (o.Sticky && !s.kind.stream) {
		return nil, errors.New("the option sticky has changed")
	}
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
	if err == nil {
		err = e.attachToGroup() // a service may have removed it meanwhile
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
