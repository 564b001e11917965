package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A crew is processes without sockd, replaced by the test as other tools do it: the
// peers that sockd is measured against.
type crew struct {
	t       testing.TB
	command []string
	env     []string
	socket  *os.File // nil: each binds by itself
	members []*member
}

type member struct {
	cmd   *exec.Cmd
	ready chan error
	gone  chan struct{}
}

// newCrew starts n processes of a command and waits until they are ready.
func newCrew(t testing.TB, n int, socket *os.File, env []string, command ...string) *crew {
	t.Helper()
	c := &crew{t: t, command: command, env: env, socket: socket, members: make([]*member, n)}
	t.Cleanup(func() {
		for _, m := range c.members {
			if m != nil {
				m.cmd.Process.Kill()
				<-m.gone
			}
		}
	})
	for i := range c.members {
		var err error
		if c.members[i], err = c.start(i + 1); err == nil {
			err = <-c.members[i].ready
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// start starts a process; it is ready when it writes a byte.
func (c *crew) start(instance int) (*member, error) {
	m := &member{cmd: exec.Command(c.command[0], c.command[1:]...), ready: make(chan error, 1), gone: make(chan struct{})}
	m.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), fmt.Sprint("SOCKD_INSTANCE=", instance)}, c.env...)
	if c.socket != nil {
		m.cmd.ExtraFiles = []*os.File{c.socket}
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		var b [1]byte
		_, err := out.Read(b[:])
		m.ready <- err
		m.cmd.Wait()
		close(m.gone)
	}()
	return m, nil
}

// relieve replaces a process, the new one first.
func (c *crew) relieve(i int) error {
	old := c.members[i]
	m, err := c.start(i + 1)
	if err == nil {
		err = <-m.ready
	}
	if err != nil {
		return err
	}
	c.members[i] = m
	return old.leave(syscall.SIGTERM)
}

// leave ends a process by a signal.
func (m *member) leave(sig syscall.Signal) error {
	m.cmd.Process.Signal(sig)
	select {
	case <-m.gone:
		return nil
	case <-time.After(noAnswer):
		m.cmd.Process.Kill()
		<-m.gone
		return fmt.Errorf("pid %d does not leave at %v", m.cmd.Process.Pid, sig)
	}
}

// again ends a process by a signal and then starts the next one.
func (c *crew) again(i int, sig syscall.Signal) error {
	if err := c.members[i].leave(sig); err != nil {
		return err
	}
	m, err := c.start(i + 1)
	if err != nil {
		return err
	}
	c.members[i] = m
	return <-m.ready
}

// port is the last part of an address.
func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// A tool is a program that replaces its workers when it is told to.
type tool struct {
	address string
	pid     int
	say     string // what its clients say
}

func (p *tool) reload() error { return syscall.Kill(p.pid, syscall.SIGHUP) }

// runTool starts a tool and waits until it answers.
func runTool(t *testing.T, address, say string, name string, args ...string) *tool {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer late.Stop()
		cmd.Wait()
	})
	p := &tool{address: address, pid: cmd.Process.Pid, say: say}
	eventually(t, name+" answers", func() bool {
		y, err := (&volley{Address: address, InFlight: 1, Count: 1, Say: say}).run()
		return err == nil && y.Served == 1
	})
	return p
}

// nginx with four workers, each with a socket of its own, which it opens and closes by itself.
func nginx(t *testing.T) *tool {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		return nil
	}
	dir, address := shortDir(t), freePort(t)
	conf := write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off;
worker_processes 4;
pid %[1]s/pid;
error_log %[1]s/error crit;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen %[2]s reuseport backlog=4096; return 200 "x"; }
}
`, dir, address))
	return runTool(t, address, "GET / HTTP/1.0\r\n\r\n", program, "-p", dir, "-c", conf, "-e", dir+"/error")
}

// serverStarter is Server::Starter with one worker, which is what it has.
func serverStarter(t *testing.T) *tool {
	t.Helper()
	program, err := exec.LookPath("start_server")
	if err != nil {
		return nil
	}
	address := freePort(t)
	return runTool(t, address, "", program, "--port", address, "--interval", "1", "--", inC(t), fmt.Sprint(startUp.Milliseconds()))
}
