package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sockd/sockd/supervisor"
)

// A watch looks at sockd from outside, all the time.
type watch struct {
	keeper int
	held   map[string]bool // inodes of the sockets that must stay
	client http.Client
	quit   chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	bad     []string
	looks   int
	zombie  time.Duration   // the longest that one was seen; how long it is, is the machine's affair
	asked   []time.Duration // how long control requests took, also those tried again
	again   int             // requests that a dying supervisor had accepted
	stopped []span          // when a supervisor was stopped: control requests wait for the watchdog
	waited  []time.Duration // for those that fell in such a time
}

func newWatch(keeper int, dir string) *watch {
	w := &watch{keeper: keeper, held: map[string]bool{}, quit: make(chan struct{})}
	w.client.Timeout = patience
	w.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "run", supervisor.ControlSocket))
	}}
	return w
}

func (w *watch) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.bad) < 50 {
		w.bad = append(w.bad, fmt.Sprintf(format, args...))
	}
}

// every calls look at that pace until the watch ends.
func (w *watch) every(pace time.Duration, look func()) {
	w.done.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				look()
			case <-w.quit:
				return
			}
		}
	})
}

// start begins to look.
func (w *watch) start() {
	w.every(10*time.Millisecond, w.lookAtSockets)
	zombies := map[int]time.Time{}
	w.every(100*time.Millisecond, func() { w.lookForZombies(zombies) })
	w.every(5*time.Millisecond, w.lookAtControl)
	w.every(10*time.Millisecond, w.lookAtInodes)
}

func (w *watch) stop() {
	close(w.quit)
	w.done.Wait()
}

func (w *watch) lookAtSockets() {
	has, _ := socketsIn(w.keeper)
	w.mu.Lock()
	w.looks++
	w.mu.Unlock()
	for inode := range w.held {
		if !has[inode] {
			w.violation("the keeper has socket %s no more", inode)
		}
	}
}

func (w *watch) lookForZombies(since map[int]time.Time) {
	now := time.Now()
	there := map[int]bool{}
	for _, p := range childrenOf(w.keeper) {
		if !p.zombie {
			continue
		}
		there[p.pid] = true
		if since[p.pid].IsZero() {
			since[p.pid] = now
		}
		w.zombie = max(w.zombie, now.Sub(since[p.pid]))
	}
	for pid := range since {
		if !there[pid] {
			delete(since, pid)
		}
	}
}

// get asks until somebody answers. Nobody may refuse.
func (w *watch) get(path string, into any) error {
	for {
		res, err := w.client.Get("http://sockd" + path)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode == http.StatusOK {
				if into != nil {
					err = json.Unmarshal(body, into)
				}
				return err
			}
		}
		if op := (*net.OpError)(nil); asOp(err, &op) && op.Op == "dial" {
			return err
		}
		w.mu.Lock()
		w.again++
		w.mu.Unlock()
		select {
		case <-w.quit:
			return nil
		default:
		}
	}
}

func (w *watch) lookAtControl() {
	began := time.Now()
	if err := w.get("/healthz", nil); err != nil {
		w.violation("control: %v", err)
	}
	ended := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	took := ended.Sub(began)
	if slices.ContainsFunc(w.stopped, span{began, ended}.overlaps) {
		w.waited = append(w.waited, took)
		return
	}
	w.asked = append(w.asked, took)
}

// lookAtInodes wants the same sockets from the supervisor, whoever it is.
func (w *watch) lookAtInodes() {
	var all []supervisor.SocketStatus
	if err := w.get("/v1/sockets", &all); err != nil {
		w.violation("sockets: %v", err)
		return
	}
	has := map[string]bool{}
	for _, k := range all {
		has[strconv.FormatUint(k.Inode, 10)] = true
	}
	for inode := range w.held {
		if all != nil && !has[inode] {
			w.violation("the supervisor knows nothing of socket %s", inode)
		}
	}
}

// spread is the middle, the 99th of a hundred, and the longest.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(all))
	at := func(p int) time.Duration { return s[min(len(s)-1, len(s)*p/100)].Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v of %d", at(50), at(99), s[len(s)-1].Round(100*time.Microsecond), len(s))
}
