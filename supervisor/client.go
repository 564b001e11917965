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
	"path/filepath"
	"time"
)

// A Client speaks with a supervisor over its control socket.
type Client struct {
	dir  string
	http http.Client
}

// ErrNotRunning is returned when nobody serves the control socket.
var ErrNotRunning = errors.New("sockd is not running")

// NewClient returns a client for the supervisor on a runtime folder. It connects
// when it is first asked something.
func NewClient(runtimeDir string) *Client {
	c := &Client{dir: runtimeDir}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", filepath.Join(runtimeDir, ControlSocket))
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
			}
			return conn, nil
		},
		DisableKeepAlives: true,
	}
	return c
}

// Units asks for every unit's status.
func (c *Client) Units(ctx context.Context) ([]UnitStatus, error) {
	var all []UnitStatus
	return all, c.do(ctx, "GET", "/v1/units", &all)
}

// Unit asks for one unit's status. An unknown one is an *APIError.
func (c *Client) Unit(ctx context.Context, name string) (UnitStatus, error) {
	var st UnitStatus
	return st, c.do(ctx, "GET", "/v1/units/"+url.PathEscape(name), &st)
}

// Verb does start, stop, restart or reload on a unit. With wait it returns when
// the outcome is known, or after timeout.
func (c *Client) Verb(ctx context.Context, name, verb string, wait bool, timeout time.Duration) (Outcome, error) {
	q := url.Values{"wait": {fmt.Sprint(wait)}, "timeout": {timeout.String()}}
	var out Outcome
	return out, c.do(ctx, "POST", "/v1/units/"+url.PathEscape(name)+"/"+verb+"?"+q.Encode(), &out)
}

// Canary starts count more instances ("1", or "25%"), of the version that starts now.
func (c *Client) Canary(ctx context.Context, name, count string, wait bool, timeout time.Duration) (Outcome, error) {
	q := url.Values{"canary": {count}, "wait": {fmt.Sprint(wait)}, "timeout": {timeout.String()}}
	var out Outcome
	return out, c.do(ctx, "POST", "/v1/units/"+url.PathEscape(name)+"/restart?"+q.Encode(), &out)
}

// Scale changes how many instances a unit has, until its file changes.
func (c *Client) Scale(ctx context.Context, name string, instances int, wait bool, timeout time.Duration) (Outcome, error) {
	q := url.Values{"instances": {fmt.Sprint(instances)}, "wait": {fmt.Sprint(wait)}, "timeout": {timeout.String()}}
	var out Outcome
	return out, c.do(ctx, "POST", "/v1/units/"+url.PathEscape(name)+"/scale?"+q.Encode(), &out)
}

// Reload asks the supervisor to read all its files again.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, "POST", "/v1/reload", &Outcome{})
}

// maxAnswer bounds what a client reads.
const maxAnswer = 256 << 20

func (c *Client) do(ctx context.Context, method, path string, into any) error {
	return c.send(ctx, method, path, nil, into)
}

// send is do with a body.
func (c *Client) send(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://sockd"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, ErrNotRunning) {
			return fmt.Errorf("%w: no answer at %s", ErrNotRunning, filepath.Join(c.dir, ControlSocket))
		}
		return fmt.Errorf("control socket: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
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
