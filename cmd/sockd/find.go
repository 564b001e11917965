package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

// Any number of `sockd run -l` may run beside the usual supervisor, each on a folder of
// its own. A command that names no folder is for whichever has the unit.

// findPatience is how long the others may take to say whether they have it: one that
// hangs is not to hold up what is asked of another. A variable for tests.
var findPatience = 10 * time.Second

// clientFor returns a client for the supervisor that has the unit: that on the usual
// folder, else the only other one. Without a unit it is the one that answers.
func clientFor(cmd *cobra.Command, unit string) (*supervisor.Client, error) {
	dirs := runtimeDirs(cmd)
	usual := supervisor.NewClient(dirs[0])
	if len(dirs) == 1 {
		return usual, nil
	}
	ctx, stop := context.WithTimeout(cmd.Context(), findPatience)
	defer stop()
	err := has(ctx, usual, unit)
	if !lacks(err) { // it has it, or says itself what is wrong
		return usual, nil
	}
	speaks := usual // for all who have no such unit
	var found []string
	for _, dir := range dirs[1:] {
		c := supervisor.NewClient(dir)
		switch other := has(ctx, c, unit); {
		case other == nil:
			found = append(found, dir)
		case errors.Is(err, supervisor.ErrNotRunning) && !errors.Is(other, supervisor.ErrNotRunning):
			speaks = c
		}
	}
	switch len(found) {
	case 0:
		return speaks, nil
	case 1:
		return supervisor.NewClient(found[0]), nil
	}
	what := "more than one sockd runs"
	if unit != "" {
		what = fmt.Sprintf("more than one sockd has a unit called %q", unit)
	}
	return nil, &exitError{code: exitMisuse, text: fmt.Sprintf("%s: on %s", what, strings.Join(found, ", ")), hint: "say which with --runtime-dir"}
}

// has is nil if a supervisor answers, and has the unit.
func has(ctx context.Context, c *supervisor.Client, unit string) error {
	if unit == "" {
		_, err := c.Units(ctx)
		return err
	}
	_, err := c.Unit(ctx, unit)
	return err
}

// lacks tells whether an error says that there is no supervisor, or no such unit.
func lacks(err error) bool {
	var api *supervisor.APIError
	return errors.Is(err, supervisor.ErrNotRunning) || errors.As(err, &api) && api.Status == http.StatusNotFound
}
