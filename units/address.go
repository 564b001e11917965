package units

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var networks = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket"}

// maxUnixPath is what fits into sun_path beside its closing NUL, in bytes (unix(7)).
const maxUnixPath = 107

// Stream reports whether connections are accepted there: it is no datagram address.
func (a Address) Stream() bool {
	return !strings.HasPrefix(a.Network, "udp") && a.Network != "unixgram"
}

// Unix reports whether it is a Unix socket, by path or abstract.
func (a Address) Unix() bool { return strings.HasPrefix(a.Network, "unix") }

// Path is the file of a Unix socket, or "" if it has none.
func (a Address) Path() string {
	if a.Unix() && !strings.HasPrefix(a.Address, "@") {
		return a.Address
	}
	return ""
}

// AddrPort is an IP address and port; without a host the address is not valid,
// which means every address of the network's families.
func (a Address) AddrPort() netip.AddrPort {
	host, port, _ := cutPort(a.Address)
	n, _ := strconv.ParseUint(port, 10, 16)
	ip, _ := netip.ParseAddr(host)
	return netip.AddrPortFrom(ip, uint16(n))
}

// Same reports whether both are one address: also in other words, as tcp://127.0.0.1:80
// and tcp4://127.0.0.1:80. Port 0 is the same as itself.
func (a Address) Same(b Address) bool { return a.plain() == b.plain() }

// plain has the family out of the network where the host tells it.
func (a Address) plain() Address {
	if a.Unix() {
		return a
	}
	ap := a.AddrPort()
	if ip := ap.Addr(); !ip.IsValid() || ip.IsUnspecified() {
		return a
	}
	return Address{a.Network[:3], netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()}
}

// ParseAddress reads an address as listen does. dir is where a relative Unix path starts.
func ParseAddress(text, dir string) (Address, error) {
	a, f := parseAddress(text, dir)
	if f != nil {
		return a, f
	}
	return a, nil
}

func parseAddress(text, dir string) (Address, *fault) {
	network, rest, ok := strings.Cut(text, "://")
	switch {
	case text == "":
		return Address{}, wrong("the address is empty")
	case strings.ContainsAny(text, "\x00\n\r"):
		return Address{}, wrong("%s is not an address", quote(text))
	case ok:
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"), strings.HasPrefix(text, "@"):
		network, rest = "unix", text
	case isDigits(text):
		network, rest = "tcp", ":"+text
	default:
		scheme, after, colon := strings.Cut(text, ":")
		if slices.Contains(networks, scheme) {
			return Address{}, wrong("%s is not an address", quote(text)).write(`"%s://%s"`, scheme, after)
		}
		if !colon && (strings.Contains(text, "/") || strings.HasSuffix(text, ".sock")) {
			return Address{}, wrong("%s is not an address", quote(text)).write("%s if you mean a path", tomlString("./"+text))
		}
		if !colon {
			return Address{}, wrong("%s is not an address", quote(text)).write(`one such as ":8080", "tcp://127.0.0.1:8080" or "unix:///run/web.sock"`)
		}
		network, rest = "tcp", text
	}
	switch {
	case !slices.Contains(networks, network):
		f := wrong("unknown network %s", quote(network))
		switch network {
		case "http", "https", "ws", "wss":
			return Address{}, f.write(`"tcp"`)
		}
		if f.hint = didYouMean(network, networks); f.hint == "" {
			f.hint = "there are " + strings.Join(networks, " ")
		}
		return Address{}, f
	case strings.HasPrefix(network, "unix"):
		return parseUnix(network, rest, dir)
	}
	return parseIP(network, rest)
}

