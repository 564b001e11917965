package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what lets a shell complete sockd's words: " + strings.Join(shells, ", "),
		Example: `  source <(sockd completion bash)
  sockd completion zsh >"${fpath[1]}/_sockd"
  sockd completion fish | source`,
		ValidArgs: shells,
		Args:      argsOrMisuse(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(os.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(os.Stdout)
			case "fish":
				return root.GenFishCompletion(os.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(os.Stdout)
			}
			return misuse("no completion for %q; there is one for %s", args[0], strings.Join(shells, ", "))
		},
	}
}

// completionPatience is how long somebody waits who has pressed the tabulator key.
const completionPatience = time.Second

// completeUnits offers the units there are and that are not named yet.
func completeUnits(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, stop := context.WithTimeout(context.Background(), completionPatience)
	defer stop()
	var names []cobra.Completion
	for _, dir := range runtimeDirs(cmd) {
		all, _ := supervisor.NewClient(dir).Units(ctx) // who does not answer has none to offer
		for _, u := range all {
			if !slices.Contains(args, u.Name) && !slices.Contains(names, u.Name) {
				names = append(names, u.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeUnit offers them for the first word only.
func completeUnit(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeUnits(cmd, args, word)
}

// completeFiles offers unit files and folders.
func completeFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return []cobra.Completion{"toml"}, cobra.ShellCompDirectiveFilterFileExt
}
