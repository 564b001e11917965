package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

// said turns an error of the control API into one with the documented exit code.
func said(err error) error {
	var api *supervisor.APIError
	switch {
	case errors.Is(err, supervisor.ErrNotRunning):
		return &exitError{code: exitNotRunning, text: err.Error(), hint: "start it with `sockd run`, or name its folder with --runtime-dir"}
	case errors.Is(err, supervisor.ErrDenied):
		return &exitError{code: exitFailed, text: err.Error(), hint: "ask as that user, for instance with sudo, or name the folder of a sockd of yours with --runtime-dir"}
	case errors.As(err, &api) && api.Status == http.StatusNotFound:
		return &exitError{code: exitNoUnit, text: api.Text}
	case errors.As(err, &api) && len(api.Problems) > 0:
		for _, p := range api.Problems {
			fmt.Fprintln(os.Stderr, p)
		}
		return &exitError{code: exitFailed, text: count(len(api.Problems), "problem") + "; nothing was changed"}
	case errors.As(err, &api) && api.Status == http.StatusBadRequest:
		return &exitError{code: exitMisuse, text: api.Text}
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{code: exitTimedOut, text: "no answer in time"}
	}
	return err
}

// verbTexts say what a verb does, for --help.
var verbTexts = map[string]string{
	"start":   "Start units, and forgive what has failed before",
	"stop":    "Stop units: their processes leave, their sockets stay",
	"restart": "Replace a unit's processes one by one: the new one is ready before the old one leaves",
	"pause":   "Start nothing, and hold clients in the queues; processes that live go on",
	"resume":  "End a pause",
	"promote": "Replace the old version by the canary's, and let the additional instances go",
	"abort":   "Let the canary go; the old version has served all the time",
	"reload":  "Send units their reload_signal; without a unit, read all files again",
}

func newVerb(verb string) *cobra.Command {
	var noWait bool
	var timeout time.Duration
	var canary string
	var p proving
	use := verb + " UNIT…"
	check := cobra.MinimumNArgs(1)
	if verb == "reload" {
		use, check = "reload [UNIT…]", cobra.ArbitraryArgs
	}
	cmd := &cobra.Command{Use: use, Short: verbTexts[verb], Args: argsOrMisuse(check), ValidArgsFunction: completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(noWait, timeout); err != nil {
				return err
			}
			if err := checkCanary(cmd, canary); err != nil {
				return err
			}
			if len(args) == 0 {
				c, err := clientFor(cmd, "")
				if err != nil {
					return err
				}
				do := func() (supervisor.ReloadOutcome, error) { return c.Reload(cmd.Context(), timeout) }
				if noWait {
					do = func() (supervisor.ReloadOutcome, error) { return c.AskReload(cmd.Context()) }
				}
				out, err := do()
				if err != nil {
					return said(err)
				}
				return p.reloaded(out)
			}
			one := func(name string) error {
				c, err := clientFor(cmd, name)
				if err != nil {
					return err
				}
				if p.prove {
					params := url.Values{}
					if canary != "" {
						params.Set("canary", canary)
					}
					return p.do(cmd.Context(), c, name, verb, params, timeout)
				}
				do := func() (supervisor.Outcome, error) { return c.Verb(cmd.Context(), name, verb, !noWait, timeout) }
				if canary != "" {
					do = func() (supervisor.Outcome, error) { return c.Canary(cmd.Context(), name, canary, !noWait, timeout) }
				}
				out, err := do()
				if err != nil {
					return said(err)
				}
				return p.conclude(verb, supervisor.ProvenOutcome{Outcome: out})
			}
			var first error // all are asked; the exit code is that of the first that failed
			for _, name := range args {
				err := one(name)
				if err != nil && first != nil {
					complain(err)
				}
				first = cmp.Or(first, err)
			}
			return first
		}}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	cmd.Flags().DurationVar(&timeout, "timeout", 90*time.Second, "how long to wait for the outcome")
	p.flags(cmd, verb)
	if verb == "restart" {
		cmd.Flags().StringVar(&canary, "canary", "", "try the new version on that many more instances: 1, or 25%")
	}
	return cmd
}

// checkCanary finds misuse; whether a unit has so many instances its supervisor knows.
func checkCanary(cmd *cobra.Command, count string) error {
	if !cmd.Flags().Changed("canary") {
		return nil
	}
	number, percent := strings.CutSuffix(count, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return misuse("--canary: %q is neither a number of instances nor a share such as 25%%", count)
	}
	return nil
}

func newScale() *cobra.Command {
	var noWait bool
	var timeout time.Duration
	var p proving
	cmd := &cobra.Command{Use: "scale UNIT N", Short: "Change how many instances a unit has, until its file changes",
		Args: argsOrMisuse(cobra.ExactArgs(2)), ValidArgsFunction: completeUnit,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(noWait, timeout); err != nil {
				return err
			}
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 || n > 1024 {
				return misuse("%q is no number of instances in 1..1024", args[1])
			}
			c, err := clientFor(cmd, args[0])
			if err != nil {
				return err
			}
			if p.prove {
				return p.do(cmd.Context(), c, args[0], "scale", url.Values{"instances": {args[1]}}, timeout)
			}
			out, err := c.Scale(cmd.Context(), args[0], n, !noWait, timeout)
			if err != nil {
				return said(err)
			}
			return p.conclude("scale", supervisor.ProvenOutcome{Outcome: out})
		}}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	cmd.Flags().DurationVar(&timeout, "timeout", 90*time.Second, "how long to wait for the outcome")
	p.flags(cmd, "scale")
	return cmd
}

// pastTense of the verbs, for what is said when they are done.
var pastTense = map[string]string{"start": "started", "stop": "stopped", "restart": "restarted", "reload": "reloaded",
	"pause": "paused", "resume": "resumed", "scale": "scaled", "promote": "promoted", "abort": "canary ended"}

// conclude says an outcome and turns it into an exit code.
func conclude(verb string, out supervisor.Outcome) error {
	because := ""
	if out.Because != "" {
		because = ": " + out.Because
	}
	switch out.Outcome {
	case supervisor.Done:
		fmt.Fprintf(os.Stdout, "%s: %s%s\n", out.Unit, pastTense[verb], because)
		return nil
	case supervisor.Asked:
		fmt.Fprintf(os.Stdout, "%s: asked to %s\n", out.Unit, verb)
		return nil
	}
	return outcomeError(verb, out)
}

// outcomeError is an outcome as an error with its exit code; nil if it is none.
func outcomeError(verb string, out supervisor.Outcome) error {
	if out.Outcome == supervisor.Done || out.Outcome == supervisor.Asked {
		return nil
	}
	because := ""
	if out.Because != "" {
		because = ": " + out.Because
	}
	code := map[string]int{supervisor.TimedOut: exitTimedOut, supervisor.RolledBack: exitRolledBack}[out.Outcome]
	if code == 0 {
		code = exitFailed
	}
	return &exitError{code: code, text: fmt.Sprintf("%s: not %s (%s)%s", out.Unit, pastTense[verb], out.Outcome, because),
		hint: "see `sockd status " + out.Unit + "`"}
}
