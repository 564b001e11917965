package steer

import "testing"

// Just before a socket leaves, the last member gets nothing: it is about to move into
// the hole, and no connection may go by the number it has before or after.
func TestLastMemberIsSparedWhileItMoves(t *testing.T) {
	w := newKernelWorld(t, "tcp4", 4, ClassicBPF, true, Options{})
	must(t, w.g.Set([]int{0, 1, 1, 1}))
	g := w.g.(*steering)
	fd := w.fds[0]
	must(t, g.engine.leaving(0, fd))
	if got := crowd(w, 300); got[0] != 0 || got[3] != 0 {
		t.Errorf("served %v, want none by places 0 and 3", got)
	}
	must(t, g.wire.shutdown(fd, true))
	if got := crowd(w, 300); got[0] != 0 || got[3] != 0 {
		t.Errorf("served %v after the move, want none by places 0 and 3", got)
	}
	must(t, g.engine.left(0, fd))
	fits(t, crowd(w, 600), 0, 1, 1, 1)
	must(t, g.in(0, fd, 4096))
	fits(t, crowd(w, 600), 0, 1, 1, 1)
	each(t, w)
}

// A udp socket that had left when the supervisor died, before that was written down.
func TestCrashWithinALeaveOfUDP(t *testing.T) {
	f := newFlows(t, "udp4", 4, 100, ClassicBPF, Options{})
	must(t, f.g.Set([]int{1, 0, 1, 1}))
	at := f.send(0)
	must(t, f.g.(*steering).wire.shutdown(f.fds[1], false))
	held := crash(t, f.g)
	var err error
	f.g, err = Open(f.fds, ClassicBPF, Options{Held: held})
	drop(t, held)
	must(t, err)
	if n := changed(at, f.send(0)); n != 0 {
		t.Errorf("%d flows moved", n)
	}
	for _, only := range []int{0, 2, 3} {
		weights := make([]int, 4)
		weights[only] = 1
		must(t, f.g.Set(weights))
		fits(t, arrivals(f.send(0), 4), weights...)
	}
}
