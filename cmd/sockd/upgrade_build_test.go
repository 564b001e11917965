package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Services of the upgrade's tests: the test binary in a role.
func init() {
	switch os.Getenv("TEST_UPGRADE_ROLE") {
	case "only":
		only()
	case "brief":
		born()
		os.Exit(3)
	}
}

// only takes an exclusive lock, for it must be the only one of its instance, and
// answers every connection with its pid. A second copy says so in a file.
func only() {
	place := os.Getenv("TEST_PLACE") + "-" + os.Getenv("SOCKD_INSTANCE")
	lock, err := os.OpenFile(place+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		os.WriteFile(place+".second", []byte(err.Error()), 0o600)
		os.Exit(99)
	}
	born()
	ln, err := net.FileListener(os.NewFile(3, ""))
	if err != nil {
		os.Exit(98)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	if c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
		c.Write([]byte("READY=1"))
		c.Close()
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			os.Exit(97)
		}
		fmt.Fprintf(c, "%d\n", os.Getpid())
		c.Close()
	}
}

// born adds this process to the list of those that have been.
func born() {
	f, err := os.OpenFile(os.Getenv("TEST_PLACE")+".births", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(96)
	}
	fmt.Fprintf(f, "%d\n", os.Getpid())
}

// births are the processes that have been, of the service at place.
func births(place string) []string {
	text, _ := os.ReadFile(place + ".births")
	return strings.Fields(string(text))
}

// variants are builds of the command; they last as long as the test binary.
var variants struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// variant builds the command as that version. A build that is called broken behaves
// as the name says under which its file is started.
func variant(t *testing.T, version string, broken bool) string {
	t.Helper()
	variants.Lock()
	defer variants.Unlock()
	key := fmt.Sprint(version, broken)
	if file := variants.built[key]; file != "" {
		return file
	}
	if variants.dir == "" {
		dir, err := os.MkdirTemp("", "sockd-variants-")
		if err != nil {
			t.Fatal(err)
		}
		variants.dir, variants.built = dir, map[string]string{}
	}
	file := filepath.Join(variants.dir, "sockd-"+key)
	args := []string{"build", "-buildvcs=false", "-ldflags", "-s -w -X main.buildVersion=" + version, "-o", file}
	if broken {
		source, overlay := filepath.Join(variants.dir, "broken.go"), filepath.Join(variants.dir, "overlay.json")
		here, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		list, _ := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "broken.go"): source}})
		if err := os.WriteFile(source, []byte(brokenSource), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(overlay, list, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	variants.built[key] = file
	return file
}

// brokenSource is one more file of the command, for files that do not work.
const brokenSource = `package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

func init() {
	file, _ := os.Executable()
	asked := len(os.Args) == 2 && os.Args[1] == "--handshake"
	b := build()
	switch name := filepath.Base(file); {
	case name == "wire" && asked:
		b.Wire++
	case name == "state" && asked:
		b.State++
	case name == "keeper" && asked:
		b.Keeper++
	case name == "mute" && asked:
		os.Exit(0)
	case name == "crash" && asked:
		panic("asked")
	case name == "hang" && asked:
		time.Sleep(time.Hour)
	case name == "dies" && os.Getenv("SOCKD_KEEPER_FD") != "": // as a supervisor
		os.Exit(7)
	case name == "stranger" && os.Getenv("SOCKD_HANDOVER_FD") != "": // as a keeper
		os.Args = []string{"sockd", "nonsense"}
		return
	default:
		return
	}
	json.NewEncoder(os.Stdout).Encode(b)
	os.Exit(0)
}
`

// as makes file known under another name, which is its behaviour if it is broken.
func as(t *testing.T, file, name string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), name)
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// startFile runs a build of the command until the test ends.
func startFile(t *testing.T, dir, file string, args ...string) *running {
	t.Helper()
	cmd := command(t, dir, args...)
	cmd.Path = file
	return begin(t, cmd)
}

// upgradeUnits are services for which an upgrade must be nothing.
func upgradeUnits(t *testing.T, dir string) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	role := func(name, role string) string {
		return fmt.Sprintf("[service]\nexec = [%q]\nenvironment = { TEST_UPGRADE_ROLE = %q, TEST_PLACE = %q }\n", exe, role, filepath.Join(dir, name))
	}
	write(t, dir, "web.toml", role("web", "only")+"ready = \"notify\"\n[socket.s]\nlisten = \"tcp://127.0.0.1:0\"\n")
	write(t, dir, "pair.toml", role("pair", "only")+"instances = 2\nstart = \"boot\"\nready = \"notify\"\n[socket.s]\nlisten = \"tcp://127.0.0.1:0\"\nper_instance = true\n")
	write(t, dir, "path.toml", role("path", "only")+"start = \"boot\"\nready = \"notify\"\n[socket.s]\nlisten = \"unix://./path.sock\"\n")
	write(t, dir, "brief.toml", role("brief", "brief")+"restart = \"always\"\nrestart_delay = \"5ms\"\nrestart_delay_max = \"20ms\"\n")
}
