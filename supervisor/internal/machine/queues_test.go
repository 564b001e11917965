package machine

import "time"

// The queues of a world: connections that nobody has accepted yet, by socket. An
// instance's own sockets exist as long as the instance; their queues outlive its runs.
type queues struct {
	waiting [maxInstances + 1]int // connections; 0 is the shared sockets
	places  int                   // how many instances have sockets
	weights []int                 // as the kernel has them; nil: it chooses by itself
	zero    [maxInstances + 1]steeredAway
	decided *[maxInstances + 1]steeredAway // what is to become of zero; nil: nothing else
	again   bool                           // a supervisor that has just begun has not steered yet
	asked   [maxInstances + 1]bool         // somebody looks whether the queue is empty
}

type steeredAway struct {
	since   Instant // at that time
	flushed bool    // since, or nothing was in it
}

// resize opens the sockets of new instances and closes those of instances that vanish.
func (w *world) resize() {
	q := &w.q
	n := min(len(w.u.Instances), maxInstances)
	for k := n + 1; k <= q.places; k++ {
		if w.u.Spec.Steered && w.u.Spec.CanFlush && q.waiting[k] > 0 {
			w.fail("instance %d vanishes, and %d connections with it", k, q.waiting[k])
		}
		q.waiting[k], q.asked[k] = 0, false
	}
	q.places = n
	if !w.u.Spec.Steered {
		q.weights = nil
	}
}

// arrive brings a connection, never to a queue that has been steered away from.
func (w *world) arrive() {
	k := w.rng.IntN(maxInstances + 1)
	if k <= w.q.places && (k == 0 || w.q.weights == nil || w.q.open(k)) {
		w.q.waiting[k]++
		w.arrived++
	}
}

// open reports whether the kernel gives connections to instance k.
func (q *queues) open(k int) bool { return k <= len(q.weights) && q.weights[k-1] > 0 }

func (w *world) steered(weights []int) {
	q := &w.q
	for k := range weights {
		zero := &q.zero[k+1]
		switch {
		case weights[k] > 0:
			zero.since, zero.flushed = 0, true
		case q.again || q.weights == nil || q.open(k+1):
			zero.since, zero.flushed = w.now, false
		case k >= len(q.weights): // new, and never had any
			zero.since, zero.flushed = w.now, true
		}
	}
	q.weights, q.again = weights, false
}

// flushed moves a queue to another. Where there is no other the kernel resets it.
func (w *world) flushed(n int) {
	q := &w.q
	first := w.rng.IntN(maxInstances)
	for i := range maxInstances {
		if k := 1 + (first+i)%maxInstances; k != n && k <= q.places && q.open(k) {
			q.waiting[k] += q.waiting[n]
			q.waiting[n] = 0
			break
		}
	}
	if q.waiting[n] > 0 {
		w.fail("%d connections of instance %d are reset", q.waiting[n], n)
	}
	q.zero[n].flushed = true
	w.flushes++
}

// look tells of a queue that is empty, if somebody wants to know.
func (w *world) look() bool {
	for k := 1; k <= maxInstances; k++ {
		if w.q.asked[k] && w.q.waiting[k] == 0 {
			w.q.asked[k] = false
			w.hear(Emptied{Instance: k})
			return true
		}
	}
	return false
}

// accept lets a process take what waits for it, and reports whether that was anything.
func (w *world) accept(p *proc) bool {
	some := w.q.waiting[0]+w.q.waiting[p.n] > 0
	w.q.waiting[0], w.q.waiting[p.n] = 0, 0
	return some
}

// call brings a connection to everybody who is listened for, and reports whether
// there is such a one.
func (w *world) call() (called bool) {
	for k := range w.armed {
		if w.armed[k] && w.q.waiting[k] == 0 {
			w.q.waiting[k]++
			called = true
		}
	}
	return called
}

// unflushed is when the queue of instance n, where nobody is, must be moved at the
// latest; ok is false if it need not, or must not.
func (o *oracle) unflushed(w *world, n int) (due Instant, ok bool) {
	all, _ := o.count(w, n)
	if !o.spec.Steered || !o.spec.CanFlush || all > 0 || !o.siblingTakes(w, n) || n > len(w.u.Weights) || w.u.Weights[n-1] > 0 {
		return 0, false
	}
	if w.q.weights == nil || w.q.open(n) { // about to be steered away
		return w.now.Add(time.Millisecond), true
	}
	if n > len(w.q.weights) {
		return 0, false
	}
	return w.q.zero[n].since.Add(time.Millisecond), !w.q.zero[n].flushed
}
