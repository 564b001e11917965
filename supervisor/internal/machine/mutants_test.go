package machine

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var mutants = flag.Bool("mutants", false, "plant every fault of the table in a copy of the package and see it caught")

// TestMutants tests the tests: every planted fault must be caught by the stories,
// the tables, the enumeration or the simulation. A survivor is a question to the author of the
// invariants: write the missing one into Check or the oracle.
func TestMutants(t *testing.T) {
	if !*mutants {
		t.Skip("takes minutes; run: go test ./supervisor/internal/machine -v -run Mutants -mutants")
	}
	dir := t.TempDir()
	source := map[string]string{}
	for _, m := range faults {
		if source[m.file] == "" {
			text, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			source[m.file] = string(text)
		}
		if n := strings.Count(source[m.file], m.old); n != 1 {
			t.Fatalf("%s: %q is %d times in %s, wanted once", m.name, m.old, n, m.file)
		}
	}
	var caught atomic.Int64
	var lines sync.Mutex
	t.Run("each", func(t *testing.T) {
		for i, m := range faults {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				by := m.catch(t, filepath.Join(dir, fmt.Sprint(i)), source[m.file])
				if len(by) == 0 {
					t.Error("survives")
					return
				}
				caught.Add(1)
				lines.Lock()
				defer lines.Unlock()
				fmt.Printf("%-50s %s\n", m.name, strings.Join(by, ", "))
			})
		}
	})
	fmt.Printf("mutants: %d of %d caught\n", caught.Load(), len(faults))
}

// nets are what may catch a mutant, cheapest first.
var nets = []struct{ name, run string }{
	{"tables", "Delay|RestartPolicy|RoundTrip"}, {"stories", "Stories"}, {"enumeration", "Enumeration"}, {"simulation", "Simulation"},
}

// catch builds the package with the fault laid over its file, and returns the nets
// in which it was caught.
func (m mutant) catch(t *testing.T, dir, source string) (by []string) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	changed, overlay, binary := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	layers, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(here, m.file): changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{changed: strings.Replace(source, m.old, m.new, 1), overlay: string(layers)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-o", binary, "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Fatalf("does not build: %s", out)
	}
	defer os.Remove(binary)
	for _, net := range nets {
		cmd := exec.Command(binary, "-test.short", "-test.timeout=60s", "-test.run="+net.run, "-histories=40000", "-seed=1")
		if err := cmd.Run(); err != nil {
			by = append(by, net.name)
		}
	}
	return by
}
