package keeper

// A batch is several messages in one: each as its op, the number of its descriptors
// and its body. It is taken in order, up to the first that makes no sense.
type batch struct{ message }

// batchBody is how long a batch may be, in bytes: it fits into one frame.
const batchBody = maxFrame - frameHeader

// batchHeader is the most that a request takes in a batch beside its body.
const batchHeader = 8

// batchDescriptors is how many descriptors it may have: the reserve has room for them, and
// each is then held or refused by itself.
const batchDescriptors = reserve / 2

// waits says whether a request may wait for others.
func (o op) waits() bool {
	switch o {
	case opSave, opHold, opRelease, opSignal, opAcknowledge, opWrite:
		return true
	}
	return false
}

func (b *batch) empty() bool { return len(b.body) == 0 }

func (b *batch) fits(m message) bool {
	return len(b.body)+batchHeader+len(m.body) <= batchBody && len(b.fds)+len(m.fds) <= batchDescriptors
}

func (b *batch) add(m message) {
	b.op = opBatch
	p := packer{append(b.body, byte(m.op))}
	p.count(uint64(len(m.fds)))
	p.bytes(m.body)
	b.body, b.fds = p.b, append(b.fds, m.fds...)
}

func (b *batch) clear() { b.body, b.fds = b.body[:0], b.fds[:0] }

func (r *Remote) flush() error {
	if r.batch.empty() {
		return nil
	}
	err := r.wire.write(r.batch.message)
	r.batch.clear()
	return err
}

// Cork has requests wait until the next Spawn, until one that is answered, or until
// Flush or Uncork: the keeper then hears of them in one message, and in the same order.
// Until then they are lost with us.
func (r *Remote) Cork() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.corked = true
}

// Flush sends what waits.
func (r *Remote) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flush()
}

// Uncork sends what waits, and ends that.
func (r *Remote) Uncork() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.corked = false
	return r.flush()
}

// each takes the messages of one. Descriptors that none of them has taken are closed.
func (m message) each(take func(message) error) error {
	u := unpacker{b: m.body}
	for len(u.b) > 0 {
		o := op(u.b[0])
		u.b = u.b[1:]
		n, body := u.count(), u.bytes()
		if u.bad || n > uint64(len(m.fds)) || o == opBatch {
			closeAll(m.fds)
			return errWire
		}
		one := message{op: o, body: body, fds: m.fds[:n:n]}
		m.fds = m.fds[n:]
		if err := take(one); err != nil {
			closeAll(m.fds)
			return err
		}
	}
	if len(m.fds) > 0 {
		closeAll(m.fds)
		return errWire
	}
	return nil
}
