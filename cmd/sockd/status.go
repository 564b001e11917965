package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

func newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [UNIT…]",
		Short: "Say how units are", ValidArgsFunction: completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := textOrJSON(output); err != nil {
				return err
			}
			all, err := statuses(cmd, args)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(os.Stdout, all)
			}
			return printStatus(os.Stdout, all, time.Now(), colours(os.Stdout))
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// statuses asks every supervisor there may be. Of one beside the usual that hangs it says so.
func statuses(cmd *cobra.Command, names []string) ([]supervisor.UnitStatus, error) {
	all := []supervisor.UnitStatus{}
	var notRunning error
	running := false
	for i, dir := range runtimeDirs(cmd) {
		ctx, stop := cmd.Context(), func() {}
		if i > 0 {
			ctx, stop = context.WithTimeout(ctx, findPatience)
		}
		some, err := supervisor.NewClient(dir).Units(ctx)
		stop()
		switch {
		case i > 0 && errors.Is(err, context.DeadlineExceeded):
			complain(fmt.Errorf("on %s: no answer in time", dir))
			continue
		case errors.Is(err, supervisor.ErrNotRunning):
			if notRunning == nil {
				notRunning = err
			}
			continue
		case err != nil:
			return nil, said(err)
		}
		running = true
		for j := range some {
			if i > 0 {
				some[j].RuntimeDir = dir
			}
		}
		all = append(all, some...)
	}
	if !running {
		return nil, said(notRunning)
	}
	if len(names) == 0 {
		return all, nil
	}
	chosen := []supervisor.UnitStatus{}
	for _, name := range names {
		n := len(chosen)
		for _, st := range all {
			if st.Name == name {
				chosen = append(chosen, st)
			}
		}
		if len(chosen) == n {
			return nil, &exitError{code: exitNoUnit, text: fmt.Sprintf("no unit is called %q", name)}
		}
	}
	return chosen, nil
}

// printStatus writes a line for each instance and each socket, for each supervisor by
// itself; of one that is not on the usual folder it says where.
func printStatus(w io.Writer, all []supervisor.UnitStatus, now time.Time, colour bool) error {
	if len(all) == 0 {
		return printUnits(w, all, now)
	}
	for first := 0; first < len(all); {
		last := first + 1
		for last < len(all) && all[last].RuntimeDir == all[first].RuntimeDir {
			last++
		}
		if first > 0 {
			fmt.Fprintln(w)
		}
		if dir := all[first].RuntimeDir; dir != "" {
			fmt.Fprintf(w, "%s:\n", printable(dir))
		}
		if err := printUnits(w, all[first:last], now); err != nil {
			return err
		}
		first = last
	}
	return nil
}

