package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
)

// An upgrade replaces every line of sockd's code while sockets, processes and the
// control socket stay: keeper/guard_upgrade.go says how. This is its beginning, in
// the old supervisor, and its end, told by whichever is there then.

// An UpgradeRequest is the body of POST /v1/upgrade.
type UpgradeRequest struct {
	Binary     string `json:"binary,omitempty"` // absolute; "": the file that sockd was started from
	AllowOlder bool   `json:"allow_older,omitempty"`
}

// An Upgrade says what has become of an upgrade.
type Upgrade struct {
	ID      string `json:"id"`
	Binary  string `json:"binary,omitempty"`
	From    string `json:"from,omitempty"` // versions
	To      string `json:"to,omitempty"`
	Outcome string `json:"outcome"` // "under way", Done or RolledBack; Unknown from Client.Upgrade
	Because string `json:"because,omitempty"`
}

// UnderWay is the outcome of what has none yet.
const UnderWay = keeper.UnderWay

// Unknown is the outcome of what was accepted, and then nobody could tell any more.
const Unknown = "unknown"

// fileVariable tells a supervisor which file its keeper was started from, by the name
// it had then: what lies there now may be the next version.
const fileVariable = "SOCKD_FILE"

// errReplaced ends a supervisor that another file's follows.
var errReplaced = errors.New("replaced")

// prepareUpgrade checks the file, and gives it to the keeper. The supervisor is then
// to end. An error is a refusal, and means that nothing has changed.
func (s *Supervisor) prepareUpgrade(r UpgradeRequest) (*Upgrade, error) {
	if s.cfg.Keeper == nil {
		return nil, refused("this supervisor is part of another program and cannot be replaced")
	}
	if r.Binary == "" {
		r.Binary = programFile()
	}
	if !filepath.IsAbs(r.Binary) {
		return nil, refused("%q is not an absolute path", r.Binary)
	}
	f, err := openProgram(r.Binary)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	next, err := askProgram(f)
	if err == nil {
		err = mayReplace(s.cfg.Build, next, r.AllowOlder)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Binary, err)
	}
	up := &Upgrade{ID: strconv.FormatInt(time.Now().UnixNano(), 36), Binary: r.Binary, From: s.cfg.Build.Version, To: next.Version, Outcome: UnderWay}
	s.log.Info("upgrade", "binary", up.Binary, "from", up.From, "to", up.To)
	if err := s.cfg.Keeper.handOver(up.ID, f); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	return up, nil
}

// handOver gives the keeper the file to go on with.
func (k *Keeper) handOver(id string, f *os.File) error {
	if !k.handed.CompareAndSwap(nil, &id) {
		return errors.New("an upgrade is under way")
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = k.remote.Upgrade(id, int(fd)) })
	if err = errors.Join(err, result); err != nil {
		k.handed.Store(nil)
	}
	return err
}

// postUpgrade answers before the supervisor ends: 202 if the upgrade is under way.
func (s *Supervisor) postUpgrade(w http.ResponseWriter, r *http.Request) {
	var req UpgradeRequest
	body, err := io.ReadAll(r.Body) // bounded has bounded it
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &req)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, &APIError{Text: fmt.Sprintf("body: %v", err)})
		return
	}
	up, err := s.prepareUpgrade(req)
	if err != nil {
		reply(w, http.StatusConflict, &APIError{Text: err.Error()})
		return
	}
	answer, _ := json.Marshal(up)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer))) // whole, whenever the server ends
	w.WriteHeader(http.StatusAccepted)
	w.Write(answer)
	http.NewResponseController(w).Flush()
	go s.askSafe(context.Background(), s.leave)
}

// leave ends this supervisor for another, unless everything is about to end.
func (s *Supervisor) leave() error {
	if !s.stopping {
		s.crashed = errReplaced
		s.cfg.Keeper.leaving.Store(true)
	}
	return nil
}

// getUpgrade waits, while the client does, until it is known what has become of the
// upgrade with that id, 404 if there was none; without one, it says what is known of the
// last.
func (s *Supervisor) getUpgrade(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	if s.cfg.Keeper == nil {
		reply(w, http.StatusNotFound, &APIError{Text: "there is no keeper, and so no upgrade"})
		return
	}
	late := time.After(time.Second) // the first that a new supervisor hears of its keeper is the upgrade; it may be on its way
	for {
		o, changed := s.cfg.Keeper.remote.Outcome()
		if id == "" || o.ID == id && o.Outcome != UnderWay {
			reply(w, http.StatusOK, Upgrade{ID: o.ID, To: s.cfg.Build.Version, Outcome: o.Outcome, Because: o.Because})
			return
		}
		mine := s.cfg.Keeper.handed.Load()
		if known := id == o.ID || mine != nil && id == *mine; !known && (o.ID != "" || late == nil) {
			reply(w, http.StatusNotFound, &APIError{Text: fmt.Sprintf("no upgrade here has the id %q; without an id the last one is told", id)})
			return
		}
		select {
		case <-changed:
		case <-late:
			late = nil
		case <-r.Context().Done():
			return
		case <-s.quit:
			return // the next supervisor will know
		}
	}
}

// Upgrade asks for another file to take over, and waits until it is known how that
// has ended. A refusal is an *APIError. If the connection breaks off before there is an
// answer, the next supervisor is asked too: heard twice, it does no harm.
func (c *Client) Upgrade(ctx context.Context, r UpgradeRequest) (Upgrade, error) {
	var up Upgrade
	body, err := json.Marshal(r)
	if err != nil {
		return up, err
	}
	if err := c.do(ctx, "POST", "/v1/upgrade", body, &up); err != nil {
		return up, err
	}
	for {
		var end Upgrade
		err := c.do(ctx, "GET", "/v1/upgrade?id="+url.QueryEscape(up.ID), nil, &end)
		refusal := (*APIError)(nil)
		switch {
		case err == nil:
			up.Outcome, up.Because = end.Outcome, end.Because
			return up, nil
		case ctx.Err() != nil:
			return up, ctx.Err()
		case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound: // only the last one is known
			up.Outcome, up.Because = Unknown, "another upgrade has followed, or another sockd"
			return up, nil
		case errors.Is(err, ErrNotRunning), refusal != nil: // nobody holds the socket
			return up, err
		}
		// A supervisor has ended with our question; the next one is asked. Connecting
		// waits for it, since the keeper holds the socket.
	}
}
