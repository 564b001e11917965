package main

import (
	"encoding/json"
	"net"
	"regexp"
	"testing"

	"github.com/sockd/sockd/supervisor"
)

func TestSocketsSaysWhatWaits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.toml", `
[service]
exec = ["sleep", "1000"]
start = "boot"
instances = 2
[socket.http]
listen = "tcp://127.0.0.1:0"
per_instance = true
backlog = 7
[socket.ctl]
listen = "unix://./ctl.sock"
`)
	if _, stderr, code := sockd(t, dir, "sockets"); code != exitNotRunning {
		t.Errorf("nobody runs: code %d, %s", code, stderr)
	}
	r := start(t, dir, "run", "web.toml")
	r.line("web@2 ready")
	list := func(args ...string) (all []supervisor.SocketStatus) {
		stdout, stderr, code := sockd(t, dir, append([]string{"sockets", "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(stdout), &all); code != exitDone || err != nil {
			t.Fatalf("code %d, %v, %s\n%s", code, err, stderr, stdout)
		}
		return all
	}
	all := list("web")
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	for range 5 { // nobody accepts them
		c, err := net.Dial("tcp", all[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "all have come", func() bool { // a client may know of it a little earlier
		all = list()
		return all[0].Queued+all[1].Queued >= 5
	})
	if all[0].Queued+all[1].Queued != 5 || all[0].Backlog != 7 || all[0].Inode == 0 || all[0].Inode == all[1].Inode || all[0].Held != "listen/web/http@1" || all[2].Name != "ctl" {
		t.Errorf("%+v", all)
	}
	stdout, _, _ := sockd(t, dir, "sockets")
	for _, want := range []string{
		`(?m)^UNIT +NAME +ADDRESS +QUEUED +DROPS +STEERING +WEIGHT +INODE +HELD$`,
		`(?m)^web@2 +http +tcp://127\.0\.0\.1:\d+ +\d of 7 +0 +(ebpf|classic-bpf|hash|-) +(1|-) +\d+ +listen/web/http@2$`,
		`(?m)^web +ctl +unix://\S+ctl\.sock +0( of \d+)? +0 +- +- +\d+ +listen/web/ctl$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no line like %s in\n%s", want, stdout)
		}
	}
	if _, stderr, code := sockd(t, dir, "sockets", "nobody"); code != exitNoUnit {
		t.Errorf("an unknown unit: code %d, %s", code, stderr)
	}
}
