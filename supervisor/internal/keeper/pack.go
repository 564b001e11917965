package keeper

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A packer writes a message's body: numbers as varints, text and lists with their
// length in front.
type packer struct{ b []byte }

func (p *packer) number(n int)    { p.b = binary.AppendVarint(p.b, int64(n)) }
func (p *packer) count(n uint64)  { p.b = binary.AppendUvarint(p.b, n) }
func (p *packer) text(s string)   { p.count(uint64(len(s))); p.b = append(p.b, s...) }
func (p *packer) bytes(s []byte)  { p.count(uint64(len(s))); p.b = append(p.b, s...) }
func (p *packer) flag(set bool)   { p.number(map[bool]int{true: 1}[set]) }
func (p *packer) list(l []string) { p.count(uint64(len(l))); each(l, p.text) }
func (p *packer) id(id ID)        { p.text(id.Unit); p.number(id.Instance); p.count(id.Gen) }

func each[T any](l []T, do func(T)) {
	for _, v := range l {
		do(v)
	}
}

// An unpacker reads one. After the first thing that does not fit, everything is
// empty and bad is set: what is read is judged once, at the end.
type unpacker struct {
	b    []byte
	bad  bool
	seen words // nil: none is kept
}

// words are names that come again and again: each is kept once, and costs no memory
// the next time.
type words map[string]string

// mostWords bounds them; they are forgotten then.
const mostWords = 4096

func (w words) of(b []byte) string {
	if s, ok := w[string(b)]; ok {
		return s
	}
	s := string(b)
	if w != nil {
		if len(w) >= mostWords {
			clear(w)
		}
		w[s] = s
	}
	return s
}

func (u *unpacker) number() int {
	v, n := binary.Varint(u.b)
	return int(take(u, v, n))
}

func (u *unpacker) count() uint64 {
	v, n := binary.Uvarint(u.b)
	return take(u, v, n)
}

func take[T int64 | uint64](u *unpacker, v T, n int) T {
	if n <= 0 {
		u.bad, u.b = true, nil
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) bytes() []byte {
	n := u.count()
	if n > uint64(len(u.b)) {
		u.bad, u.b = true, nil
		return nil
	}
	b := u.b[:n:n]
	u.b = u.b[n:]
	return b
}

func (u *unpacker) text() string { return string(u.bytes()) }
func (u *unpacker) name() string { return u.seen.of(u.bytes()) }
func (u *unpacker) flag() bool   { return u.number() == 1 }
func (u *unpacker) id() ID       { return ID{u.name(), u.number(), u.count()} }

func (u *unpacker) list() []string {
	n := u.count()
	if n > uint64(len(u.b)) { // each takes a byte at least
		u.bad, u.b = true, nil
		return nil
	}
	l := make([]string, 0, min(n, 1024))
	for range n {
		l = append(l, u.text())
	}
	return l
}

// end says whether everything has been read and made sense.
func (u *unpacker) end() error {
	if u.bad || len(u.b) > 0 {
		return errWire
	}
	return nil
}

func (p *packer) event(ev Event) {
	p.id(ev.ID)
	p.text(string(ev.Kind))
	p.number(ev.Pid)
	p.text(ev.Stage)
	p.text(ev.Err)
	p.number(ev.Code)
	p.number(ev.Signal)
	p.flag(ev.Core)
	p.number(ev.Killed)
}

func (u *unpacker) event() Event {
	return Event{ID: u.id(), Kind: Kind(u.name()), Pid: u.number(), Stage: u.text(), Err: u.text(),
		Code: u.number(), Signal: u.number(), Core: u.flag(), Killed: u.number()}
}

func (p *packer) process(pr Process) {
	p.list(pr.Argv)
	p.list(pr.Env)
	p.text(pr.Dir)
	p.list(pr.Sockets)
	p.list(pr.PidEnv)
	p.list(pr.PidfdEnv)
	p.number(pr.Umask)
	p.number(pr.CPU)
	p.flag(pr.Credential != nil)
	if c := pr.Credential; c != nil {
		p.count(uint64(c.UID))
		p.count(uint64(c.GID))
		p.count(uint64(len(c.Groups)))
		each(c.Groups, func(g uint32) { p.count(uint64(g)) })
	}
}

func (u *unpacker) process() Process {
	pr := Process{Argv: u.list(), Env: u.list(), Dir: u.text(), Sockets: u.list(), PidEnv: u.list(), PidfdEnv: u.list(), Umask: u.number(), CPU: u.number(), Output: -1}
	if u.flag() {
		c := &Credential{UID: u.word(), GID: u.word()}
		n := u.count()
		if n > uint64(len(u.b)) {
			u.bad, n = true, 0
		}
		for range n {
			c.Groups = append(c.Groups, u.word())
		}
		pr.Credential = c
	}
	return pr
}

func (u *unpacker) word() uint32 {
	n := u.count()
	if n > 1<<32-1 {
		u.bad = true
	}
	return uint32(n)
}

func (p *packer) child(c Child) {
	p.id(c.ID)
	p.number(c.Pid)
	p.flag(c.Running)
	p.number(int(c.Last))
	p.count(uint64(len(c.Pending)))
	each(c.Pending, p.event)
}

func (u *unpacker) child() Child {
	c := Child{ID: u.id(), Pid: u.number(), Running: u.flag(), Last: unix.Signal(u.number())}
	n := u.count()
	if n > uint64(len(u.b)) {
		u.bad, n = true, 0
	}
	for range n {
		c.Pending = append(c.Pending, u.event())
	}
	return c
}
