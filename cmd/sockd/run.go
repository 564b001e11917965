package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sockd/sockd/supervisor"
	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

// runFlags are what `sockd run` takes.
type runFlags struct {
	listen      []string
	instances   int
	perInstance bool
	now         bool
	emit        bool
	logFormat   string
	orphans     string
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [UNIT.toml|FOLDER]… | run -l [NAME=]ADDRESS … -- COMMAND [ARG…]",
		Short: "Supervise units",
		Long: `Supervise the units of the files and folders given; with none, those of ./sockd.d,
else of /etc/sockd for root or ~/.config/sockd for others.

With -l, supervise one command without a file: each -l is a socket it is handed.

Signals: TERM and INT stop everything within the stop timeouts, a second INT kills;
HUP reads the files again.`,
		Example: `  sockd run hello.toml
  sockd run -l http=:8080 -n 4 --per-instance -- ./web -v`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(f.listen) > 0 { // a command, and what that takes
				return nil, cobra.ShellCompDirectiveDefault
			}
			return completeFiles(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	cmd.Flags().StringArrayVarP(&f.listen, "listen", "l", nil, "a socket for the command: [NAME=]ADDRESS; may be repeated")
	cmd.Flags().IntVarP(&f.instances, "instances", "n", 1, "with -l: how many instances")
	cmd.Flags().BoolVar(&f.perInstance, "per-instance", false, "with -l: each instance its own socket (SO_REUSEPORT)")
	cmd.Flags().BoolVar(&f.now, "now", false, "with -l: start at once, not with the first connection")
	cmd.Flags().BoolVar(&f.emit, "emit", false, "with -l: print the unit file and end")
	cmd.Flags().StringVar(&f.orphans, "orphans", supervisor.Adopt, "what becomes of services that a killed sockd has left here: adopt or stop")
	cmd.Flags().StringVar(&f.logFormat, "log-format", "text", "text, or json for structured lines")
	words := func(flag string, all ...cobra.Completion) {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp))
	}
	words("orphans", supervisor.Adopt, supervisor.End)
	words("log-format", "text", "json")
	return cmd
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	if f.logFormat != "text" && f.logFormat != "json" {
		return misuse("--log-format: %q is neither text nor json", f.logFormat)
	}
	if f.orphans != supervisor.Adopt && f.orphans != supervisor.End {
		return misuse("--orphans: %q is neither adopt nor stop", f.orphans)
	}
	adhoc := len(f.listen) > 0
	if !adhoc {
		for _, name := range []string{"instances", "per-instance", "now", "emit"} {
			if cmd.Flags().Changed(name) {
				return misuse("--%s goes with -l", name)
			}
		}
		if cmd.ArgsLenAtDash() >= 0 {
			return misuse("a command after -- needs a socket: -l ADDRESS")
		}
	}
	// A supervisor that comes later reads no files: what it goes on with is kept. So
	// nothing is looked at, which may have gone, before somebody loads.
	load := func() (*units.Set, error) { return f.load(cmd, args, adhoc) }
	if f.emit {
		set, err := load()
		if err != nil {
			return err
		}
		text, err := set.Units[0].TOML()
		if err == nil {
			_, err = os.Stdout.Write(text)
		}
		return err
	}
	var err error
	if attached, err = supervisor.Attach(); err != nil {
		return err
	}
	if attached == nil { // this process becomes the keeper, and starts itself again
		if err := f.preview(cmd, args, adhoc); err != nil {
			return err
		}
		out := newAsync(os.Stderr, f.logFormat, colours(os.Stderr))
		defer out.close()
		care.Log = out
		code, err := supervisor.Keep(os.Args, newLog(out, f.logFormat, colours(os.Stderr)), care)
		if code != exitDone && err == nil {
			return &exitError{code: code}
		}
		return err
	}
	log := newLog(attached, f.logFormat, colours(os.Stderr))
	return supervise(supervisor.Config{
		Load: warnOfNone(load, log), RuntimeDir: runtimeDir(cmd, adhoc), Keeper: attached, Log: log, Build: build(), Orphans: f.orphans,
		Output: os.Stdout, Format: supervisor.Format(f.logFormat), Colour: colours(os.Stdout),
	})
}

// care is how the keeper looks after its supervisors; tests are impatient.
var care supervisor.Care

// attached is the keeper that has started this process; nil in every other.
var attached *supervisor.Keeper

// load reads the units: from files, or from the flags.
func (f *runFlags) load(cmd *cobra.Command, args []string, adhoc bool) (*units.Set, error) {
	if adhoc {
		unit, err := f.unit(cmd, args)
		if err != nil {
			return nil, err
		}
		return &units.Set{Units: []*units.Unit{unit}}, nil
	}
	paths, err := unitPaths(args)
	if err != nil {
		return nil, err
	}
	return units.Load(paths...)
}

// warnOfNone warns where there is no unit: that is allowed, since units may come with a
// reload, and is most often a wrong folder.
func warnOfNone(load func() (*units.Set, error), log *slog.Logger) func() (*units.Set, error) {
	return func() (*units.Set, error) {
		set, err := load()
		if err == nil && len(set.Units) == 0 {
			log.Warn("no units", "because", "no file there has a name that ends in .toml")
		}
		return set, err
	}
}

// preview finds misuse before a process is started for it.
func (f *runFlags) preview(cmd *cobra.Command, args []string, adhoc bool) error {
	var err error
	if adhoc {
		_, err = f.unit(cmd, args)
	} else {
		_, err = unitPaths(args)
	}
	return err
}

// unitPaths are the files and folders to read.
func unitPaths(args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	dirs := []string{"sockd.d"}
	if os.Getuid() == 0 {
		dirs = append(dirs, "/etc/sockd")
	} else if config, err := os.UserConfigDir(); err == nil {
		dirs = append(dirs, filepath.Join(config, "sockd"))
	}
	for _, dir := range dirs {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return []string{dir}, nil
		}
	}
	return nil, &exitError{code: exitMisuse, text: fmt.Sprintf("no units: none of %q is a folder", dirs),
		hint: "name a unit file or a folder: sockd run hello.toml"}
}

// supervise runs until a signal ends it, of those that the keeper passes on.
func supervise(cfg supervisor.Config) error {
	s := supervisor.New(cfg)
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signal.Ignore(syscall.SIGPIPE) // somebody may stop reading our output
	go obey(ctx, s, attached.Orders(), attached.Safe(), stop)
	err := s.Run(ctx)
	var ended *supervisor.ExitError
	if errors.As(err, &ended) {
		return &exitError{code: ended.Code}
	}
	return problems(err)
}

// obey does what signals order, until the process ends. It never waits for files to be
// read: who wants sockd to end while a disk hangs is heard.
func obey(ctx context.Context, s *supervisor.Supervisor, orders <-chan os.Signal, safe bool, stop context.CancelCauseFunc) {
	again := make(chan struct{}, 1) // room for one: it reads what is there then
	go func() {
		for {
			select {
			case <-again:
				s.Reload(ctx) // it logs what was wrong
			case <-ctx.Done():
				return
			}
		}
	}()
	interrupted := false
	for sig := range orders {
		switch {
		case sig == syscall.SIGHUP && safe:
			s.Again()
			os.Exit(exitFailed) // without Bye: the keeper starts another supervisor
		case sig == syscall.SIGHUP:
			select {
			case again <- struct{}{}:
			default:
			}
		case sig == syscall.SIGINT && interrupted:
			s.Kill()
		default:
			interrupted = true
			stop(fmt.Errorf("signal: %v", sig))
		}
	}
}
