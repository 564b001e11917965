package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// maxGateAnswer bounds what is read of an answer: its status and headers, in bytes.
const maxGateAnswer = 64 << 10

// tryHTTP is one request. What is ready is said by the status; the body is not read.
func tryHTTP(ctx context.Context, g *gate) error {
	code, err := get(ctx, g)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("GET %s: no answer within %v", g.conf.HTTP, g.conf.Timeout)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("GET %s: closed without an answer", g.conf.HTTP)
	case err != nil:
		return fmt.Errorf("GET %s: %s", g.conf.HTTP, short(err.Error()))
	case code < 200 || code > 399:
		return fmt.Errorf("GET %s: %d %s", g.conf.HTTP, code, http.StatusText(code))
	}
	return nil
}

// get sends the request and returns the answer's status. No client of package http:
// the path goes out as the unit file has it, and nothing is followed or kept.
func get(ctx context.Context, g *gate) (status int, err error) {
	c, err := connect(ctx, g)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: sockd\r\nUser-Agent: sockd\r\nConnection: close\r\n\r\n", g.conf.HTTP)
	if err != nil {
		return 0, err
	}
	r := bufio.NewReader(io.LimitReader(c, maxGateAnswer))
	for {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return 0, err
		}
		if answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols { // else: it comes later
			return answer.StatusCode, nil
		}
	}
}

func connect(ctx context.Context, g *gate) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", g.address)
	switch op := (*net.OpError)(nil); {
	case errors.Is(err, unix.EAGAIN):
		return nil, errors.New("many connections wait and none is accepted")
	case errors.As(err, &op):
		return nil, op.Err // without the name, which nobody knows
	}
	return c, err
}

// tryAccept connects and waits until somebody has accepted. The kernel lets a
// connection in before anybody has: whether somebody did shows in the queue of the
// listener, which becomes empty. Only this run has it, and we never accept. One
// connection is question enough, be it of an earlier try or of a supervisor before us.
func tryAccept(ctx context.Context, g *gate) error {
	queued, err := waiting(g.door)
	if err != nil {
		return err
	}
	if !queued && !g.asked {
		c, err := connect(ctx, g)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	g.asked = true
	// The kernel tells when a queue is no longer empty, and not when it is: so we look,
	// at first soon, then seldom.
	for wait := time.Millisecond; ; wait = min(2*wait, g.conf.Interval) {
		queued, err := waiting(g.door)
		if err != nil {
			return err
		}
		if !queued {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("a connection was not accepted within %v", g.conf.Timeout)
		}
	}
}

// waiting reports whether a connection waits in the listener's queue.
func waiting(listener int) (bool, error) {
	p := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, 0)
		switch {
		case err == nil:
			return p[0].Revents != 0, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// short cuts a text that a service may have had a hand in.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
