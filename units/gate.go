package units

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Gate is asked whether a run is ready, again and again until it says so.
type Gate struct {
	HTTP    string   `json:",omitzero"` // ReadyHTTP: the path to GET
	TCP     bool     `json:",omitzero"` // ReadyTCP
	Command []string `json:",omitzero"` // ReadyCommand

	Interval time.Duration `json:",omitzero"` // from one try to the next
	Timeout  time.Duration `json:",omitzero"` // of one try
}

// Private reports whether each run is given a private listening socket, called
// ReadySocket, on which it is asked.
func (g *Gate) Private() bool { return g != nil && g.Command == nil }

// ReadySocket is the name of that socket, which no other may have then.
const ReadySocket = "ready"

func newGate() *Gate { return &Gate{Interval: 200 * time.Millisecond, Timeout: 5 * time.Second} }

// gateKeys are the keys of service.ready where it is a table.
var gateKeys = sync.OnceValue(func() []key[Gate] {
	return []key[Gate]{
		{keyInfo{name: string(ReadyHTTP), kind: urlPath, fallback: "–",
			meaning: "Ready when `GET` of this path on the private socket is answered with a status from 200 to 399"},
			func(g *Gate) any { return &g.HTTP }},
		{keyInfo{name: string(ReadyTCP), kind: onlyTrue, fallback: "–",
			meaning: "Ready when it has accepted a connection on the private socket"},
			func(g *Gate) any { return &g.TCP }},
		{keyInfo{name: string(ReadyCommand), kind: command, fallback: "–",
			meaning: "Ready when this command exits with 0. It runs beside the service with the same user, folder and environment, without its sockets, and finds the service's process in `SOCKD_PID`. Written as `exec` is"},
			func(g *Gate) any { return &g.Command }},
		{keyInfo{name: "interval", kind: duration, min: int64(time.Millisecond), max: longest,
			meaning: "The wait after a try that failed"},
			func(g *Gate) any { return &g.Interval }},
		{keyInfo{name: "timeout", kind: duration, min: int64(time.Millisecond), max: longest,
			meaning: "How long one try may take"},
			func(g *Gate) any { return &g.Timeout }},
	}
})

// kindsOfGate are the keys of which a gate has exactly one.
var kindsOfGate = []string{string(ReadyHTTP), string(ReadyTCP), string(ReadyCommand)}

// A readiness is both fields that the key ready fills.
type readiness struct {
	ready *Ready
	gate  **Gate
}

// readyWord is what ready may be beside a table.
var readyWord = words(ReadyExec, ReadyNotify)

var readyOrGate = &kind{
	what:   "`\"exec\"` `\"notify\"` or a table, see [below](#ready)",
	schema: map[string]any{"anyOf": []any{readyWord.schema, gateSchema(ReadyHTTP), gateSchema(ReadyTCP), gateSchema(ReadyCommand)}},
	read: func(r *reader, k *keyInfo, n *node, dst any) {
		to := dst.(*readiness)
		s, isText := n.data.(string)
		switch {
		case n.shape == table:
			readGate(r, n, to)
		case isText && slices.Contains(kindsOfGate, s):
			r.fail(n, wrong("%s needs a table", quote(s)).write("%s", gateExample[Ready(s)]))
		case isText:
			readyWord.read(r, k, n, to.ready)
		default:
			r.mismatch(n, `one of `+readyWord.what+` or a table`, "")
		}
	},
	write: func(src any) string {
		from := src.(*readiness)
		if g := *from.gate; g != nil {
			return writeGate(g)
		}
		return readyWord.write(from.ready)
	},
}

var gateExample = map[Ready]string{
	ReadyHTTP:    `{ http = "/healthz" }`,
	ReadyTCP:     `{ tcp = true }`,
	ReadyCommand: `{ command = ["./check"] }`,
}

// readGate reads the table.
func readGate(r *reader, n *node, to *readiness) {
	g := newGate()
	var asked []string
	for _, kid := range n.kids {
		at := &reader{r.d, r.dir, r.path + "." + tomlKey(kid.key)}
		k := find(gateKeys(), kid.key)
		switch {
		case strings.HasPrefix(kid.key, "x-"):
			continue
		case k == nil:
			f := wrong("unknown key")
			f.hint = didYouMean(kid.key, names(gateKeys()))
			at.d.add(kid.at, at.path, f)
			continue
		case slices.Contains(kindsOfGate, k.name):
			if asked = append(asked, k.name); len(asked) > 1 {
				at.d.add(kid.at, at.path, &fault{"is too much: " + asked[0] + " is here already", "a gate asks in one way"})
			}
		}
		k.kind.read(at, &k.keyInfo, kid, k.field(g))
	}
	if len(asked) == 0 {
		r.fail(n, wrong("none of http, tcp, command is in it").write("%s", gateExample[ReadyHTTP]))
		return
	}
	*to.ready, *to.gate = Ready(asked[0]), g
}

func writeGate(g *Gate) string {
	base := newGate()
	var list []string
	for _, k := range gateKeys() {
		if v := k.field(g); !reflect.DeepEqual(v, k.field(base)) {
			list = append(list, k.name+" = "+k.kind.write(v))
		}
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

// gateSchema is the schema of a gate of one kind.
func gateSchema(kind Ready) map[string]any {
	var keys []key[Gate]
	for _, k := range gateKeys() {
		if k.name == string(kind) || !slices.Contains(kindsOfGate, k.name) {
			keys = append(keys, k)
		}
	}
	return tableSchema(keys, newGate(), string(kind))
}

// urlPath is what stands in the first line of a request.
var urlPath = text("a path that begins with /", `^/[!"$-~]*$`, parseURLPath, plain, nil)

func parseURLPath(s string) (string, *fault) {
	const longest = 1000
	switch {
	case !strings.HasPrefix(s, "/"):
		return "", wrong("%s does not begin with /", quote(s)).write("%s", tomlString("/"+s))
	case len(s) > longest:
		return "", wrong("longer than %d bytes", longest)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", wrong("%s is not a path of HTTP: printable ASCII without blanks", quote(s))
	case strings.Contains(s, "#"):
		return "", wrong("what follows # is never sent to a server")
	}
	return s, nil
}

// onlyTrue is a switch that nobody needs to switch off.
var onlyTrue = &kind{
	what:   "true",
	schema: map[string]any{"enum": []any{true}},
	read: func(r *reader, k *keyInfo, n *node, dst any) {
		if n.data == false {
			r.fail(n, &fault{"false asks nothing", "leave it out, or write true"})
			return
		}
		boolean.read(r, k, n, dst)
	},
	write: boolean.write,
}
