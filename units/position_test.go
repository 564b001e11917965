package units

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A writer writes the same few keys in one of the countless ways TOML allows, and
// remembers where the one that is wrong stands.
type writer struct {
	*rand.Rand
	b    strings.Builder
	nl   string
	line int
	col  int
}

func (w *writer) pick(of ...string) string { return of[w.IntN(len(of))] }
func (w *writer) space() string            { return w.pick("", "", " ", "\t", "  \t ") }
func (w *writer) put(parts ...string) {
	for _, p := range parts {
		w.b.WriteString(p)
	}
}

// here says that what comes next is wrong.
func (w *writer) here() {
	text := w.b.String()
	w.line = strings.Count(text, "\n") + 1
	w.col = len([]rune(text[strings.LastIndexByte(text, '\n')+1:])) + 1
}

func (w *writer) key(name string) string {
	switch w.IntN(5) {
	case 0:
		return `"` + name + `"`
	case 1:
		return "'" + name + "'"
	case 2:
		return fmt.Sprintf(`"\u%04x%s"`, name[0], name[1:])
	}
	return name
}

func (w *writer) comment() string {
	if w.IntN(3) == 0 {
		return w.space() + "# é = [\"日本'''" + w.nl
	}
	return w.nl
}

func (w *writer) noise() {
	for range w.IntN(3) {
		w.put(w.pick(w.nl, w.comment(), "# ]}\"é"+w.nl, "\t"+w.nl))
	}
}

// harmless is a value of a key of the user's own.
func (w *writer) harmless() string {
	return w.pick(`"é🙂"`, `'a"b'`, `"\"#\\"`, "1", "[1, [2,"+w.nl+" 3 ] # é"+w.nl+" ]", `{a.b = "}", c = [{d = ']'}]}`,
		`"""é`+w.nl+`"" \"""" `, "'''"+w.nl+`\''''`, "2026-01-02 03:04:05Z", "-inf", "0x1f", `""`, "[]", "{}", `"""a\`+w.nl+`   b"""`)
}

// A fact is a key with its value; wrong ones are marked.
type fact struct {
	path  []string
	value string
	bad   bool // the value is wrong
	key   bool // the key is unknown
	index int  // the value is an array whose element is wrong, from 1
	list  []string
}

// write writes the facts of each top-level table in one style: dotted keys, an
// inline table or headers. What has a header comes last, for nothing ends it.
func (w *writer) write(facts []fact) {
	tops := map[string][]fact{}
	for _, f := range facts {
		tops[f.path[0]] = append(tops[f.path[0]], f)
	}
	order := slices.Sorted(maps.Keys(tops))
	w.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var headers []string
	for _, top := range order {
		list := tops[top]
		w.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		switch w.IntN(3) {
		case 0:
			for _, f := range list {
				w.noise()
				w.put(w.space())
				w.fact(f, f.path)
				w.put(w.space(), w.comment())
			}
		case 1:
			w.noise()
			w.put(w.key(top), w.space(), "=", w.space(), "{")
			for i, f := range list {
				if i > 0 {
					w.put(",")
				}
				w.put(w.space())
				w.fact(f, f.path[1:])
				w.put(w.space())
			}
			w.put("}", w.comment())
		default:
			headers = append(headers, top)
		}
	}
	for _, top := range headers {
		tables := map[string][]fact{}
		for _, f := range tops[top] {
			name := strings.Join(f.path[:len(f.path)-1], ".")
			tables[name] = append(tables[name], f)
		}
		order := slices.Sorted(maps.Keys(tables))
		w.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, name := range order {
			w.noise()
			w.put(w.space(), "[", w.space())
			w.path(strings.Split(name, "."))
			w.put(w.space(), "]", w.comment())
			for _, f := range tables[name] {
				w.noise()
				w.put(w.space())
				w.fact(f, f.path[len(f.path)-1:])
				w.put(w.space(), w.comment())
			}
		}
	}
}

func (w *writer) path(parts []string) {
	for i, p := range parts {
		if i > 0 {
			w.put(w.space(), ".", w.space())
		}
		w.put(w.key(p))
	}
}

// fact writes a fact with that much of its path.
func (w *writer) fact(f fact, path []string) {
	if len(path) > 1 {
		w.path(path[:len(path)-1])
		w.put(w.space(), ".", w.space())
	}
	if f.key {
		w.here()
	}
	w.put(w.key(path[len(path)-1]), w.space(), "=", w.space())
	if f.bad {
		w.here()
	}
	if f.list == nil {
		w.put(f.value)
		return
	}
	w.put("[")
	for i, v := range f.list {
		w.put(w.space(), w.pick("", w.comment()), w.space())
		if i+1 == f.index {
			w.here()
		}
		w.put(v, w.space(), w.pick("", w.comment()))
		if i+1 < len(f.list) || w.IntN(2) == 0 {
			w.put(",")
		}
	}
	w.put(w.space(), "]")
}

// TestPositionsInEveryStyle writes units with one fault in random ways of TOML and
// looks whether the fault is found where it was put. A seed replays one:
// SOCKD_SEED=7 go test ./units -run Style
func TestPositionsInEveryStyle(t *testing.T) {
	first, count := rand.Uint64(), uint64(2000)
	if s, err := strconv.ParseUint(os.Getenv("SOCKD_SEED"), 10, 64); err == nil {
		first, count = s, 1
	}
	for seed := first; seed != first+count; seed++ {
		w := &writer{Rand: rand.New(rand.NewPCG(seed, 0))}
		w.nl = w.pick("\n", "\r\n")
		facts := []fact{
			{path: []string{"service", "exec"}, list: []string{`"e"`, `'é,]'`, `"\"#"`}},
			{path: []string{"service", "environment", "A"}, value: `"é"`},
			{path: []string{"service", "x-one"}, value: w.harmless()},
			{path: []string{"socket", "a-b", "x-two"}, value: w.harmless()},
			{path: []string{"socket", "a-b", "listen"}, list: []string{`":1"`, `":2"`}},
			{path: []string{"socket", "c", "listen"}, value: `":3"`},
			{path: []string{"x-three", "x"}, value: w.harmless()},
		}
		faults := []fact{
			{path: []string{"service", "watchdog"}, value: "3", bad: true},
			{path: []string{"service", "instances"}, value: `"é"`, bad: true},
			{path: []string{"service", "wotchdog"}, value: w.harmless(), key: true},
			{path: []string{"service", "environment", "B"}, value: "[ 1 ]", bad: true},
			{path: []string{"service", "environment_files"}, list: []string{`"é"`, "3", `"e"`}, index: 2},
			{path: []string{"socket", "c", "backlog"}, value: "0", bad: true},
			{path: []string{"socket", "c", "backlogg"}, value: w.harmless(), key: true},
			{path: []string{"socket", "c", "optional"}, list: []string{`"mark"`, `'ip_tos'`, `"\u006dark"`}, index: 3},
		}
		facts = append(facts, faults[w.IntN(len(faults))])
		w.put(w.pick("", "\uFEFF"))
		bom := w.b.Len() > 0
		w.write(facts)
		text := w.b.String()
		if bom && w.line == 1 {
			w.col--
		}
		_, err := Parse("web.toml", []byte(text))
		want := fmt.Sprintf("web.toml:%d:%d: ", w.line, w.col)
		if problems, _ := err.(Problems); len(problems) != 1 || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("seed %d: got %v, want one problem at %s\n%s", seed, err, want, text)
		}
	}
}
