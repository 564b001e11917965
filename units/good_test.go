package units

import (
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

// unit makes the wanted Unit from what is not at its default.
func unit(service *Service, sockets ...Socket) *Unit {
	return &Unit{Name: "web", File: "/etc/sockd/web.toml", Dir: "/etc/sockd", Service: service, Sockets: sockets}
}

func service(change func(*Service)) *Service {
	s := newService()
	s.Directory = "/etc/sockd"
	change(s)
	return s
}

func socket(name string, change func(*Socket)) Socket {
	s := newSocket(name)
	change(s)
	return *s
}

func TestGoodUnits(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       *Unit
	}{
		{
			"the shortest", `
[service]
exec = "./hello"
[socket.http]
listen = ":8080"
`,
			unit(service(func(s *Service) { s.Exec, s.Start = []string{"/etc/sockd/hello"}, Demand }),
				socket("http", func(s *Socket) { s.Listen = []Address{{"tcp", ":8080"}} })),
		},
		{
			"no socket", `
service.exec = "web --port 80 'a b' c\\ d"
`,
			unit(service(func(s *Service) { s.Exec, s.Start = []string{"web", "--port", "80", "a b", "c d"}, Boot })),
		},
		{
			"no service, inline, file order kept", `
x-note = { any = ["thing"] }
socket = { b = { listen = "8080" }, a = { listen = ["unix://@a", "./a.sock", "/run/../a.sock"], x-mine = 1 } }
`,
			unit(nil,
				socket("b", func(s *Socket) { s.Listen = []Address{{"tcp", ":8080"}} }),
				socket("a", func(s *Socket) {
					s.Listen = []Address{{"unix", "@a"}, {"unix", "/etc/sockd/a.sock"}, {"unix", "/a.sock"}}
				})),
		},
		{
			"every key of the service", `
[service]
exec = ["../bin/web", "-v", ""]
directory = "data"
environment_files = ["env", "-/etc/default/web"]
inherit_environment = false
user = "www-data"
group = "33"
umask = "0027"
start = "boot"
instances = 1024
ready = "notify"
start_timeout = "0s"
stop_timeout = "1h30m"
stop_signal = "SIGQUIT"
reload_signal = "SIGRTMIN+3"
watchdog = "1.5s"
restart = "always"
restart_delay = "0s"
restart_delay_max = "1ms"
restart_reset = "1m"
overlap = false
step = 4
cpu = "spread"
fd_store_max = 1024
fd_store_preserve = "yes"
essential = true
[service.environment]
Z = "z # no comment"
A = ""
`,
			unit(&Service{
				Exec: []string{"/etc/bin/web", "-v", ""}, Directory: "/etc/sockd/data",
				Environment: []string{"Z=z # no comment", "A="}, EnvironmentFiles: []string{"/etc/sockd/env", "-/etc/default/web"},
				User: "www-data", Group: "33", Umask: 0o027, Start: Boot, Instances: 1024, Ready: ReadyNotify,
				StopTimeout: 90 * time.Minute, StopSignal: syscall.SIGQUIT, ReloadSignal: 37, Watchdog: 1500 * time.Millisecond,
				Restart: Always, RestartDelayMax: time.Millisecond, RestartReset: time.Minute, Essential: true,
				Overlap: false, OverlapTime: 20 * time.Millisecond, Step: 4, CPU: Spread, FDStoreMax: 1024, FDStorePreserve: PreserveYes,
			}),
		},
		{
			"an old process that stays", "service = { exec = 'web', overlap_time = '5s' }",
			unit(service(func(s *Service) { s.Exec, s.Start, s.OverlapTime = []string{"web"}, Boot, 5*time.Second })),
		},
		{
			"a gate with every key", `
[service]
exec = "web"
[service.ready]
http = "/healthz?full=1"
interval = "1ms"
timeout = "1.5s"
x-why = ["ours"]
`,
			unit(service(func(s *Service) {
				s.Exec, s.Start, s.Ready = []string{"web"}, Boot, ReadyHTTP
				s.Gate = &Gate{HTTP: "/healthz?full=1", Interval: time.Millisecond, Timeout: 1500 * time.Millisecond}
			})),
		},
		{
			"a gate that connects", "service = { exec = 'web', ready = { tcp = true } }",
			unit(service(func(s *Service) {
				s.Exec, s.Start, s.Ready = []string{"web"}, Boot, ReadyTCP
				s.Gate = &Gate{TCP: true, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second}
			})),
		},
		{
			"a gate that runs a command", `
service.exec = "web"
service.ready.command = "./check 'a b'"
[socket.ready]
listen = ":80"
`,
			unit(service(func(s *Service) {
				s.Exec, s.Start, s.Ready = []string{"web"}, Demand, ReadyCommand
				s.Gate = &Gate{Command: []string{"/etc/sockd/check", "a b"}, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second}
			}), socket("ready", func(s *Socket) { s.Listen = []Address{{"tcp", ":80"}} })),
		},
		{
			"every key of a socket", `
[service]
exec = "web"
non_blocking = true
[socket."all keys"]
listen = ["tcp://[0:0::0]:0443", "/run/web.sock"]
reuse_addr = false
backlog = 65535
ipv6_only = true
free_bind = true
transparent = true
bind_to_device = "eth0"
mark = 0
priority = 6
receive_buffer = "1GiB"
send_buffer = "64KiB"
keep_alive = true
no_delay = true
defer_accept = "1s"
fast_open = 16
ip_tos = 0
ip_ttl = 255
mode = "660"
user = "0"
group = "adm"
directory_mode = "0700"
optional = ["mark", "ip_tos"]
[socket.game]
listen = ["udp://:7000", "tcp://:7000"]
per_instance = true
flows = "sticky"
flows_timeout = "30s"
flows_max = 1000
[socket.udp]
listen = "udp4://224.0.0.251:5353"
per_instance = true
reuse_port = true
reuse_addr = true
non_blocking = false
`,
			unit(service(func(s *Service) { s.Exec, s.Start = []string{"web"}, Demand }),
				Socket{
					Name: "all keys", Listen: []Address{{"tcp", "[::]:443"}, {"unix", "/run/web.sock"}},
					ReuseAddr: ptr(false), NonBlocking: true, Backlog: 65535, IPv6Only: true, FreeBind: true, Transparent: true,
					BindToDevice: "eth0", Mark: ptr(0), Priority: ptr(6), ReceiveBuffer: 1 << 30, SendBuffer: 64 << 10,
					KeepAlive: true, NoDelay: true, DeferAccept: time.Second, FastOpen: 16, IPTOS: ptr(0), IPTTL: ptr(255),
					Mode: 0o660, User: "0", Group: "adm", DirectoryMode: 0o700, Optional: []string{"mark", "ip_tos"},
				},
				socket("game", func(s *Socket) {
					s.Listen, s.PerInstance = []Address{{"udp", ":7000"}, {"tcp", ":7000"}}, true
					s.Flows, s.FlowsTimeout, s.FlowsMax, s.NonBlocking = Sticky, 30*time.Second, 1000, true
				}),
				socket("udp", func(s *Socket) {
					s.Listen, s.PerInstance, s.ReusePort, s.ReuseAddr = []Address{{"udp4", "224.0.0.251:5353"}}, true, true, ptr(true)
				})),
		},
		{
			"strings of all kinds, CRLF and a byte order mark",
			"\uFEFF[service]\r\nexec = '''\r\n  web\r\n  \"-v\"'''\r\nenvironment.A = \"\"\"\r\na \\\r\n   b\"\"\"\r\n",
			unit(service(func(s *Service) {
				s.Exec, s.Start, s.Environment = []string{"web", "-v"}, Boot, []string{"A=a b"}
			})),
		},
		{
			"a table defined after its child, and quoted keys", `
["socket"."h\u0074tp"] # http
listen = ":80"
["service"]
'exec' = "web"
`,
			unit(service(func(s *Service) { s.Exec, s.Start = []string{"web"}, Demand }),
				socket("http", func(s *Socket) { s.Listen = []Address{{"tcp", ":80"}} })),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := Parse("/etc/sockd/web.toml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(u, tt.want) {
				t.Errorf("\n got %+v %+v\nwant %+v %+v", u, u.Service, tt.want, tt.want.Service)
			}
			roundTrip(t, u)
		})
	}
}

