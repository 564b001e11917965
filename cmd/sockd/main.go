// Command sockd holds the listening sockets of services and runs the services
// behind them. See docs/ for the unit files and `sockd help` for the verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

// Exit codes, as documented.
const (
	exitDone       = 0
	exitFailed     = 1
	exitMisuse     = 2
	exitNotRunning = 3
	exitNoUnit     = 4
	exitTimedOut   = 5
	exitRolledBack = 6
)

// An exitError ends the command with a code of its own. Text may be empty: then
// everything has been said.
type exitError struct {
	code int
	text string
	hint string
}

func (e *exitError) Error() string { return e.text }

// misuse is an error in how the command was called.
func misuse(format string, args ...any) error {
	return &exitError{code: exitMisuse, text: fmt.Sprintf(format, args...)}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == supervisor.HandshakeArgument {
		if build().Handshake(os.Stdout) != nil {
			os.Exit(exitFailed)
		}
		return
	}
	code := execute(os.Args[1:])
	supervisor.HandBack(fmt.Sprintf("it ended with exit code %d", code))
	if attached != nil {
		attached.Bye(code)
	}
	os.Exit(code)
}

func execute(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitDone
	}
	var name string
	if n, _ := fmt.Sscanf(err.Error(), "unknown command %q", &name); n == 1 && !errors.As(err, new(*exitError)) {
		err = unknownCommand(root, name)
	}
	return complain(err)
}

// complain says what is wrong, and what to do, and returns the exit code for it.
func complain(err error) int {
	e := &exitError{code: exitFailed, text: err.Error()}
	if !errors.As(err, &e) && strings.HasPrefix(err.Error(), "unknown ") {
		e.code = exitMisuse
	}
	if e.text != "" {
		fmt.Fprintln(os.Stderr, "sockd: "+strings.TrimPrefix(e.text, "sockd: "))
	}
	if e.hint != "" {
		fmt.Fprintln(os.Stderr, "       "+e.hint)
	}
	return e.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sockd",
		Short: "Hold listening sockets and run the services behind them",
		Long: `sockd holds the listening sockets of services, starts the services on demand or
at once, and hands them the sockets, so that they come and go while no client
notices. It reads one TOML file for each unit.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       versionLine(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 { // behind --
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{code: exitMisuse, text: flagText(cmd, err), hint: "see `" + cmd.CommandPath() + " --help`"}
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommand(newHelp())
	root.PersistentFlags().String("runtime-dir", "", "folder of the control socket (SOCKD_RUNTIME_DIR)")
	root.RegisterFlagCompletionFunc("runtime-dir", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	root.AddCommand(newRun(), newCheck(), newStatus(), newSchema(), newVersion(), newScale(), newUpgrade(), newSockets(), newDoctor(), newCompletion())
	for _, verb := range []string{"start", "stop", "restart", "reload", "pause", "resume", "promote", "abort"} {
		root.AddCommand(newVerb(verb))
	}
	root.CompletionOptions.DisableDefaultCmd = true // ours says misuse where it is
	root.SetHelpCommandGroupID("")
	return root
}

// positive refuses a time that is none.
func positive(flag string, d time.Duration) error {
	if d <= 0 {
		return misuse("%s: %v is no time to wait; say for instance 30s", flag, d)
	}
	return nil
}
