package steer

import (
	"errors"
	"fmt"
	"slices"
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
	flows   *ebpf.Map // LRU hash: flow → prefix of the run that has it; nil unless sticky, like the next two
	issuers *ebpf.Map // one value: place → prefix of the run there, with which the ids begin that it issues
	heirs   *ebpf.Map // one value: place → what it differs by from the place that flows go to whose run has left
	ids     bool      // flows of QUIC are told apart by connection ids
}

// named lists the maps that there are, under the names by which they are held.
func (m *maps) named() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{"sockets": m.sockets, "table": m.table, "counts": m.counts}
	if m.flows != nil {
		all["flows"] = m.flows
	}
	if m.issuers != nil {
		all["issuers"] = m.issuers
	}
	if m.heirs != nil {
		all["heirs"] = m.heirs
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

// newMaps makes the maps, or takes them from those that an earlier supervisor has left
// in the keeper's hands. adopted says whether the table was. flows is how many are
// remembered, 0: none.
func newMaps(flows int, held map[string]int) (m *maps, adopted bool, err error) {
	m = new(maps)
	specs := []struct {
		name string
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{"sockets", &m.sockets, ebpf.MapSpec{Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: MaxPlaces}},
		{"table", &m.table, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 2 * Slots, MaxEntries: 1}},
		{"counts", &m.counts, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8 * countWords, MaxEntries: 1}},
		{"flows", &m.flows, ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 4, ValueSize: 8, MaxEntries: uint32(flows)}},
		{"issuers", &m.issuers, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4 * MaxPlaces, MaxEntries: 1}},
		{"heirs", &m.heirs, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4 * MaxPlaces, MaxEntries: 1}},
	}
	ofFlows := []string{"flows", "issuers", "heirs"}
	for _, s := range specs {
		if flows == 0 && slices.Contains(ofFlows, s.name) {
			continue
		}
		s.spec.Name = "sockd_" + s.name
		if fd, ok := held[s.name]; ok {
			if *s.to = adoptMap(fd, &s.spec); *s.to != nil {
				adopted = adopted || s.name == "table"
				continue
			}
		}
		if *s.to, err = ebpf.NewMap(&s.spec); err != nil {
			m.close()
			return nil, false, fmt.Errorf("make map %s: %w", s.name, err)
		}
	}
	return m, adopted, nil
}

// adoptMap duplicates a descriptor; nil if it is not what it should be.
func adoptMap(held int, spec *ebpf.MapSpec) *ebpf.Map {
	fd, err := unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	m, err := ebpf.NewMapFromFD(fd) // closes fd if it fails
	if err != nil {
		return nil
	}
	if spec.Compatible(m) != nil {
		m.Close()
		return nil
	}
	return m
}

func openEBPF(s *steering, o Options) (*mapped, error) {
	flows := 0
	if (o.Sticky || o.ConnectionIDs) && !s.kind.stream {
		if flows = o.Flows; flows <= 0 {
			flows = defaultFlows
		}
	}
	m, adopted, err := newMaps(flows, o.Held)
	if err != nil {
		return nil, err
	}
	m.ids = flows > 0 && o.ConnectionIDs
	e := &mapped{s: s, maps: m}
	if err := e.load(o, adopted); err != nil {
		if adopted {
			e.free() // the old program goes on with the maps
			return nil, err
		}
		return nil, errors.Join(err, e.close(-1))
	}
	return e, nil
}

// load fills the maps before the program begins to use them. With maps that were
// adopted it only puts a new program, which may be of another version, in the place of
// the old one: no connection sees a difference.
func (e *mapped) load(o Options, adopted bool) error {
	timeout := o.FlowTimeout
	if timeout <= 0 {
		timeout = defaultFlowTimeout
	}
	units := min((timeout+1<<30-1)>>30, 1<<30)
	var err error
	if e.prog, err = ebpf.NewProgram(program(e.maps, e.s.kind.stream, uint32(units))); err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	for place, fd := range e.s.fds {
		if fd < 0 {
			continue
		}
		if err := e.enterFirst(place, fd, o.Until); err != nil {
			return err
		}
	}
	if !adopted {
		if err := e.spread(e.s.table, nil); err != nil {
			return err
		}
		return e.attachToGroup()
	}
	t := new(table)
	if err := e.maps.table.Lookup(uint32(0), t); err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	e.s.adopt(t)
	if err := e.attachToGroup(); !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil // no way in: the old program has the same maps
}

func (e *mapped) attachToGroup() error {
	err := e.s.attach(e.attach)
	if errors.Is(err, unix.EPERM) && e.s.ferry(e.attach) == nil {
		return nil
	}
	return err
}

func (e *mapped) attach(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, e.prog.FD())
}

// enterFirst also takes a socket away from the array of a supervisor that has died
// with its descriptors: that lives as long as the old program is attached, and its
// end comes some time after it is detached, without any news.
func (e *mapped) enterFirst(place, fd int, until time.Time) error {
	err := e.put(place, fd)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := detach(fd); err != nil {
		return err
	}
	for errors.Is(err, unix.EBUSY) && time.Now().Before(until) {
		<-time.After(time.Millisecond)
		err = e.put(place, fd)
	}
	return err
}

// Busy says whether a socket is in the array of another group, so that level EBPF cannot
// be had: of one that is open, or of one that was given up some moments ago.
func Busy(fds []int) bool {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sockd_try", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return false
	}
	defer m.Close()
	for _, fd := range fds {
		if fd < 0 {
			continue
		}
		if err := m.Put(uint32(0), uint64(fd)); errors.Is(err, unix.EBUSY) {
			return true
		}
		m.Delete(uint32(0)) // by hand: the map itself ends some time later
	}
	return false
}
