package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sockd/sockd/units"
	"github.com/spf13/cobra"
)

// unit makes the unit that -l and the command after -- describe.
func (f *runFlags) unit(cmd *cobra.Command, args []string) (*units.Unit, error) {
	if cmd.ArgsLenAtDash() != 0 || len(args) == 0 {
		return nil, misuse("-l needs a command after --: sockd run -l :8080 -- COMMAND")
	}
	for _, text := range slices.Concat(f.listen, args) {
		if !utf8.ValidString(text) {
			return nil, misuse("%q is not UTF-8 text, which a unit is; a script may have it", text)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	name := unitName(args[0])
	text := []byte(f.file(args))
	unit, err := units.Parse(filepath.Join(dir, name+".toml"), text)
	if err != nil {
		return nil, problemsOfFlags(err)
	}
	return unit, nil
}

// file writes the unit as a person would.
func (f *runFlags) file(args []string) string {
	var b strings.Builder
	b.WriteString("[service]\nexec = [")
	for i, a := range args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(units.Quote(a))
	}
	b.WriteString("]\n")
	if f.now {
		b.WriteString("start = \"boot\"\n")
	}
	if f.instances != 1 {
		b.WriteString("instances = " + strconv.Itoa(f.instances) + "\n")
	}
	type table struct {
		name  string
		addrs []string
	}
	var tables []*table
	for _, l := range f.listen {
		name, addr := "main", l
		if n, a, ok := strings.Cut(l, "="); ok && !strings.ContainsAny(n, ":/@[") {
			name, addr = n, a
		}
		var t *table
		for _, have := range tables {
			if have.name == name {
				t = have
			}
		}
		if t == nil {
			t = &table{name: name}
			tables = append(tables, t)
		}
		t.addrs = append(t.addrs, units.Quote(addr))
	}
	for _, t := range tables {
		b.WriteString("\n[socket." + units.Quote(t.name) + "]\nlisten = ")
		if len(t.addrs) == 1 {
			b.WriteString(t.addrs[0] + "\n")
		} else {
			b.WriteString("[" + strings.Join(t.addrs, ", ") + "]\n")
		}
		if f.perInstance {
			b.WriteString("per_instance = true\n")
		}
	}
	return b.String()
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// unitName is what a command's unit is called: the program's name.
func unitName(command string) string {
	name := strings.TrimLeft(notInNames.ReplaceAllString(filepath.Base(command), "-"), "_.-")
	if name == "" {
		return "command"
	}
	return name[:min(len(name), 64)]
}
