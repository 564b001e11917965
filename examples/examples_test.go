package examples

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// get asks over a connection of its own and returns the body.
func get(address string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// ask connects and returns all that comes until the other side closes.
func ask(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(conn)
	return string(text), err
}

func TestHello(t *testing.T) {
	p := newPlace(t, "hello")
	sockd := p.run(t, "hello.toml")
	first := p.shell(t, p.client(t)[0])
	if !regexp.MustCompile(`^hello from process \d+\n$`).MatchString(first) {
		t.Fatalf("got %q", first)
	}
	if again, err := get(p.address("8080")); err != nil || again != first {
		t.Errorf("got %q, %v; the first answer was %q", again, err, first)
	}
	var pid int
	fmt.Sscanf(first, "hello from process %d", &pid)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != filepath.Join(p.dir, "bin/hello") {
		t.Fatalf("process %d is %s, %v", pid, exe, err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "another process", func() error {
		answer, err := get(p.address("8080"))
		var refused net.Error
		if errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) && refused.Timeout() {
			t.Errorf("after a kill: %v", err)
		}
		if err != nil || answer == first { // the killed process had accepted this one
			return fmt.Errorf("%q, %v", answer, err)
		}
		return nil
	})
	p.finish(t, sockd)
	if _, err := net.Dial("tcp", p.address("8080")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end: %v", err)
	}
}

func TestPrefork(t *testing.T) {
	p := newPlace(t, "prefork")
	sockd := p.run(t, "prefork.toml")
	out := p.shell(t, p.client(t)[0])
	answers := 0
	for line := range strings.Lines(out) {
		var count, n, of, pid int
		if _, err := fmt.Sscanf(line, "%d instance %d of %d, process %d", &count, &n, &of, &pid); err != nil || n < 1 || n > 4 || of != 4 {
			t.Errorf("got %q", line)
		}
		answers += count
	}
	if answers != 40 {
		t.Errorf("%d answers of 40:\n%s", answers, out)
	}
	processes := map[int]int{} // instance → process
	eventually(t, "all four instances", func() error {
		answer, err := get(p.address("8081"))
		var n, pid int
		if _, scanErr := fmt.Sscanf(answer, "instance %d of 4, process %d", &n, &pid); err != nil || scanErr != nil {
			t.Errorf("got %q, %v", answer, err)
		}
		if before := processes[n]; before != 0 && before != pid {
			t.Errorf("instance %d was process %d and is %d", n, before, pid)
		}
		processes[n] = pid
		if len(processes) < 4 {
			return fmt.Errorf("seen: %v", processes)
		}
		return nil
	})
	p.finish(t, sockd)
}

// A turn is what one iterative server says of one connection.
type turn struct {
	label                  string
	instance, of, from, to int
}

// turns connects n clients at once.
func turns(t *testing.T, address string, n int) []turn {
	t.Helper()
	answers := make(chan string, n)
	for range n {
		go func() {
			answer, err := ask(address)
			if err != nil {
				answer = err.Error()
			}
			answers <- answer
		}()
	}
	var all []turn
	for range n {
		answer := <-answers
		var a turn
		if _, err := fmt.Sscanf(answer, "%s instance %d of %d worked from %d to %d", &a.label, &a.instance, &a.of, &a.from, &a.to); err != nil {
			t.Fatalf("got %q", answer)
		}
		all = append(all, a)
	}
	return all
}

// together counts how many worked at the same moment, at most. An instance never may.
func together(t *testing.T, all []turn) int {
	t.Helper()
	most := 0
	for _, a := range all {
		now := 0
		for _, b := range all {
			overlap := b.from <= a.from && a.from < b.to
			if overlap {
				now++
			}
			if overlap && a != b && a.instance == b.instance {
				t.Errorf("instance %d served two at once: %v, %v", a.instance, a, b)
			}
		}
		most = max(most, now)
	}
	return most
}

func TestIterative(t *testing.T) {
	p := newPlace(t, "iterative")
	sockd := p.run(t)
	for _, line := range p.client(t) {
		out := p.shell(t, line)
		if got := strings.Count(out, "worked from"); got != 4 {
			t.Errorf("%s\n%s", line, out)
		}
	}
	eventually(t, "four at once on a shared socket", func() error {
		all := turns(t, p.address("8082"), 4)
		if n := together(t, all); n != 4 || all[0].label != "shared" || all[0].of != 4 {
			return fmt.Errorf("%d at once: %v", n, all)
		}
		return nil
	})
	eventually(t, "several at once on sibling sockets", func() error {
		all := turns(t, p.address("8083"), 12)
		if n := together(t, all); n < 3 || all[0].label != "siblings" || all[0].of != 4 {
			return fmt.Errorf("%d at once: %v", n, all)
		}
		return nil
	})
	p.finish(t, sockd)
}

func TestReuseport(t *testing.T) {
	p := newPlace(t, "reuseport")
	sockd := p.run(t, "reuseport.toml")
	if answer, err := ask(p.address("8084")); err != nil || !strings.HasPrefix(answer, "inside: process ") {
		t.Fatalf("got %q, %v", answer, err)
	}
	lines := p.client(t)
	both := func(t *testing.T, outside *exec.Cmd, word string) {
		t.Helper()
		member := begin(t, outside)
		seen := map[string]bool{}
		eventually(t, word, func() error {
			answer, err := ask(p.address("8084"))
			if err != nil {
				return err
			}
			who, _, _ := strings.Cut(answer, ":")
			seen[who] = true
			if len(seen) < 2 {
				return fmt.Errorf("answers: %v; %s", seen, member.out)
			}
			return nil
		})
		if !seen["inside"] || !seen[word] {
			t.Errorf("answers: %v", seen)
		}
		answers := 0
		for line := range strings.Lines(p.shell(t, lines[1])) {
			var count int
			fmt.Sscanf(line, "%d", &count)
			if !strings.Contains(line, "inside: process") && !strings.Contains(line, word+": process") {
				t.Errorf("got %q", line)
			}
			answers += count
		}
		if answers != 20 {
			t.Errorf("%d answers of 20", answers)
		}
		member.Process.Kill()
		member.Wait()
		member.ended = true
		for range 20 {
			if answer, err := ask(p.address("8084")); err != nil || !strings.HasPrefix(answer, "inside: ") {
				t.Errorf("after its end: %q, %v", answer, err)
			}
		}
	}
	both(t, p.command(strings.Fields(lines[0])...), "outside")

	t.Run("in C", func(t *testing.T) {
		cc, err := exec.LookPath("cc")
		if err != nil {
			t.Skip("no C compiler: the README's program was not tried")
		}
		source := p.blocks(t, "c")
		if len(source) != 1 {
			t.Fatalf("%d programs in C", len(source))
		}
		if err := os.WriteFile(filepath.Join(p.dir, "join.c"), []byte(source[0]), 0o644); err != nil {
			t.Fatal(err)
		}
		compile := exec.Command(cc, "-Wall", "-Wextra", "-Werror", "-o", "join", "join.c")
		compile.Dir = p.dir
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		both(t, p.command("join", p.ports.Replace("8084")), "outside, in C")
	})
	p.finish(t, sockd)
}

func TestUDPByAddress(t *testing.T) {
	p := newPlace(t, "udp-by-address")
	sockd := p.run(t)
	want := []string{`specific: "hi" was sent to 127.0.0.1` + "\n", `wildcard: "hi" was sent to 127.0.0.2` + "\n"}
	for i, line := range p.client(t) {
		if got := p.shell(t, line); got != want[i] {
			t.Errorf("%s\ngot %q, want %q", line, got, want[i])
		}
	}
	for n := range 20 { // never the other one
		host := fmt.Sprintf("127.0.0.%d", 1+n%4)
		conn, err := net.Dial("udp4", net.JoinHostPort(host, p.ports.Replace("8085")))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(conn, n)
		b := make([]byte, 200)
		size, err := conn.Read(b) // connected: only an answer from the address we asked
		conn.Close()
		name := "wildcard"
		if host == "127.0.0.1" {
			name = "specific"
		}
		if want := fmt.Sprintf("%s: \"%d\" was sent to %s\n", name, n, host); err != nil || string(b[:size]) != want {
			t.Errorf("got %q, %v; want %q", b[:size], err, want)
		}
	}
	p.finish(t, sockd)
}

func TestMulticast(t *testing.T) {
	p := newPlace(t, "multicast")
	sockd := p.run(t, "multicast.toml")
	line := p.client(t)[0] + " 239.255.80.80:" + p.ports.Replace("8086")
	eventually(t, "three receivers", func() error {
		got := strings.Split(strings.TrimSpace(p.shell(t, line)), "\n")
		slices.Sort(got)
		var want []string
		for n := range 3 {
			want = append(want, fmt.Sprintf("instance %d of 3 got %q", n+1, "good morning"))
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	p.finish(t, sockd)
}

func TestFDPassing(t *testing.T) {
	p := newPlace(t, "fd-passing")
	sockd := p.run(t, "broker.toml")
	lines := p.client(t)
	start := func() *process {
		t.Helper()
		client := begin(t, p.command(strings.Fields(lines[0])...))
		eventually(t, "the client serves", func() error {
			if !strings.Contains(client.out.String(), "serving http on "+p.address("8087")) {
				return errors.New(client.out.String())
			}
			return nil
		})
		return client
	}
	hello := func(c *process) string {
		return fmt.Sprintf("hello from a client of the broker, process %d\n", c.Process.Pid)
	}
	client := start()
	if got := p.shell(t, lines[1]); got != hello(client) {
		t.Errorf("got %q, want %q", got, hello(client))
	}
	client.stop(t)
	// Nobody accepts; the port is open all the same, and the next client answers.
	waiting, err := net.Dial("tcp", p.address("8087"))
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	fmt.Fprint(waiting, "GET / HTTP/1.0\r\n\r\n")
	client = start()
	waiting.SetDeadline(time.Now().Add(patience))
	if answer, err := io.ReadAll(waiting); err != nil || !strings.HasSuffix(string(answer), hello(client)) {
		t.Errorf("got %q, %v", answer, err)
	}
	client.stop(t)
	p.finish(t, sockd)
}

func TestConflict(t *testing.T) {
	p := newPlace(t, "conflict")
	p.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bin/sockd", "run", "examples/conflict")
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "SOCKD_RUNTIME_DIR="+filepath.Join(p.dir, "run"))
	cmd.Path = filepath.Join(p.dir, "bin/sockd")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("got %v, want exit status 1", err)
	}
	for _, want := range []string{"examples/conflict/second.toml:6:10: ", "examples/conflict/first.toml:6:10", "of unit first, socket http", "reuse_port"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}
