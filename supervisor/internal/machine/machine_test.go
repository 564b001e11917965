package machine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sources parses the package without its tests.
func sources(t *testing.T) map[string]*ast.File {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestPure: no clock, no goroutine, no map order, no I/O.
func TestPure(t *testing.T) {
	allowed := []string{"time", "fmt", "strconv", "encoding/json", "slices", "strings", "errors", "math"}
	files := sources(t)
	if len(files) < 8 {
		t.Fatalf("only %d files found", len(files))
	}
	for name, file := range files {
		for _, imp := range file.Imports {
			if path, _ := strconv.Unquote(imp.Path.Value); !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.MapType:
				t.Errorf("%s has a %T", name, n)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" &&
					!slices.Contains([]string{"Duration", "Millisecond", "Second"}, n.Sel.Name) {
					t.Errorf("%s uses time.%s", name, n.Sel.Name)
				}
			}
			return true
		})
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, spec := range g.Specs {
					if id := spec.(*ast.ValueSpec).Names[0].Name; id != "signalNames" {
						t.Errorf("%s has the global variable %s", name, id)
					}
				}
			}
		}
	}
}

// TestEveryEventIsHandled: the types that are events are those that absorb knows.
func TestEveryEventIsHandled(t *testing.T) {
	var declared, handled []string
	for _, file := range sources(t) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			switch f.Name.Name {
			case "event":
				declared = append(declared, f.Recv.List[0].Type.(*ast.Ident).Name)
			case "absorb":
				ast.Inspect(f, func(n ast.Node) bool {
					if c, ok := n.(*ast.CaseClause); ok {
						for _, x := range c.List {
							if id, ok := x.(*ast.Ident); ok {
								handled = append(handled, id.Name)
							}
						}
					}
					return true
				})
			}
		}
	}
	slices.Sort(declared)
	slices.Sort(handled)
	if len(declared) < 10 || !slices.Equal(declared, handled) {
		t.Errorf("events are %v\nabsorb knows %v", declared, handled)
	}
	defer func() {
		if recover() == nil {
			t.Error("a nil event is no event, and nobody has noticed")
		}
	}()
	New(Spec{Instances: 1}).Step(birth, nil)
}

// TestRoundTrip: every field of a unit survives being saved.
func TestRoundTrip(t *testing.T) {
	var fill func(v reflect.Value, depth int)
	next := int64(0)
	fill = func(v reflect.Value, depth int) {
		next++
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				if !v.Type().Field(i).IsExported() {
					t.Errorf("%s.%s would not be saved", v.Type(), v.Type().Field(i).Name)
					continue
				}
				fill(v.Field(i), depth+1)
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), depth+1)
			fill(v.Index(1), depth+1)
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(math.MaxInt64 - next)
		case reflect.Uint64:
			v.SetUint(math.MaxUint64 - uint64(next))
		case reflect.String:
			v.SetString("text <" + strconv.FormatInt(next, 10) + ">")
		default:
			t.Fatalf("a field of kind %s", v.Kind())
		}
	}
	u := new(Unit)
	fill(reflect.ValueOf(u).Elem(), 0)
	if v := reload(t, u); !reflect.DeepEqual(u, v) {
		t.Errorf("saved %+v\nloaded %+v", u, v)
	}
}

func TestDelay(t *testing.T) {
	s := Spec{Delay: 100 * time.Millisecond, DelayMax: time.Second}
	for _, row := range []struct {
		name   string
		spec   Spec
		fails  int
		jitter float64
		want   time.Duration
	}{
		{"first", s, 1, 0.5, 100 * time.Millisecond},
		{"second", s, 2, 0.5, 200 * time.Millisecond},
		{"fourth", s, 4, 0.5, 800 * time.Millisecond},
		{"at the limit", s, 5, 0.5, time.Second},
		{"far beyond", s, math.MaxInt, 0.5, time.Second},
		{"shortest", s, 1, 0, 90 * time.Millisecond},
		{"longest", s, 1, 0.999999999, 110 * time.Millisecond},
		{"none", Spec{}, 1, 0.5, 0},
		{"none, twice", Spec{}, 2, 0.5, 10 * time.Millisecond},
		{"none, often", Spec{}, 9, 0.5, 10 * time.Millisecond},
		{"a limit below the delay", Spec{Delay: time.Second, DelayMax: time.Millisecond}, 3, 0.5, time.Second},
		{"longer than can be", Spec{Delay: 1 << 62, DelayMax: 1 << 62}, 90, 0.5, 1 << 62},
		{"as long as can be", Spec{Delay: 1 << 61, DelayMax: 1 << 62}, 90, 0.5, 1 << 62},
	} {
		if got := row.spec.delay(row.fails, row.jitter); got.Round(time.Microsecond) != row.want.Round(time.Microsecond) {
			t.Errorf("%s: %v, wanted %v", row.name, got, row.want)
		}
	}
}

