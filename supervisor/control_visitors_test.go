package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// Connections that ask nothing make way for new ones, the oldest first; those that are
// being answered stay; and when these are many, no more that take long are added.
func TestVisitorsAtTheControlSocket(t *testing.T) {
	c := newVisitors()
	c.most = 8
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	leave := make(chan struct{})
	server := &http.Server{ConnState: c.changed, Handler: c.admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" {
			http.NewResponseController(w).Flush()
			<-leave
		}
		fmt.Fprint(w, "answered")
	}))}
	go server.Serve(ln)
	defer server.Close()
	defer close(leave)

	dial := func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(path string) (net.Conn, int) {
		t.Helper()
		conn := dial()
		conn.SetReadDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: sockd\r\n\r\n", path)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return conn, res.StatusCode
	}
	closed := func(conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("an old connection is not closed: %v", err)
		}
	}
	var idle, long []net.Conn
	for range 8 {
		idle = append(idle, dial())
	}
	for i := range 6 {
		conn, status := ask("/v1/events")
		if status != http.StatusOK {
			t.Fatalf("long request %d: %d", i, status)
		}
		closed(idle[i])
		long = append(long, conn)
	}
	if _, status := ask("/v1/events"); status != http.StatusServiceUnavailable {
		t.Errorf("one request too many that takes long: %d", status)
	}
	closed(idle[6])
	for range 20 {
		if _, status := ask("/v1/units"); status != http.StatusOK {
			t.Fatalf("a short request: %d", status)
		}
	}
	closed(idle[7])
	for i, conn := range long {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1<<10)); err == io.EOF {
			t.Errorf("long request %d was closed", i)
		}
	}
	t.Logf("promise N9: with 6 long requests under way and connections that ask nothing, 20 of 20 short requests were answered")
}