func printUnits(w io.Writer, all []supervisor.UnitStatus, now time.Time) error {
	if len(all) > 0 && all[0].Safe != "" {
		fmt.Fprintf(w, "safe mode: %s\n\n", printable(all[0].Safe))
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "UNIT\tSTATE\tFOR\tPID\tSTARTS\tWHY")
	for _, u := range all {
		if len(u.Instances) == 0 {
			fmt.Fprintf(tw, "%s\t%s\t\t\t\t\n", u.Name, u.State)
		}
		for _, in := range u.Instances {
			var pids []string
			why := printable(in.Because)
			if in.State == "ready" || in.State == "idle" {
				why = standing(u, in)
			}
			for _, r := range in.Runs {
				if r.Pid != 0 {
					pids = append(pids, fmt.Sprint(r.Pid))
				}
				if r.Status != "" {
					why = printable(r.Status)
				}
				if r.Unready != "" {
					why = printable(r.Unready)
				}
			}
			if in.NextIn != "" {
				why += "; next start in " + in.NextIn
			}
			fmt.Fprintf(tw, "%s@%d\t%s\t%s\t%s\t%d\t%s\n", u.Name, in.Instance, in.State, since(now, in.Since), strings.Join(pids, ","), in.Starts, why)
		}
	}
	printStored(tw, all)
	fmt.Fprintln(tw, "\t\t\t\t\t")
	fmt.Fprintln(tw, "SOCKET\tNAME\tADDRESS\tQUEUED\tDROPS\tWEIGHT")
	for _, u := range all {
		for _, k := range u.Sockets {
			place := u.Name
			if k.Instance > 0 {
				place += fmt.Sprintf("@%d", k.Instance)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s://%s\t%s\t%d\t%s\n", place, printable(k.Name), k.Network, printable(k.Address), queue(k), k.Drops, weight(k))
		}
	}
	printSteering(tw, all)
	for _, u := range all {
		printErrors(tw, u.Sockets)
	}
	return tw.Flush()
}

// standing says what is special about an instance that is as it should be.
func standing(u supervisor.UnitStatus, in supervisor.InstanceStatus) string {
	var all []string
	if u.Paused {
		all = append(all, "paused: nobody is started until `sockd resume "+u.Name+"`")
	}
	if u.Canary > 0 && in.Instance > len(u.Instances)-u.Canary {
		all = append(all, "canary: `sockd promote "+u.Name+"` or `sockd abort "+u.Name+"`")
	}
	for _, r := range in.Runs {
		if r.Kept != "" {
			all = append(all, printable(r.Kept))
		}
	}
	return strings.Join(all, "; ")
}

// printErrors says which sockets nobody can reach, and why.
func printErrors(w io.Writer, list []supervisor.SocketStatus) {
	for _, k := range list {
		if k.Error != "" {
			fmt.Fprintf(w, "%s: socket %s: %s\n", k.Unit, printable(k.Name), printable(k.Error))
		}
	}
}

// weight is a sibling's share of what is new.
func weight(k supervisor.SocketStatus) string {
	if k.Steering == "" {
		return "-"
	}
	return fmt.Sprint(k.Weight)
}

// printSteering writes a line for each socket that has siblings: how new connections are
// shared out among them, and what a better way would do for clients.
func printSteering(w io.Writer, all []supervisor.UnitStatus) {
	said := map[string]bool{}
	for _, u := range all {
		for _, k := range u.Sockets {
			text := k.Steering
			if k.Flows != "" {
				text += ", flows " + k.Flows
			}
			if k.Lacks != "" {
				text += ": " + k.Lacks
			}
			line := fmt.Sprintf("%s\t%s\t%s\n", u.Name, printable(k.Name), printable(text))
			if text == "" || said[line] {
				continue
			}
			if len(said) == 0 {
				fmt.Fprint(w, "\t\t\t\t\t\nSTEERING\tNAME\t\n")
			}
			said[line] = true
			fmt.Fprint(w, line)
		}
	}
}

// printStored writes a line for each instance that has stored descriptors. Their names, of
// which there may be a thousand, stand last: a column that had them would be as wide in every line.
func printStored(w io.Writer, all []supervisor.UnitStatus) {
	head := "\t\t\t\t\t\nSTORE\tDESCRIPTORS\t\t\t\tNAMES\n"
	for _, u := range all {
		for _, in := range u.Instances {
			if len(in.Stored) > 0 {
				fmt.Fprintf(w, "%s%s@%d\t%d\t\t\t\t%s\n", head, u.Name, in.Instance, len(in.Stored), printable(strings.Join(in.Stored, ", ")))
				head = ""
			}
		}
	}
}

func queue(k supervisor.SocketStatus) string {
	if k.Backlog == 0 {
		return fmt.Sprint(k.Queued)
	}
	return fmt.Sprintf("%d of %d", k.Queued, k.Backlog)
}

// since says a span as people do: 5s, 3m, 2h, 4d.
func since(now, then time.Time) string {
	switch d := now.Sub(then); {
	case then.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// printable keeps what a service says of itself from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