// roundTrip writes a unit and reads it back.
func roundTrip(t *testing.T, u *Unit) {
	t.Helper()
	text, err := u.TOML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(u.File, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if changes := Compare(&Set{[]*Unit{u}}, &Set{[]*Unit{again}}); changes != nil || !reflect.DeepEqual(u, again) {
		t.Errorf("not the same when read again: %+v\n%s\n got %+v\nwant %+v", changes, text, again, u)
	}
}

func TestTOMLSaysOnlyWhatIsNotDefault(t *testing.T) {
	u := unit(service(func(s *Service) {
		s.Exec, s.Start, s.Environment = []string{"./a b", "-v"}, Demand, []string{"A=1", "B=2", "A=3"}
	}), socket("my web", func(s *Socket) { s.Listen, s.Mark = []Address{{"tcp", ":80"}}, ptr(0) }))
	want := `[service]
exec = ["./a b", "-v"]

[service.environment]
B = "2"
A = "3"

[socket."my web"]
listen = "tcp://:80"
mark = 0
`
	if got, err := u.TOML(); string(got) != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	u.File = "" // it will be in a folder we do not know
	if got, _ := u.TOML(); !contains(got, `directory = "/etc/sockd"`) {
		t.Errorf("no directory in %s", got)
	}
	u.Service.Exec = []string{"web", "\xff"}
	if got, err := u.TOML(); err == nil {
		t.Errorf("bytes that are not UTF-8 became %s", got)
	}
}

func TestLoadReadsFoldersInOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.toml", "service.exec = \"b\"")
	write(t, dir, "a.toml", "service.exec = \"a\"")
	write(t, dir, ".hidden.toml", "not TOML")
	write(t, dir, "notes.txt", "not TOML")
	extra := write(t, t.TempDir(), "aa.toml", "service.exec = \"aa\"")
	set, err := Load(dir, extra, filepath.Join(dir, "a.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range set.Units {
		got = append(got, u.Name)
	}
	if want := []string{"a", "aa", "b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if u := set.Unit("aa"); u == nil || u.Dir != filepath.Dir(extra) || u.File != extra {
		t.Errorf("aa is %+v", u)
	}
	if u := set.Unit("c"); u != nil {
		t.Errorf("c is %+v", u)
	}
}

func TestLoadReportsAllFilesAtOnce(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, dir, "a.toml", "[service]\nexec = 3\nwatchdog = 3")
	write(t, dir, "b.toml", "[service]\nexec = ")
	write(t, dir, "c.toml", "[service]\nexec = \"c\"")
	_, err := Load("gone.toml", ".", "gone")
	want := `a.toml:2:8: service.exec: want a string or an array of strings, read the number 3
a.toml:3:12: service.watchdog: want a duration, read the number 3 (write "3s")
b.toml:2:8: a value is missing
gone: no such file or directory
gone.toml: no such file or directory`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
