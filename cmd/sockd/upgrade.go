package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

func newUpgrade() *cobra.Command {
	var allowOlder bool
	var output string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade [BINARY]",
		Short: "Let another sockd take over: sockets, processes and clients do not notice",
		Long: `Let another sockd take over. Without BINARY it is what lies now where the running
sockd was started from. The file is checked, tried, and taken back if it does not
work. Exit codes: 0 done, 1 refused, 6 rolled back; then what ran before goes on.`,
		Args: argsOrMisuse(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(textOrJSON(output), positive("--timeout", timeout)); err != nil {
				return err
			}
			c, err := clientFor(cmd, "")
			if err != nil {
				return err
			}
			r := supervisor.UpgradeRequest{AllowOlder: allowOlder}
			if len(args) == 1 {
				if r.Binary, err = filepath.Abs(args[0]); err != nil {
					return err
				}
			}
			ctx, stop := context.WithTimeout(cmd.Context(), timeout)
			defer stop()
			up, err := c.Upgrade(ctx, r)
			if errors.Is(err, context.DeadlineExceeded) {
				return &exitError{code: exitTimedOut, text: fmt.Sprintf("upgrade: not known how it ended within %v", timeout), hint: "see `sockd status`"}
			}
			if err != nil {
				return said(err)
			}
			if output == "json" {
				if err := printJSON(os.Stdout, up); err != nil {
					return err
				}
			}
			if up.Outcome == supervisor.Unknown {
				return &exitError{code: exitTimedOut, text: "upgrade: not known how it ended: " + up.Because, hint: "see `sockd status`"}
			}
			if up.Outcome != supervisor.Done {
				return &exitError{code: exitRolledBack, text: fmt.Sprintf("upgrade to %s: %s: %s", up.To, up.Outcome, up.Because),
					hint: up.From + " goes on; nothing else has changed"}
			}
			if output == "json" {
				return nil
			}
			fmt.Fprintf(os.Stdout, "upgraded from %s to %s\n", up.From, up.To)
			return nil
		},
	}
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&allowOlder, "allow-older", false, "also go back to an older version")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Minute, "how long to wait for the outcome")
	return cmd
}