// TestRestartPolicy is the table of Restart= in systemd.service(5).
func TestRestartPolicy(t *testing.T) {
	for _, row := range []struct {
		name                                            string
		run                                             Run
		st                                              Status
		notify                                          bool
		no, success, failure, abnormal, watchdog, abort bool
	}{
		{"clean exit", Run{}, Status{}, false, false, true, false, false, false, false},
		{"clean signal", Run{}, Status{Signal: 13}, false, false, true, false, false, false, false},
		{"unclean code", Run{}, Status{Code: 3}, false, false, false, true, false, false, false},
		{"unclean signal", Run{}, Status{Signal: 9}, false, false, false, true, true, false, true},
		{"core", Run{}, Status{Signal: 6, Core: true}, false, false, false, true, true, false, true},
		{"timeout", Run{Fault: TimedOut}, Status{}, false, false, false, true, true, false, false},
		{"watchdog", Run{Fault: Silent}, Status{Signal: 6}, false, false, false, true, true, true, false},
		{"clean, not yet ready", Run{}, Status{}, true, false, false, true, true, false, false},
		{"clean, was ready", Run{ReadyAt: 1}, Status{}, true, false, true, false, false, false, false},
	} {
		how := endingOf(row.run, row.st, row.notify)
		for policy, want := range map[Restart]bool{No: row.no, OnSuccess: row.success, OnFailure: row.failure,
			OnAbnormal: row.abnormal, OnWatchdog: row.watchdog, OnAbort: row.abort, Always: true, "": false} {
			if got := policy.follows(how); got != want {
				t.Errorf("%s, restart=%s: %v", row.name, policy, got)
			}
		}
	}
}

func TestStatusText(t *testing.T) {
	for want, st := range map[string]Status{
		"exit status 1":                   {Code: 1},
		"killed by SIGSEGV (core dumped)": {Signal: 11, Core: true},
		"killed by SIGSYS":                {Signal: 31},
		"killed by SIGRTMIN+6":            {Signal: 40},
		"killed by signal 33":             {Signal: 33},
	} {
		if got := st.String(); got != want {
			t.Errorf("%q, wanted %q", got, want)
		}
	}
}

// BenchmarkStep is one start, readiness, failure and end of a backoff, in a unit of
// four instances: four events an iteration.
func BenchmarkStep(b *testing.B) {
	u := New(Spec{Instances: 4, Notify: true, Restart: Always, Delay: time.Second, DelayMax: time.Second, StartTimeout: time.Minute})
	now := birth
	u.Step(now, Start{})
	b.ReportAllocs()
	for b.Loop() {
		in := &u.Instances[2]
		gen := in.Runs[0].Gen
		u.Step(now, Execed{Instance: 3, Gen: gen})
		u.Step(now, Notified{Instance: 3, Gen: gen, Ready: true})
		u.Step(now, Exited{Instance: 3, Gen: gen, Status: Status{Code: 1}, Jitter: 0.5})
		now = in.Until
		u.Step(now, Tick{})
	}
}

// BenchmarkSave is what a step costs besides.
func BenchmarkSave(b *testing.B) {
	u := New(Spec{Instances: 4, Notify: true, Restart: Always, Delay: time.Second, StartTimeout: time.Minute})
	u.Step(birth, Start{})
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(saved(u))))
	}
}
