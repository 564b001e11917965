package main

import (
	"fmt"
	"os"

	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [PATH]…",
		Short: "Report every problem of unit files with its place",
		Long:  "Read the units of the files and folders given, or those that `sockd run` would, and\nreport every problem as file:line:column. Exit code 1 if there is any.",
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := unitPaths(args)
			if err != nil {
				return err
			}
			set, err := units.Load(paths...)
			if err != nil {
				return problemsFound(err)
			}
			sockets := 0
			for _, u := range set.Units {
				sockets += len(u.Sockets)
			}
			fmt.Fprintf(os.Stdout, "%s, %s: no problems\n", count(len(set.Units), "unit"), count(sockets, "socket"))
			return nil
		},
	}
}
