package keeper

import (
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// Reserve is how many descriptors the keeper keeps free.
const Reserve = reserve

// CgroupFolder is where the keeper makes the cgroups of its runs.
func CgroupFolder(l *Local) string { return l.cgroup.Saved().Dir }

// talking begins the keeper's side of a talk, over w, and returns the other end too.
func talking(t testing.TB, l *Local) (s *session, w *wire, end int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err = newWire(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	return talk(l, w, slog.New(slog.DiscardHandler), nil), w, pair[1]
}

// Served is a Remote that speaks with l over a socketpair, as a supervisor does
// with the keeper's process.
func Served(t testing.TB, l *Local) *Remote {
	t.Helper()
	s, w, end := talking(t, l)
	go func() {
		for {
			select {
			case ev := <-l.Events():
				if s.news(ev); <-s.sent != nil {
					return
				}
			case <-s.acked:
			case <-s.ended:
				w.close()
				return
			}
		}
	}()
	r, err := Dial(end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); <-s.ended })
	return r
}

// A Talk is both ends of one with l, whose requests are taken one by one.
type Talk struct {
	*FuzzSession
	mine *wire
}

// NewTalk begins one.
func NewTalk(l *Local) (*Talk, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s, err := NewFuzzSession(l, pair[0])
	if err != nil {
		return nil, err
	}
	mine, err := newWire(pair[1])
	return &Talk{s, mine}, err
}

// Hold asks for a descriptor to be held under each name, all in one message.
func (t *Talk) Hold(fd int, names ...string) error {
	var b batch
	for _, name := range names {
		p := packer{}
		p.text(name)
		b.add(message{op: opHold, body: p.b, fds: []int{fd}})
	}
	return errors.Join(t.mine.write(b.message), t.Take())
}

// Settle returns the answer.
func (t *Talk) Settle() (string, error) {
	if err := errors.Join(t.mine.write(message{op: opSettle}), t.Take()); err != nil {
		return "", err
	}
	m, err := t.mine.read()
	u := unpacker{b: m.body}
	return u.text(), err
}

// Spawn asks for a run with output.
func (t *Talk) Spawn(id ID, pr Process, output int) error {
	p := packer{}
	p.id(id)
	p.process(pr)
	return errors.Join(t.mine.write(message{op: opSpawn, body: p.b, fds: []int{output}}), t.Take())
}

// SendDescriptor sends one over the wire that has fd.
func SendDescriptor(fd, what int) error {
	w, err := newWire(fd)
	if err != nil {
		return err
	}
	return w.write(message{op: opHold, fds: []int{what}})
}

// A FuzzSession takes what a supervisor may say, in one process.
type FuzzSession struct{ s *session }

// NewFuzzSession has greeted already; what it says goes nowhere.
func NewFuzzSession(l *Local, fd int) (*FuzzSession, error) {
	w, err := newWire(fd)
	if err != nil {
		return nil, err
	}
	f := &FuzzSession{newSession(l, w, slog.New(slog.DiscardHandler), nil)}
	f.s.hello.Store(true)
	close(f.s.over) // nobody attends to it
	return f, nil
}

// Handle is one message of the supervisor's.
func (f *FuzzSession) Handle(o byte, body []byte, fds []int) error {
	err := f.s.handle(message{op: op(o), body: body, fds: fds})
	select {
	case t := <-f.s.handed:
		closeAll([]int{t.file})
	default:
	}
	return err
}

// Take has it take what the supervisor has sent.
func (f *FuzzSession) Take() error {
	m, err := f.s.wire.read()
	if err != nil {
		return err
	}
	return f.s.handle(m)
}

// SaveFrame is a request as it is sent.
func SaveFrame(unit string, state []byte) []byte {
	return frame(opSave, func(p *packer) { p.text(unit); p.flag(true); p.bytes(state) })
}

// AcknowledgeFrame is one too.
func AcknowledgeFrame(ev Event) []byte {
	return frame(opAcknowledge, func(p *packer) { p.event(ev); p.bytes(nil) })
}

func frame(o op, pack func(*packer)) []byte {
	p := packer{[]byte{byte(o), 0, 0, wireVersion}}
	pack(&p)
	return p.b
}

// Batched makes one request of a Hold of a descriptor for each name; of what is cut
// off its end; and of a Save.
func Batched(unit string, cut int, names ...string) (o byte, body []byte) {
	var b batch
	for _, name := range names {
		p := packer{}
		p.text(name)
		b.add(message{op: opHold, body: p.b, fds: []int{-1}})
	}
	b.add(message{op: opSave, body: SaveFrame(unit, []byte("state"))[frameHeader:]})
	return byte(opBatch), b.body[:len(b.body)-cut]
}

// InventoryMessages asks for the inventory as a supervisor does that takes batches, or
// does not, and counts the messages with pieces that have no descriptors, and of these
// those of one piece.
func InventoryMessages(t testing.TB, l *Local, batches bool) (single, all int) {
	t.Helper()
	s, w, end := talking(t, l)
	mine, err := newWire(end)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { mine.close(); <-s.ended; w.close() }()
	var body []byte
	if batches {
		p := packer{}
		p.flag(true)
		body = p.b
	}
	for _, m := range []message{{op: opHello}, {op: opInventory, body: body}} {
		if err := mine.write(m); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := mine.read()
		if err != nil {
			t.Fatal(err)
		}
		switch closeAll(m.fds); m.op {
		case opState, opChild:
			single++
			all++
		case opBatch:
			all++
		case opComplete:
			return single, all
		}
	}
}
