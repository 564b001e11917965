package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// A supervisor may end while a client waits for its answer: killed, or replaced by an
// upgrade. The keeper holds the control socket, so who connects again waits for the next
// supervisor, and the errand has a name by which that one knows it: see heard.go.

// answerGrace is how much longer than its timeout a verb may take to answer: a supervisor
// says itself that the time is over, and one that hangs says nothing.
const answerGrace = 5 * time.Second

// betweenTries keeps a client from spinning where connections break off at once.
const betweenTries = 20 * time.Millisecond

// errand does a verb on a unit, whichever supervisors come and go meanwhile. What was
// broken off says so.
func (c *Client) errand(ctx context.Context, name, verb string, q url.Values, timeout time.Duration, into any) (brokenOff bool, err error) {
	q.Set("request", rand.Text())
	return c.insist(ctx, timeout, func(ctx context.Context, left time.Duration, again bool) error {
		q.Set("timeout", left.String())
		if again {
			q.Del("prove") // what clients met before is not known any more
		}
		return c.send(ctx, "POST", "/v1/units/"+url.PathEscape(name)+"/"+verb+"?"+q.Encode(), nil, into)
	})
}

// insist asks until there is an answer, or timeout is over: then the error is
// context.DeadlineExceeded.
func (c *Client) insist(ctx context.Context, timeout time.Duration, ask func(ctx context.Context, left time.Duration, again bool) error) (brokenOff bool, err error) {
	until := time.Now().Add(timeout)
	ctx, stop := context.WithDeadline(ctx, until.Add(answerGrace))
	defer stop()
	for {
		err := ask(ctx, max(time.Until(until), time.Millisecond), brokenOff)
		switch {
		case ctx.Err() != nil && err != nil:
			return brokenOff, ctx.Err()
		case errors.Is(err, ErrNotRunning) && brokenOff:
			return brokenOff, errors.New("sockd has ended before it could say the outcome")
		case errors.Is(err, errBrokenOff):
			brokenOff = true
		case !errors.Is(err, errBusy):
			return brokenOff, err
		}
		select {
		case <-time.After(betweenTries):
		case <-ctx.Done():
			return brokenOff, ctx.Err()
		}
	}
}

// late makes an outcome of a supervisor that has not answered in time.
func late(name string, out *Outcome, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		*out = Outcome{Unit: name, Outcome: TimedOut, Because: "sockd has not answered"}
		return nil
	}
	return err
}

// Verb does a verb on a unit that takes nothing else: start, stop, restart, reload, pause,
// resume, promote or abort. With wait it returns when the outcome is known, or after
// timeout.
func (c *Client) Verb(ctx context.Context, name, verb string, wait bool, timeout time.Duration) (Outcome, error) {
	return c.verb(ctx, name, verb, url.Values{}, wait, timeout)
}

// Canary starts count more instances ("1", or "25%"), of the version that starts now.
func (c *Client) Canary(ctx context.Context, name, count string, wait bool, timeout time.Duration) (Outcome, error) {
	return c.verb(ctx, name, "restart", url.Values{"canary": {count}}, wait, timeout)
}

// Scale changes how many instances a unit has, until its file changes.
func (c *Client) Scale(ctx context.Context, name string, instances int, wait bool, timeout time.Duration) (Outcome, error) {
	return c.verb(ctx, name, "scale", url.Values{"instances": {fmt.Sprint(instances)}}, wait, timeout)
}

func (c *Client) verb(ctx context.Context, name, verb string, q url.Values, wait bool, timeout time.Duration) (out Outcome, err error) {
	q.Set("wait", fmt.Sprint(wait))
	_, err = c.errand(ctx, name, verb, q, timeout, &out)
	err = late(name, &out, err)
	return out, err
}

// Prove does a verb, waits for its outcome, and asks for a proof of what clients met.
// params are the verb's own, such as canary or instances; nil is none.
func (c *Client) Prove(ctx context.Context, name, verb string, params url.Values, timeout time.Duration) (out ProvenOutcome, err error) {
	q := url.Values{"prove": {"true"}}
	for k, v := range params {
		q[k] = v
	}
	brokenOff, err := c.errand(ctx, name, verb, q, timeout, &out)
	if brokenOff {
		out.NoProof = "the supervisor that looked at the queues has ended meanwhile"
	}
	err = late(name, &out.Outcome, err)
	return out, err
}

// Reload asks the supervisor to read all its files again. Heard twice, it does no harm.
func (c *Client) Reload(ctx context.Context, timeout time.Duration) (out ReloadOutcome, err error) {
	_, err = c.insist(ctx, timeout, func(ctx context.Context, _ time.Duration, _ bool) error {
		return c.send(ctx, "POST", "/v1/reload", nil, &out)
	})
	err = late("", &out.Outcome, err)
	return out, err
}

// AskReload asks for the same and does not wait for it: what is wrong with the files is in
// the supervisor's log.
func (c *Client) AskReload(ctx context.Context) (out ReloadOutcome, err error) {
	err = c.send(ctx, "POST", "/v1/reload?wait=false", nil, &out)
	return out, err
}
