package units

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// A source is a unit with the places of what is in it, for problems that are seen
// only when everything has been read.
type source struct {
	document
	unit   *Unit
	set    map[string]*node // every key that is set, by its dotted path
	listen [][]spot         // the place of each address, as in unit.Sockets[i].Listen
	here   map[string]spot  // the place of what may be missing on this machine: see absent
	shell  string           // what stands in exec and only a shell would understand, or ""
}

// A spot is a place in a file.
type spot struct{ line, col int }

// Parse reads one unit file. name is its path: it gives the unit's name and the
// folder where relative paths start; it need not exist. The error is Problems.
func Parse(name string, text []byte) (*Unit, error) {
	s := parseSource(name, text)
	s.problems = append(s.problems, conflicts([]*source{s})...)
	if err := s.problems.err(); err != nil {
		return nil, err
	}
	return s.unit, nil
}

// parseSource reads one file and checks all that can be seen in it alone, but for
// its addresses: they are compared with everybody's.
func parseSource(name string, text []byte) *source {
	s := &source{document: document{file: name}, unit: &Unit{File: name}, set: map[string]*node{}}
	base := filepath.Base(name)
	s.unit.Name = strings.TrimSuffix(base, ".toml")
	switch {
	case s.unit.Name == base:
		s.whole(wrong("the name of a unit file ends in .toml"))
	case !ValidUnitName(s.unit.Name):
		s.whole(&fault{"the unit name " + quote(s.unit.Name) + " is not valid", "letters, digits and _ . - with a letter or digit first, at most 64"})
	}
	folder, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		s.whole(wrong("the folder is unknown: %v", err))
	}
	if !utf8.ValidString(folder) { // a unit is kept as text, and paths of it start there
		s.whole(&fault{"the folder " + quote(folder) + " has a name that is not UTF-8 text", "rename it"})
	}
	s.unit.Dir = folder
	if root := s.parse(text); root != nil {
		s.decode(root)
	}
	for _, name := range []string{"exec", "directory", "environment_files", "user", "group"} {
		if n := s.set["service."+name]; n != nil {
			if s.here == nil {
				s.here = map[string]spot{}
			}
			line, col := s.placer.place(n.value)
			s.here[name] = spot{line, col}
			if text, ok := n.data.(string); ok && name == "exec" {
				s.shell = forShell(text)
			}
		}
	}
	s.placer, s.set = nil, nil // thousands of files may wait for the last check
	return s
}

func (s *source) decode(root *node) {
	var service, sockets *node
	for _, n := range root.kids {
		switch {
		case strings.HasPrefix(n.key, "x-"):
		case n.key == "service":
			service = n
		case n.key == "socket":
			sockets = n
		default:
			s.unknown(n, tomlKey(n.key), []string{"service", "socket"}, func(name string) string {
				switch {
				case find(serviceKeys(), name) != nil:
					return "it belongs in [service]"
				case find(socketKeys(), name) != nil:
					return "it belongs in [socket.NAME]"
				}
				return ""
			})
		}
	}
	nonBlocking := s.decodeService(service)
	s.decodeSockets(sockets, nonBlocking)
	s.rules(service, sockets)
}

// decodeService returns the default of the sockets' non_blocking.
func (s *source) decodeService(n *node) bool {
	if n == nil {
		return false
	}
	if n.shape != table {
		s.add(n.at, "service", wrong("want a table, read %s", describe(n)).write("[service]"))
		return false
	}
	draft := &draft{Service: *newService()}
	draft.Directory = s.unit.Dir
	decodeTable(s, n, "service", serviceKeys(), draft, func(name string) string {
		if find(socketKeys(), name) != nil {
			return "it belongs in [socket.NAME]"
		}
		return ""
	})
	s.unit.Service = &draft.Service
	return draft.nonBlocking
}

func (s *source) decodeSockets(n *node, nonBlocking bool) {
	if n == nil {
		return
	}
	if n.shape != table {
		s.add(n.at, "socket", wrong("want a table for each socket, read %s", describe(n)).write("[socket.NAME]"))
		return
	}
	for _, k := range n.kids {
		path := dotted("socket", k.key)
		switch {
		case strings.HasPrefix(k.key, "x-") && k.shape != table:
			continue // x-name is a socket's name if it is a table
		case k.shape != table && find(socketKeys(), k.key) != nil:
			s.add(k.at, path, &fault{"a socket needs a name", "begin its table with [socket.NAME]"})
			continue
		case k.shape != table:
			s.add(k.at, path, wrong("want a table, read %s", describe(k)).write("[%s]", path))
			continue
		case !ValidSocketName(k.key):
			s.add(k.at, path, &fault{quote(k.key) + " is not a socket's name", "printable ASCII without colon, at most 255"})
		}
		sock := newSocket(k.key)
		sock.NonBlocking = nonBlocking
		decodeTable(s, k, path, socketKeys(), sock, func(name string) string {
			if find(serviceKeys(), name) != nil {
				return "it belongs in [service]"
			}
			return ""
		})
		s.unit.Sockets = append(s.unit.Sockets, *sock)
		s.listen = append(s.listen, s.spots(path, len(sock.Listen)))
	}
}

// spots are the places of a socket's addresses.
func (s *source) spots(path string, count int) []spot {
	n := s.set[path+".listen"]
	if n == nil || count == 0 {
		return nil
	}
	nodes := []*node{n}
	if n.shape == array {
		nodes = n.kids
	}
	list := make([]spot, len(nodes))
	for i, n := range nodes {
		list[i].line, list[i].col = s.placer.place(n.value)
	}
	return list
}

// decodeTable reads the table n into *dst. elsewhere says where else a key is at home.
func decodeTable[T any](s *source, n *node, path string, keys []key[T], dst *T, elsewhere func(name string) string) {
	r := &reader{d: &s.document, dir: s.unit.Dir}
	for _, kid := range n.kids {
		full := path + "." + tomlKey(kid.key)
		k := find(keys, kid.key)
		switch {
		case strings.HasPrefix(kid.key, "x-"):
		case k == nil:
			s.unknown(kid, full, names(keys), elsewhere)
		default:
			s.set[full] = kid
			r.path = full
			k.kind.read(r, &k.keyInfo, kid, k.field(dst))
		}
	}
}

// habits are words of others that no likeness of letters leads to ours.
var habits = map[string]string{
	"command": "exec", "cmd": "exec", "run": "exec", "cwd": "directory", "workdir": "directory",
	"env": "environment", "env_file": "environment_files", "replicas": "instances", "workers": "instances", "processes": "instances",
	"timeout": "stop_timeout", "kill_signal": "stop_signal", "type": "ready", "address": "listen", "port": "listen", "path": "listen",
	"bind": "listen", "owner": "user", "permissions": "mode",
}

// translate finds our key for systemd's directive.
func translate[T any](keys []key[T], directive string) string {
	for _, k := range keys {
		for _, d := range strings.Fields(k.systemd) {
			if strings.EqualFold(d, directive+"=") {
				return k.name
			}
		}
	}
	return ""
}

// unknown reports a key that does not exist, with the best guess at what was meant.
func (s *source) unknown(n *node, full string, known []string, elsewhere func(string) string) {
	f := wrong("unknown key")
	meant := cmp.Or(translate(serviceKeys(), n.key), translate(socketKeys(), n.key), habits[strings.ToLower(n.key)])
	switch {
	case slices.Contains(known, meant):
		f.hint = `did you mean "` + meant + `"?`
	default:
		if f.hint = elsewhere(n.key); f.hint == "" {
			f.hint = didYouMean(n.key, known)
		}
	}
	s.add(n.at, full, f)
}
