package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

// proving is how the outcome of a verb is said, with a proof or without.
type proving struct {
	prove  bool
	output string
}

func (p *proving) flags(cmd *cobra.Command, verb string) {
	outputFlag(cmd, &p.output)
	switch verb {
	case "restart", "promote", "abort", "scale":
		cmd.Flags().BoolVar(&p.prove, "prove", false, "look at the queues meanwhile, and say what clients met")
	}
}

func (p *proving) check(noWait bool, timeout time.Duration) error {
	if err := positive("--timeout", timeout); err != nil {
		return err
	}
	if p.prove && noWait {
		return misuse("--prove waits for the outcome; leave --no-wait out")
	}
	return textOrJSON(p.output)
}

// do does a verb with a proof, and says both. params are the verb's own.
func (p *proving) do(ctx context.Context, c *supervisor.Client, name, verb string, params url.Values, timeout time.Duration) error {
	out, err := c.Prove(ctx, name, verb, params, timeout)
	if err != nil {
		return said(err)
	}
	return p.conclude(verb, out)
}

// conclude says an outcome and turns it into an exit code. As JSON it stands on
// standard output, whatever it is.
func (p *proving) conclude(verb string, out supervisor.ProvenOutcome) error {
	if p.output == "json" {
		if err := printJSON(os.Stdout, out); err != nil {
			return err
		}
		return outcomeError(verb, out.Outcome)
	}
	err := conclude(verb, out.Outcome)
	if out.Proof != nil {
		fmt.Fprintf(os.Stdout, "%s: %s\n", out.Unit, out.Proof)
	}
	if p.prove && out.NoProof != "" {
		fmt.Fprintf(os.Stderr, "sockd: %s: no proof: %s\n", out.Unit, out.NoProof)
	}
	return err
}

// reloaded says what became of reading all files again.
func (p *proving) reloaded(out supervisor.ReloadOutcome) error {
	if p.output == "json" {
		if err := printJSON(os.Stdout, out); err != nil {
			return err
		}
	} else if out.Outcome.Outcome == supervisor.Asked {
		fmt.Println("asked to reload")
	} else if out.Outcome.Outcome == supervisor.Done {
		fmt.Println("reloaded")
		for _, w := range out.Warnings {
			fmt.Fprintln(os.Stderr, "sockd: warning: "+w)
		}
	}
	if out.Outcome.Outcome == supervisor.TimedOut {
		return &exitError{code: exitTimedOut, text: "not known whether the files were read again: " + out.Because, hint: "see `sockd status`"}
	}
	return nil
}
