package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sockd/sockd/units"
)

// What a service may answer, and what is made of it.
func TestGateReadsAnyAnswer(t *testing.T) {
	address := fmt.Sprintf("%stest-%d", doorAddress, os.Getpid())
	ln, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	answers := make(chan string)
	asked := make(chan string, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				request := ""
				for !strings.HasSuffix(request, "\r\n\r\n") {
					line, err := r.ReadString('\n')
					if request += line; err != nil {
						break
					}
				}
				asked <- request
				text, endless := strings.CutSuffix(<-answers, "…")
				io.WriteString(c, text)
				for n := 0; endless && n < 1<<20 && err == nil; n++ {
					_, err = io.WriteString(c, text)
				}
				if strings.HasSuffix(text, "wait") {
					io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	for _, tt := range []struct{ name, answer, want string }{
		{"well", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"the old way", "HTTP/1.0 204 No Content\r\n\r\n", ""},
		{"elsewhere", "HTTP/1.1 302 Found\r\nLocation: http://example.invalid/\r\n\r\n", ""},
		{"a body that does not end", "HTTP/1.1 200 OK\r\n\r\nwait", ""},
		{"first a hint", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		{"unwell", "HTTP/1.1 503 Anything Else\r\n\r\n", "GET /h: 503 Service Unavailable"},
		{"not there", "HTTP/1.1 404 Not Found\r\n\r\n", "GET /h: 404 Not Found"},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "GET /h: 101 Switching Protocols"},
		{"nothing", "", "GET /h: closed without an answer"},
		{"half", "HTTP/1.1 200 OK\r\nA: b\r\n", "GET /h: closed without an answer"},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", `GET /h: malformed HTTP response "SSH-2.0-OpenSSH"`},
		{"hints without end", "HTTP/1.1 103 Early Hints\r\n\r\n…", "GET /h: closed without an answer"},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: ", "GET /h: closed without an answer"},
		{"a line without end", "HTTP/1.1 200 …", "GET /h: closed without an answer"},
		{"silence", "wait", "GET /h: no answer within 100ms"},
	} {
		g := &gate{conf: &units.Gate{HTTP: "/h", Timeout: 100 * time.Millisecond}, address: address}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- tryHTTP(ctx, g) }()
		if got, want := <-asked, "GET /h HTTP/1.1\r\nHost: sockd\r\nUser-Agent: sockd\r\nConnection: close\r\n\r\n"; got != want {
			t.Errorf("%s: asked %q", tt.name, got)
		}
		answers <- tt.answer
		if tt.name == "silence" {
			cancel() // the time is over
		}
		if got := fmt.Sprint(<-result); got != tt.want && !(tt.want == "" && got == "<nil>") {
			t.Errorf("%s: %s, want %q", tt.name, got, tt.want)
		}
		cancel()
	}
	ln.Close()
	g := &gate{conf: &units.Gate{HTTP: "/h", Timeout: time.Second}, address: address}
	if err := tryHTTP(t.Context(), g); err == nil || err.Error() != "GET /h: connect: connection refused" {
		t.Errorf("nobody listens: %v", err)
	}
}
