package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check [PATH]…",
		Short: "Report every problem of unit files with its place",
		Long: `Read the units of the files and folders given, or those that ` + "`sockd run`" + ` would, and
report every problem as file:line:column. Exit code 1 if there is any, or no unit. What
this machine does not have, a program, a folder, a user, is a warning: it may come later.`,
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := textOrJSON(output); err != nil {
				return err
			}
			paths, err := unitPaths(args)
			if err != nil {
				return err
			}
			set, warnings, err := units.Check(paths...)
			if output == "json" {
				return checkJSON(paths, set, warnings, err)
			}
			if err != nil {
				return problemsFound(err)
			}
			for _, w := range warnings {
				w.Text = "warning: " + w.Text
				fmt.Fprintln(os.Stderr, w.Error())
			}
			if len(set.Units) == 0 {
				return noUnits(paths)
			}
			fmt.Fprintf(os.Stdout, "%s, %s: no problems\n", count(len(set.Units), "unit"), count(socketsOf(set), "socket"))
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// noUnits is what is wrong where there is nothing to check: a wrong folder looks like that.
func noUnits(paths []string) error {
	return &exitError{code: exitFailed, text: "no units in " + strings.Join(paths, ", "), hint: "the name of a unit file ends in .toml"}
}

func socketsOf(set *units.Set) (n int) {
	for _, u := range set.Units {
		n += len(u.Sockets)
	}
	return n
}

// A checked is what `sockd check -o json` prints. Its keys are stable.
type checked struct {
	Units    int       `json:"units"`
	Sockets  int       `json:"sockets"`
	Problems []problem `json:"problems"`
	Warnings []problem `json:"warnings"`
}

type problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Key    string `json:"key,omitempty"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
}

func checkJSON(paths []string, set *units.Set, warnings units.Problems, err error) error {
	var problems units.Problems
	if err != nil && !errors.As(err, &problems) {
		return err
	}
	out := checked{Problems: asJSON(problems), Warnings: asJSON(warnings)}
	if set != nil {
		out.Units, out.Sockets = len(set.Units), socketsOf(set)
	}
	if err := printJSON(os.Stdout, out); err != nil {
		return err
	}
	switch {
	case len(problems) > 0:
		return &exitError{code: exitFailed} // all has been said
	case out.Units == 0:
		return noUnits(paths)
	}
	return nil
}

func asJSON(problems units.Problems) []problem {
	all := make([]problem, len(problems))
	for i, p := range problems {
		all[i] = problem{p.File, p.Line, p.Col, p.Key, p.Text, p.Hint}
	}
	return all
}
