package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// sockets are one of each kind, in this order: web (tcp), api (unix), pkt
// (unixpacket), dns (udp), log (unixgram), dns (tcp).
type sockets struct {
	web, api, pkt, dnsStream net.Listener
	dns, log                 net.PacketConn
	files                    []*os.File
}

const socketNames = "LISTEN_FDNAMES=web:api:pkt:dns:log:dns"

func listenAll(t *testing.T) *sockets {
	t.Helper()
	dir := t.TempDir()
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	listenPacket := func(network, address string) net.PacketConn {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	s := &sockets{
		web: listen("tcp", "127.0.0.1:0"), api: listen("unix", filepath.Join(dir, "api")), pkt: listen("unixpacket", filepath.Join(dir, "pkt")),
		dns: listenPacket("udp", "127.0.0.1:0"), log: listenPacket("unixgram", filepath.Join(dir, "log")), dnsStream: listen("tcp", "127.0.0.1:0"),
	}
	for _, f := range []any{s.web, s.api, s.pkt, s.dns, s.log, s.dnsStream} {
		s.files = append(s.files, file(t, f))
	}
	return s
}

// echo answers once on every socket it was given, saying by which name.
func echo() error {
	names, err := Names()
	if err != nil {
		return err
	}
	done := map[string]bool{}
	var wg sync.WaitGroup
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		ls, err := Listeners(name)
		if err == nil {
			for _, l := range ls {
				wg.Go(func() { acceptOnce(name, l) })
			}
		}
		cs, errPacket := PacketConns(name)
		if errPacket == nil {
			for _, c := range cs {
				wg.Go(func() { receiveOnce(name, c) })
			}
		}
		if err != nil && errPacket != nil {
			return errors.Join(err, errPacket)
		}
	}
	fmt.Println("serving")
	wg.Wait()
	return nil
}

func acceptOnce(name string, l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Fprint(c, "hello from ", name)
	c.Close()
	l.Close()
}

func receiveOnce(name string, c net.PacketConn) {
	b := make([]byte, 100)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	c.WriteTo(fmt.Appendf(nil, "%s for %s", b[:n], name), from)
	c.Close()
}

func TestEverySocketWorksInTheChild(t *testing.T) {
	s := listenAll(t)
	c := start(t, "echo", s.files, "LISTEN_PID=self", "LISTEN_FDS=6", socketNames)
	if got := c.line(t); got != "serving" {
		t.Fatal(got)
	}
	for name, l := range map[string]net.Listener{"web": s.web, "api": s.api, "pkt": s.pkt, "dns": s.dnsStream} {
		if got := dialed(t, l.Addr(), ""); got != "hello from "+name {
			t.Errorf("%s answered %q", name, got)
		}
	}
	for name, p := range map[string]net.PacketConn{"dns": s.dns, "log": s.log} {
		if got := dialed(t, p.LocalAddr(), "datagram"); got != "datagram for "+name {
			t.Errorf("%s answered %q", name, got)
		}
	}
	if rest := c.rest(t); rest != "" {
		t.Error(rest)
	}
	for _, l := range []net.Listener{s.api, s.pkt} {
		if _, err := os.Stat(l.Addr().String()); err != nil {
			t.Error("the child closed its listener and removed our path:", err)
		}
	}
	if _, err := net.Dial("tcp", s.web.Addr().String()); err != nil {
		t.Error("the child's close reached our socket:", err)
	}
}

// dialed returns the first answer from addr, after sending text if there is one.
func dialed(t *testing.T, addr net.Addr, text string) string {
	t.Helper()
	var local net.Addr
	if addr.Network() == "unixgram" { // a reply needs an address
		local = &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "me")}
	}
	c, err := (&net.Dialer{LocalAddr: local}).DialContext(limited(t), addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline, _ := limited(t).Deadline()
	c.SetDeadline(deadline)
	if text != "" {
		fmt.Fprint(c, text)
	}
	b := make([]byte, 200)
	n, err := c.Read(b)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b[:n])
}

// ask calls what the variable ASK says and prints each error.
func ask() error {
	for word := range strings.FieldsSeq(os.Getenv("ASK")) {
		what, name, _ := strings.Cut(word, ":")
		n, err := 0, error(nil)
		switch what {
		case "listeners":
			var got []net.Listener
			got, err = Listeners(name)
			n = len(got)
		case "packets":
			var got []net.PacketConn
			got, err = PacketConns(name)
			n = len(got)
		case "files":
			var got []*os.File
			got, err = Files()
			n = len(got)
		case "stored":
			var got []*os.File
			got, err = Stored(name)
			n = len(got)
		case "listen":
			_, err = Listen(context.Background(), name, "tcp", "127.0.0.1:0")
			n = 1
		case "listenpacket":
			_, err = ListenPacket(context.Background(), name, "udp", "127.0.0.1:0")
			n = 1
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println(n)
		}
	}
	return nil
}

