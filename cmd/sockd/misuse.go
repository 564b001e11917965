package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// How the command was called wrongly, in words that say what is right.

// argsOrMisuse says what a command takes where it was given something else.
func argsOrMisuse(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		_, takes, _ := strings.Cut(cmd.Use, " ")
		text := fmt.Sprintf("%s takes %s, not %s", cmd.Name(), takes, count(len(args), "argument"))
		if takes == "" {
			text = cmd.Name() + " takes no argument"
		}
		return &exitError{code: exitMisuse, text: text, hint: "usage: " + cmd.UseLine()}
	}
}

// flagText is what is wrong with a flag, without the words of the library that read it.
func flagText(cmd *cobra.Command, err error) string {
	var value, name string
	if n, _ := fmt.Sscanf(err.Error(), "invalid argument %q for %q flag:", &value, &name); n < 2 {
		return err.Error()
	}
	flag := cmd.Flags().Lookup(name[strings.Index(name, "--")+2:])
	want := map[string]string{"int": "no whole number", "duration": "no duration such as 30s", "bool": "neither true nor false"}[flag.Value.Type()]
	if want == "" {
		return err.Error()
	}
	return fmt.Sprintf("%s: %q is %s", name, value, want)
}

// unknownCommand is the error of a command that there is not.
func unknownCommand(root *cobra.Command, name string) error {
	e := &exitError{code: exitMisuse, text: fmt.Sprintf("unknown command %q; see `sockd help`", name)}
	if like := root.SuggestionsFor(name); len(like) > 0 {
		e.hint = "did you mean `" + like[0] + "`?"
	}
	return e
}

// newHelp is the library's own help, but for a command that there is not.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Say what a command does, and its flags",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), strings.Join(args, " "))
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
	}
}
