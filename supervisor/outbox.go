package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"golang.org/x/sys/unix"
)

// An outbox carries what services write to the output, so that a supervisor that dies
// at any instant loses no byte and brings none twice. Two pipes that the keeper holds
// do that: the kernel moves bytes from one pipe to another, or to a file, in one step.
//
//	log pipe ── moved ──▶ taken ── cut into lines ──▶ made ── moved ──▶ output
//
// Once the lines of what is in taken are in made, taken is emptied, and only
// then goes made out. So whoever finds something in taken forgets what is in made,
// and makes the lines again.
//
// A terminal, or a file opened for appending, takes no bytes from a pipe: there they
// are written, and a supervisor that dies right after that brings those of the last
// write again.
type outbox struct {
	out         io.Writer
	raw         int // the output's descriptor; -1: it is none that bytes can be moved to
	taken, made [2]int
	room        int // bytes that made can hold
	saveOwner   func([]byte) error
	saved       []byte       // the owner as it was saved
	text        bytes.Buffer // lines on their way to made

	progress *atomic.Int64 // grows whenever the output has taken something, or refused it

	lost   int                       // lines in a row that the output did not take
	failed func(lost int, err error) // told of the first such, and, without err, how many there were
}

// outState is the name of the saved owner of what is in taken.
const outState = "output/"

// An owner says whose bytes are in taken, and what came before them.
type owner struct {
	Unit     string
	Instance int
	Gen      uint64
	Rest     []byte `json:",omitempty"` // the beginning of their first line
	Last     bool   `json:",omitempty"` // their last line has no end
}

// The names that the keeper holds the pipes under: the end to read, the end to write.
var (
	takenHeld = [2]string{"output/taken", "output/taken+w"}
	madeHeld  = [2]string{"output/made", "output/made+w"}
)

// newOutbox takes up the pipes that the keeper holds, or makes them. sendOff has the
// keeper hear at once of what it was asked.
func newOutbox(k keeper.Keeper, inv keeper.Inventory, out io.Writer, sendOff func()) (*outbox, error) {
	b := &outbox{out: out, raw: -1, saved: inv.States[outState]}
	b.saveOwner = func(state []byte) error {
		err := k.Save(outState, state)
		sendOff()
		return err
	}
	if f, ok := out.(*os.File); ok {
		if raw, err := f.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { b.raw = int(fd) }) // not f.Fd: that would change its mode
		}
	}
	for pair, names := range map[*[2]int][2]string{&b.taken: takenHeld, &b.made: madeHeld} {
		r, ok := inv.Descriptors[names[0]]
		w, both := inv.Descriptors[names[1]]
		if ok && both {
			*pair = [2]int{r, w}
			continue
		}
		if err := unix.Pipe2(pair[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		for i, name := range names {
			if err := k.Hold(name, pair[i]); err != nil {
				return nil, err
			}
		}
	}
	unix.FcntlInt(uintptr(b.made[1]), unix.F_SETPIPE_SZ, 1<<20) // a wish: the user's limit may be lower
	var err error
	b.room, err = unix.FcntlInt(uintptr(b.made[1]), unix.F_GETPIPE_SZ, 0)
	return b, err
}

// releaseOutbox closes the pipes for good.
func releaseOutbox(k keeper.Keeper) {
	for _, name := range append(takenHeld[:], madeHeld[:]...) {
		k.Release(name)
	}
}

// own notes whose bytes come into taken next.
func (b *outbox) own(src source, rest []byte, last bool) error {
	state, err := json.Marshal(owner{src.unit, src.instance, src.gen, rest, last})
	if err != nil || bytes.Equal(state, b.saved) {
		return err
	}
	b.saved = state
	return b.saveOwner(state)
}

// take moves up to n bytes, which are there, from a log pipe to taken, and says how many.
func (b *outbox) take(fd, n int) (took int, err error) {
	for took < n {
		m, err := unix.Splice(fd, nil, b.taken[1], nil, n-took, unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			if took > 0 {
				return took, nil
			}
			return 0, fmt.Errorf("splice: %w", err)
		}
		took += int(m)
	}
	return took, nil
}

// put writes bytes that are not in a pipe any more to taken.
func (b *outbox) put(rest []byte) { writeAll(b.taken[1], rest) }

// stage brings the lines to made. Lines that it cannot hold are written at once.
func (b *outbox) stage() {
	if text := b.text.Bytes(); len(text) <= b.room {
		writeAll(b.made[1], text)
	} else {
		b.write(text)
	}
	if b.text.Reset(); b.text.Cap() > 1<<20 {
		b.text = bytes.Buffer{}
	}
}

// write writes lines to the output. Those that it refuses are lost: there is no other
// place for them, and the services are not to wait for ever.
func (b *outbox) write(lines []byte) {
	_, err := b.out.Write(lines)
	b.told(lines, err)
}

// told says when the output begins to refuse lines, and when it ends.
func (b *outbox) told(lines []byte, err error) {
	b.progress.Add(1)
	switch {
	case err != nil:
		if b.lost == 0 {
			b.failed(0, err)
		}
		b.lost += max(1, bytes.Count(lines, []byte{'\n'}))
	case b.lost > 0:
		b.failed(b.lost, nil)
		b.lost = 0
	}
}

func writeAll(fd int, data []byte) {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		data = data[max(n, 0):]
	}
}

