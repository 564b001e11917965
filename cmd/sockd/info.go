package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/sockd/sockd/supervisor"
	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of unit files, for editors",
		Args:  argsOrMisuse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := os.Stdout.Write(units.Schema())
			return err
		},
	}
}

func newVersion() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  argsOrMisuse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := textOrJSON(output); err != nil {
				return err
			}
			if output == "json" {
				return printJSON(os.Stdout, map[string]string{"version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			_, err := fmt.Fprintln(os.Stdout, versionLine())
			return err
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// versionLine is the version as people read it.
func versionLine() string {
	return fmt.Sprintf("sockd %s %s %s/%s", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion is set by the linker for a release: -ldflags "-X main.buildVersion=v1.2.3".
var buildVersion string

// build is what another sockd may want to know of this one.
func build() supervisor.Build {
	var at time.Time
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				at, _ = time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	return supervisor.NewBuild(version(), at)
}

// version is the linker's, the module's, or the commit it was built from.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}
