package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A Client speaks with a supervisor over its control socket.
type Client struct {
	http http.Client
}

// errBrokenOff is a request whose answer did not come whole: it may have been heard.
var errBrokenOff = errors.New("the connection has broken off")

// errBusy is a request that was not heard, since too many wait to be.
var errBusy = errors.New("too many clients wait at the control socket")

// NewClient returns a client for the supervisor on a runtime folder. It connects
// when it is first asked something.
func NewClient(runtimeDir string) *Client {
	c := &Client{}
	c.http.Transport = &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, runtimeDir) },
		DisableKeepAlives: true,
	}
	return c
}

// Units asks for every unit's status.
func (c *Client) Units(ctx context.Context) ([]UnitStatus, error) {
	var all []UnitStatus
	err := c.do(ctx, "GET", "/v1/units", nil, &all)
	return all, err
}

// Unit asks for one unit's status. An unknown one is an *APIError.
func (c *Client) Unit(ctx context.Context, name string) (UnitStatus, error) {
	var st UnitStatus
	err := c.do(ctx, "GET", "/v1/units/"+url.PathEscape(name), nil, &st)
	return st, err
}

// maxAnswer bounds what a client reads.
const maxAnswer = 256 << 20

// doPatience is how long a question is repeated that breaks off again and again.
const doPatience = 30 * time.Second

// do asks something that can be asked twice, with a body. Somebody may ask while the
// supervisor is replaced by another.
func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	until := time.Now().Add(doPatience)
	for {
		err := c.send(ctx, method, path, body, into)
		if !errors.Is(err, errBrokenOff) && !errors.Is(err, errBusy) || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(betweenTries):
		case <-ctx.Done():
			return err
		}
	}
}

// send asks once, with a body.
func (c *Client) send(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://sockd"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		var dialed *dialError
		if errors.As(err, &dialed) {
			return dialed.error
		}
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without an address that is none
		}
		return fmt.Errorf("control socket: %w: %w", errBrokenOff, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("control socket: %w: %w", errBrokenOff, err)
	}
	if res.StatusCode/100 != 2 {
		e := &APIError{Status: res.StatusCode}
		if json.Unmarshal(answer, e) != nil || e.Text == "" {
			e.Text = fmt.Sprintf("%s: %s", res.Status, bytes.TrimSpace(answer))
		}
		return e
	}
	return json.Unmarshal(answer, into)
}