// flush brings what is made to the output. It waits while nobody takes it.
func (l *logs) flush() {
	b := l.box
	for {
		n := inPipe(b.made[0])
		if n == 0 || l.closed() {
			return
		}
		if b.raw < 0 {
			n, err := l.look(b.made[0])
			if err != nil {
				return
			}
			b.write(l.buf[:n])
			l.takeOut(b.made[0], n)
			continue
		}
		_, err := unix.Splice(b.made[0], nil, b.raw, nil, n, 0)
		switch {
		case err == nil:
			b.told(nil, nil)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // somebody has made it non-blocking
			unix.Poll([]unix.PollFd{{Fd: int32(b.raw), Events: unix.POLLOUT}}, -1)
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM):
			b.raw = -1
		default:
			n, _ := unix.Read(b.made[0], l.buf)
			b.told(l.buf[:max(n, 0)], err)
		}
	}
}

// inPipe is how many bytes are in a pipe.
func inPipe(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return 0
	}
	return n
}

// ship brings n bytes, which are in the run's pipe and in l.buf, to the output, or as many
// of them as taken has room for. It says how many it is done with.
func (l *logs) ship(p *pipe, n int) int {
	b, had := l.box, len(p.rest) > 0
	if !l.blind {
		if err := b.own(p.src, p.rest, false); err != nil {
			return n
		}
	}
	if !l.blind {
		took, err := b.take(p.fd, n)
		if err != nil { // no splice(2): a container's filter
			l.takeOut(p.fd, n)
			l.blind = true
		} else {
			n = took
		}
	}
	if l.blind {
		l.shipBlind(p, n)
		return n
	}
	passing("output: taken")
	p.feed(l.lines, l.buf[:n])
	b.stage()
	passing("output: made")
	if had || len(p.rest) > 0 {
		l.keep(p.src, p.rest)
	}
	passing("output: rest kept")
	l.takeOut(b.taken[0], n)
	passing("output: taken out")
	l.flush()
	passing("output: written")
	return n
}

// shipBlind brings bytes to the output that are in l.buf and nowhere else: where there is
// no tee(2) or no splice(2), they are lost with a supervisor that dies at this moment.
func (l *logs) shipBlind(p *pipe, n int) {
	had := len(p.rest) > 0
	p.feed(l.lines, l.buf[:n])
	l.box.write(l.box.text.Bytes())
	l.box.text.Reset()
	if had || len(p.rest) > 0 {
		l.keep(p.src, p.rest)
	}
}

// shipRest brings a last line that has no end to the output.
func (l *logs) shipRest(p *pipe) {
	b, n := l.box, len(p.rest)
	if l.blind {
		p.splitter.finish(l.lines)
		b.write(b.text.Bytes())
		b.text.Reset()
		l.keep(p.src, nil)
		return
	}
	// Its last byte in the pipe says that it is on its way. All of it might not fit: a user
	// with many pipes gets small ones (pipe(7), pipe-user-pages-soft).
	if err := b.own(p.src, p.rest[:n-1], true); err != nil {
		return
	}
	b.put(p.rest[n-1:])
	passing("output: rest put")
	p.splitter.finish(l.lines)
	b.stage()
	passing("output: last line made")
	l.keep(p.src, nil)
	passing("output: rest forgotten")
	l.takeOut(b.taken[0], 1)
	l.flush()
}

// recover goes on where a supervisor before us has left off.
func (l *logs) recover() {
	b := l.box
	if n := inPipe(b.taken[0]); n > 0 {
		for m := inPipe(b.made[0]); m > 0; m = inPipe(b.made[0]) {
			l.takeOut(b.made[0], min(m, len(l.buf)))
		}
		var o owner
		if err := json.Unmarshal(b.saved, &o); err == nil {
			s := splitter{src: source{o.Unit, o.Instance, o.Gen}, rest: o.Rest}
			for {
				got, err := l.look(b.taken[0])
				if err != nil || got == 0 {
					break
				}
				s.feed(l.lines, l.buf[:got])
				if got >= n {
					break
				}
				l.takeOut(b.taken[0], got) // our pipe to look through is smaller: see shipRest
				n -= got
			}
			if o.Last {
				s.finish(l.lines)
			}
			b.stage()
			l.keep(s.src, s.rest)
			l.goOnAfter(s.src, s.rest)
		}
		l.takeOut(b.taken[0], n)
	}
	l.flush()
}

// goOnAfter corrects what a run's log goes on after.
func (l *logs) goOnAfter(src source, rest []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after = map[source][]byte{src: rest}
	for _, p := range l.pipes {
		if p.src == src {
			p.rest = rest
		}
	}
}