// alien is a socket that package net cannot use: netlink(7).
func alien(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestAnswers(t *testing.T) {
	s := listenAll(t)
	web, dns := s.web.Addr(), s.dns.LocalAddr()
	plain, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	client, err := net.Dial("tcp", web.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	connection := file(t, client)
	given := func(n string, names string) []string {
		return []string{"LISTEN_PID=self", "LISTEN_FDS=" + n, "LISTEN_FDNAMES=" + names}
	}
	for _, tt := range []struct {
		name  string
		ask   string
		files []*os.File
		env   []string
		want  []string
	}{
		{"by name", "listeners:web listeners:dns packets:dns", s.files, given("6", "web:api:pkt:dns:log:dns"), []string{"1", "1", "1"}},
		{"by any name", "listeners: packets:", s.files, given("6", "web:api:pkt:dns:log:dns"), []string{"4", "2"}},
		{"two of a name", "listeners:a", s.files[:2], given("2", "a:a"), []string{"2"}},
		{"one after the other", "listen:a listen:a listen:a", s.files[:2], given("2", "a:a"), []string{"1", "1",
			"activation: socket a (tcp " + web.String() + "), a (unix " + s.api.Addr().String() + ") was handed out before"}},
		{"twice", "listeners:a listeners:a", s.files[:1], given("1", "a"), []string{"1", "activation: socket a (tcp " + web.String() + ") was handed out before"}},
		{"no such name", "listeners:http listen:http", s.files[:2], given("2", "web:api"), []string{
			`activation: no socket is called "http": there is web, api`, `activation: no socket is called "http": there is web, api`}},
		{"no names", "listeners:http listeners:unknown", s.files[:1], []string{"LISTEN_PID=self", "LISTEN_FDS=1"}, []string{
			`activation: no socket is called "http": there is unknown`, "1"}},
		{"datagrams are no stream", "listeners:dns packets:dns", s.files[3:4], given("1", "dns"), []string{
			"activation: no listener, but dns (udp " + dns.String() + "): use PacketConns", "1"}},
		{"a stream is no datagrams", "packets:web", s.files[:1], given("1", "web"), []string{
			"activation: no datagram socket, but web (tcp " + web.String() + "): use Listeners"}},
		{"a file", "listeners:x packets:x files", []*os.File{plain}, given("1", "x"), []string{
			"activation: socket x (not a socket): use Files for it", "activation: socket x (not a socket): use Files for it", "1"}},
		{"a connection", "listeners:x", []*os.File{connection}, given("1", "x"), []string{
			"activation: socket x (a stream socket that does not listen): use Files for it"}},
		{"a file beside listeners", "listeners: files files", []*os.File{plain, s.files[0]}, given("2", "x:web"), []string{
			"1", "1", "activation: every descriptor was handed out before"}},
		{"fewer than promised", "listeners:web files", s.files[:1], given("2", "web:api"), []string{
			"activation: LISTEN_FDS says 2, but descriptor 4 is not open", "activation: LISTEN_FDS says 2, but descriptor 4 is not open"}},
		{"names do not match", "listeners:web", s.files[:1], given("1", "web:api"), []string{
			`activation: LISTEN_FDNAMES="web:api" has 2 names and LISTEN_FDS says 1`}},
		{"a file, by any name", "listeners: packets: listen:", []*os.File{plain}, given("1", "x"), slices.Repeat([]string{
			"activation: no socket was passed, but [x (not a socket)]: use Files"}, 3)},
		{"of a family that net has not", "listeners:n listeners: packets: files", []*os.File{alien(t), s.files[0], s.files[3]}, given("3", "n:web:dns"), []string{
			"activation: socket n (a socket of address family 16, which package net has not): use Files for it", "1", "1", "1"}},
		{"only what was stored: by itself", "listeners:http listen:http listenpacket:dns listen: files", []*os.File{plain, connection}, append(given("2", "x:y"), "FDSTORE=9"), []string{
			ErrNotActivated.Error(), "1", "1", "1", "2"}},
		{"only what was stored: by that name", "listen:x", []*os.File{plain}, append(given("1", "x"), "FDSTORE=9"), []string{
			"activation: socket x (not a socket): use Files for it"}},
		{"stored listeners of its own", "listen:http stored:mine listen:http listen: listen:mine", s.files[:1], append(given("1", "mine"), "FDSTORE=9"), []string{
			`activation: no socket is called "http": there is mine`, "1", "1", "1", "activation: socket mine (tcp " + web.String() + ") was handed out before"}},
		{"what was stored beside a socket", "listen:http stored:x listen:http listen:web", []*os.File{s.files[0], plain}, append(given("2", "web:x"), "FDSTORE=9"), []string{
			`activation: no socket is called "http": there is web, x`, "1", `activation: no socket is called "http": there is web, x`, "1"}},
		{"none, by itself", "listeners:web listen:web listenpacket:web", nil, nil, []string{ErrNotActivated.Error(), "1", "1"}},
		{"for another, by itself", "listen:web", nil, []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, []string{"1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := start(t, "ask", tt.files, append(tt.env, "ASK="+tt.ask)...).rest(t)
			// A descriptor the runtime opened early may stand where nothing was passed.
			got = strings.ReplaceAll(got, "is this process's own (taken before by other code?)", "is not open")
			if want := strings.Join(tt.want, "\n") + "\n"; got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}
