package examples

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Programs that know nothing of sockd, unchanged, on sockets that sockd holds. Each is
// installed by Debian's package of that name, or the test is skipped.

// A peer is a program and how it is told to take its socket.
type peer struct {
	name    string
	program string            // looked up in PATH, /usr/sbin and /lib/systemd
	unit    string            // PROGRAM, DIR and PORT are filled in
	files   map[string]string // in the unit's folder; filled in alike
	answer  string            // what it answers
}

var peers = []peer{
	{
		name: "gunicorn", program: "gunicorn", answer: "hello from gunicorn",
		// It reads LISTEN_FDS and says READY=1 by itself.
		unit: `
[service]
exec  = ["PROGRAM", "--workers=2", "--log-level=warning", "app:app"]
ready = "notify"

[socket.http]
listen = "tcp://127.0.0.1:PORT"
`,
		files: map[string]string{"app.py": `
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from gunicorn"]
`},
	},
	{
		name: "nginx", program: "nginx", answer: "hello from nginx",
		// It takes descriptors from the variable that it uses for its own upgrades, and
		// expects them to be as it would have made them: non-blocking.
		unit: `
[service]
exec        = ["PROGRAM", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf"]
stop_signal = "SIGQUIT"

[service.environment]
NGINX = "3;"

[socket.http]
listen       = "tcp://127.0.0.1:PORT"
non_blocking = true
`,
		files: map[string]string{"nginx.conf": `
daemon off;
worker_processes 2;
pid DIR/nginx.pid;
error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
	server { listen 127.0.0.1:PORT; location / { return 200 "hello from nginx"; } }
}
`},
	},
	{
		name: "lighttpd", program: "lighttpd", answer: "hello from lighttpd",
		unit: `
[service]
exec = ["PROGRAM", "-D", "-f", "DIR/lighttpd.conf"]

[socket.http]
listen = "tcp://127.0.0.1:PORT"
`,
		files: map[string]string{"lighttpd.conf": `
server.systemd-socket-activation = "enable"
server.bind = "127.0.0.1"
server.port = PORT
server.document-root = "DIR"
index-file.names = ("page.txt")
`, "page.txt": "hello from lighttpd"},
	},
	{
		name: "node", program: "node", answer: "hello from node",
		unit: `
[service]
exec = ["PROGRAM", "server.js"]

[socket.http]
listen = "tcp://127.0.0.1:PORT"
`,
		files: map[string]string{"server.js": `
const server = require("http").createServer((req, res) => res.end("hello from node"));
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
`},
	},
}

// find looks where the packages put their programs.
func find(t *testing.T, program string) string {
	t.Helper()
	for _, candidate := range []string{program, "/usr/sbin/" + program, "/usr/lib/systemd/" + program, "/lib/systemd/" + program} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", program)
	return ""
}

func TestPeers(t *testing.T) {
	for _, peer := range peers {
		t.Run(peer.name, func(t *testing.T) {
			served(t, peer, nil)
		})
	}
}

// systemd-socket-proxyd forwards to a server that listens by itself.
func TestSocketProxyd(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello from behind")
	})}
	go srv.Serve(backend)
	defer srv.Close()
	served(t, peer{
		name: "proxyd", program: "systemd-socket-proxyd", answer: "hello from behind",
		unit: `
[service]
exec = ["PROGRAM", "BACKEND"]

[socket.http]
listen = "tcp://127.0.0.1:PORT"
`}, []string{"BACKEND", backend.Addr().String()})
}

// served runs the peer under sockd: the first request starts it, a crowd is answered,
// its end leaves nothing, and the port was sockd's: the peer had none to bind.
func served(t *testing.T, peer peer, more []string) {
	t.Helper()
	program := find(t, peer.program)
	dir, err := os.MkdirTemp("", "sockd-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{dir: dir, name: peer.name, ports: strings.NewReplacer()}
	p.link(t)
	folder := filepath.Join(dir, "examples", peer.name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	fill := strings.NewReplacer(append(more, "PROGRAM", program, "DIR", folder, "PORT", port)...)
	peer.unit = strings.TrimPrefix(peer.unit, "\n")
	for name, text := range peer.files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(fill.Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, peer.name+".toml"), []byte(fill.Replace(peer.unit)), 0o644); err != nil {
		t.Fatal(err)
	}
	sockd := p.run(t, peer.name+".toml")
	var crowd sync.WaitGroup
	for range 8 {
		crowd.Go(func() {
			for range 25 {
				if answer, err := get("127.0.0.1:" + port); err != nil || answer != peer.answer {
					t.Errorf("got %q, %v", answer, err)
					return
				}
			}
		})
	}
	crowd.Wait()
	out, err := p.command("bin/sockd", "status", "-o", "json").Output()
	var status []struct{ Instances []struct{ Starts int } }
	if err == nil {
		err = json.Unmarshal(out, &status)
	}
	if err != nil || len(status) != 1 || len(status[0].Instances) != 1 || status[0].Instances[0].Starts != 1 {
		t.Errorf("want one unit, one instance, one start: %v\n%s", err, out)
	}
	p.finish(t, sockd)
}
