package supervisor

import (
	"os/exec"
	"strings"
	"testing"
)

// The directions in which packages may import each other: CONTRIBUTING.md.
func TestImportDirections(t *testing.T) {
	const module = "github.com/sockd/sockd/"
	allowed := map[string][]string{
		"units":                                    {},
		"activation":                               {},
		"supervisor":                               {"units", "supervisor/internal/machine", "supervisor/internal/keeper", "supervisor/internal/sys", "supervisor/internal/steer", "supervisor/internal/plain"},
		"supervisor/internal/machine":              {},
		"supervisor/internal/keeper":               {"supervisor/internal/sys"},
		"supervisor/internal/sys":                  {"supervisor/internal/sys/trampoline", "supervisor/internal/sys/direct"},
		"supervisor/internal/sys/trampoline":       {},
		"supervisor/internal/sys/direct":           {"supervisor/internal/sys/trampoline", "supervisor/internal/sys/direct/inherited"},
		"supervisor/internal/sys/direct/inherited": {},
		"supervisor/internal/steer":                {},
		"supervisor/internal/plain":                {},
		"supervisor/internal/fake":                 {"supervisor/internal/keeper"},
		"cmd/sockd":                                {"units", "supervisor"},
	}
	// Keeper and trampoline: the standard library and x/sys only. Machine: nothing at all.
	outside := map[string]string{
		"supervisor/internal/machine":              "",
		"supervisor/internal/keeper":               "golang.org/x/sys/",
		"supervisor/internal/sys":                  "golang.org/x/sys/",
		"supervisor/internal/sys/trampoline":       "golang.org/x/sys/",
		"supervisor/internal/sys/direct":           "golang.org/x/sys/",
		"supervisor/internal/sys/direct/inherited": "",
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	// -e: who runs the tests need not have the modules that others wrote.
	out, err := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name := strings.TrimPrefix(words[0], module)
		may, known := allowed[name]
		if name == "examples" || strings.HasPrefix(name, "examples/") {
			may, known = []string{"activation"}, true
		}
		if !known {
			t.Errorf("package %s has no rule: which of ours may it import?", name)
		}
		packages++
		for _, imp := range words[1:] {
			rel, ours := strings.CutPrefix(imp, module)
			prefix, strict := outside[name]
			switch {
			case ours:
				ok := false
				for _, m := range may {
					ok = ok || m == rel
				}
				if !ok {
					t.Errorf("%s imports %s", name, rel)
				}
			case strict && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && (prefix == "" || !strings.HasPrefix(imp, prefix)):
				t.Errorf("%s imports %s", name, imp)
			}
		}
	}
	if packages < 10 {
		t.Fatalf("only %d packages seen", packages)
	}
}
