package keeper

import "sync"

// Upgrade asks the keeper to go on with file, an executable that has been checked.
// It does so when this supervisor has ended, and tells a later one under id how it
// went. File stays the caller's.
func (r *Remote) Upgrade(id string, file int) error {
	return r.tell(opUpgrade, []int{file}, func(p *packer) { p.text(id) })
}

// Serving says that this supervisor has begun and answers: it was worth trying.
func (r *Remote) Serving() error { return r.tell(opServing, nil, nil) }

// Outcome is what the keeper has said last of an upgrade, and a channel that is
// closed when it says more.
func (r *Remote) Outcome() (Outcome, <-chan struct{}) { return r.upgrade.get() }

// outcomes is the last Outcome, for any number who wait for another.
type outcomes struct {
	mu      sync.Mutex
	last    Outcome
	changed chan struct{}
}

func (o *outcomes) get() (Outcome, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.last, o.changed
}

func (o *outcomes) set(now Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}
