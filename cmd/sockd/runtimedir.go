package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/sockd/sockd/supervisor"
	"github.com/spf13/cobra"
)

// Where the control socket is: --runtime-dir, SOCKD_RUNTIME_DIR, or the default.

// baseDir is that folder, and whether the flag named it.
func baseDir(cmd *cobra.Command) (dir string, named bool) {
	if dir, err := cmd.Flags().GetString("runtime-dir"); err == nil && dir != "" {
		return dir, true
	}
	if dir := os.Getenv("SOCKD_RUNTIME_DIR"); dir != "" {
		return dir, false
	}
	return supervisor.DefaultRuntimeDir(), false
}

// runtimeDir is the folder of `sockd run`. A command without a file has one of its
// own, below it, so that any number can run side by side.
func runtimeDir(cmd *cobra.Command, adhoc bool) string {
	dir, named := baseDir(cmd)
	if adhoc && !named {
		dir = filepath.Join(dir, fmt.Sprint(supervisor.AdhocPrefix, os.Getppid())) // the keeper's: that is the one people see
	}
	return dir
}

// runtimeDirs are the folders where a supervisor may be: the one that the flag names,
// or the usual one and those of `sockd run -l` below it.
func runtimeDirs(cmd *cobra.Command) []string {
	dir, named := baseDir(cmd)
	if named {
		return []string{dir}
	}
	below, _ := filepath.Glob(filepath.Join(dir, supervisor.AdhocPrefix+"*"))
	sort.Strings(below)
	return append([]string{dir}, below...)
}
