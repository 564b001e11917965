package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

func newSockets() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "sockets [UNIT…]", ValidArgsFunction: completeUnits,
		Short: "Say how the held sockets are: queues, drops, shares",
		Long: `One line for each held socket. QUEUED is connections that wait, of how many that may;
of a udp socket it is bytes. DROPS is what the kernel has turned away or thrown away
on this socket. WEIGHT is a sibling's share of what is new; 0 gets nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := textOrJSON(output); err != nil {
				return err
			}
			all, err := statuses(cmd, args)
			if err != nil {
				return err
			}
			list := []supervisor.SocketStatus{}
			for _, u := range all {
				list = append(list, u.Sockets...)
			}
			if output == "json" {
				return printJSON(os.Stdout, list)
			}
			return printSockets(os.Stdout, list)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func printSockets(w io.Writer, list []supervisor.SocketStatus) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "UNIT\tNAME\tADDRESS\tQUEUED\tDROPS\tSTEERING\tWEIGHT\tINODE\tHELD")
	for _, k := range list {
		unit, steering, weight := k.Unit, "-", "-"
		if k.Instance > 0 {
			unit += fmt.Sprintf("@%d", k.Instance)
		}
		if k.Steering != "" {
			steering, weight = k.Steering, fmt.Sprint(k.Weight)
		}
		if k.Flows != "" {
			steering += ", flows " + k.Flows
		}
		fmt.Fprintf(tw, "%s\t%s\t%s://%s\t%s\t%d\t%s\t%s\t%d\t%s\n", unit, printable(k.Name), k.Network, printable(k.Address), queue(k), k.Drops, steering, weight, k.Inode, printable(k.Held))
	}
	printErrors(tw, list)
	return tw.Flush()
}
