package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/sockd/sockd/supervisor"
	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

func newDoctor() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "doctor [PATH…]",
		Short: "Say what this machine allows, and what follows",
		Long: `Try out what this machine allows to sockd, and say what follows. The units of the
files and folders given, or those that ` + "`sockd run`" + ` would read, are looked at for what they
need. No sockd need be running. The exit code is 0 whatever is found.`,
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := textOrJSON(output); err != nil {
				return err
			}
			c, _ := baseDir(cmd)
			set, finding := unitsToRun(args)
			list := supervisor.Diagnose(set, c)
			if finding != nil {
				list = append(list, *finding)
			}
			if output == "json" {
				return printJSON(os.Stdout, list)
			}
			return printFindings(os.Stdout, list)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// unitsToRun are the units there are, or what is wrong with them; neither where
// there is no folder of units and nobody has named one.
func unitsToRun(args []string) (*units.Set, *supervisor.Finding) {
	paths, err := unitPaths(args)
	if err != nil {
		return nil, nil
	}
	set, err := units.Load(paths...)
	if err != nil {
		return nil, &supervisor.Finding{Subject: "units", Found: err.Error(), Follows: "`sockd run` refuses to start", Remedy: "see `sockd check`"}
	}
	return set, &supervisor.Finding{Subject: "units", OK: true, Found: count(len(set.Units), "unit"), Follows: "no problems in their files"}
}

// printFindings writes two or three lines for each finding.
func printFindings(w io.Writer, list []supervisor.Finding) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, f := range list {
		state := "ok"
		if !f.OK {
			state = "less"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n\t\t%s\n", f.Subject, state, printable(f.Found), f.Follows)
		if f.Remedy != "" {
			fmt.Fprintf(tw, "\t\tremedy: %s\n", f.Remedy)
		}
	}
	return tw.Flush()
}

func textOrJSON(output string) error {
	if output != "text" && output != "json" {
		return misuse("-o: %q is neither text nor json", output)
	}
	return nil
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