func parseUnix(network, path, dir string) (Address, *fault) {
	name, abstract := strings.CutPrefix(path, "@")
	switch {
	case path == "":
		return Address{}, wrong("the path is missing")
	case abstract && name == "":
		return Address{}, wrong("the name after @ is missing")
	case abstract && len(path) > maxUnixPath+1:
		return Address{}, wrong("the name has %d bytes: the kernel takes %d", len(name), maxUnixPath)
	case abstract:
		return Address{network, path}, nil
	case slices.Contains([]string{"", ".", ".."}, path[strings.LastIndexByte(path, '/')+1:]):
		return Address{}, wrong("%s names a folder, not a socket", quote(path))
	}
	path = resolve(dir, path)
	if len(path) > maxUnixPath {
		return Address{}, wrong("%s has %d bytes: the kernel takes %d", quote(path), len(path), maxUnixPath).
			write(`a shorter path, or an abstract name such as "%s://@web"`, network)
	}
	return Address{network, path}, nil
}

// portNames are the few names people write instead of a number.
var portNames = map[string]int{"http": 80, "https": 443, "domain": 53, "dns": 53, "ssh": 22, "smtp": 25, "http-alt": 8080}

func parseIP(network, rest string) (Address, *fault) {
	host, port, f := cutPort(rest)
	if f != nil {
		return Address{}, f.write(`"%s://%s"`, network, withPort(rest))
	}
	n, err := strconv.ParseUint(port, 10, 64)
	switch {
	case !isDigits(port):
		f := wrong("the port %s is not a number", quote(port))
		if known, ok := portNames[port]; ok {
			f.write(`"%s://%s:%d"`, network, bracket(host), known)
		}
		return Address{}, f
	case err != nil || n > 65535:
		return Address{}, wrong("the port %s is not in 0..65535", port)
	}
	port = strconv.FormatUint(n, 10)
	if host == "" {
		return Address{network, ":" + port}, nil
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "*":
		return Address{}, wrong("* is not an IP address").write(`"%s://:%s"`, network, port)
	case host == "localhost":
		return Address{}, wrong("localhost is a name: where it leads may change").write(`"%s://127.0.0.1:%s"`, network, port)
	case err != nil:
		return Address{}, wrong("%s is not an IP address", quote(host)).write(`one such as "%s://127.0.0.1:%s"`, network, port)
	case ip.Zone() != "":
		return Address{}, wrong("an address with a zone").write(`"%s://[%s]:%s" and bind_to_device = %s`, network, ip.WithZone(""), port, tomlString(ip.Zone()))
	case ip.Is4In6():
		return Address{}, wrong("an IPv4 address written as IPv6").write(`"%s://%s:%s"`, strings.TrimRight(network, "46"), ip.Unmap(), port)
	case ip.Is6() && strings.HasSuffix(network, "4"), ip.Is4() && strings.HasSuffix(network, "6"):
		return Address{}, wrong("%s is not an address of %s", ip, network).write(`"%s://%s:%s"`, strings.TrimRight(network, "46"), bracket(host), port)
	}
	return Address{network, bracket(ip.String()) + ":" + port}, nil
}

// cutPort splits host:port, the host without its brackets.
func cutPort(s string) (host, port string, f *fault) {
	if inside, after, ok := strings.Cut(s, "]"); ok && strings.HasPrefix(inside, "[") {
		host, port = inside[1:], strings.TrimPrefix(after, ":")
		if len(port) == len(after) {
			port = ""
		}
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if strings.Contains(host, ":") {
			return "", "", wrong("an IPv6 address stands in brackets")
		}
	}
	if port == "" {
		return "", "", wrong("the port is missing")
	}
	return host, port, nil
}

// withPort guesses what an address that cutPort has refused should have been.
func withPort(s string) string {
	s = strings.TrimSuffix(s, ":")
	if i := strings.LastIndexByte(s, ':'); i >= 0 && isDigits(s[i+1:]) {
		if ip, err := netip.ParseAddr(s[:i]); err == nil && ip.Is6() {
			return bracket(s[:i]) + s[i:]
		}
	}
	if strings.HasPrefix(s, "[") {
		return s + ":PORT"
	}
	return bracket(s) + ":PORT"
}

func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// resolve makes a path absolute: a relative one starts at dir.
func resolve(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
