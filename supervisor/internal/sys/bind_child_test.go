package sys

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// A bindJob is what a child binds, as whom.
type bindJob struct {
	UID              int // -1: as the test
	Network, Address string
	Options          Options
}

// A bindOutcome is what came of it. The child holds the socket until stdin ends.
type bindOutcome struct {
	Pid      int
	Address  string
	Warnings []string
	Err      string
}

func init() {
	roles["bind"] = func() int {
		var job bindJob
		in := json.NewDecoder(os.Stdin)
		if err := in.Decode(&job); err != nil {
			return 2
		}
		out := bindOutcome{Pid: os.Getpid()}
		if job.UID >= 0 {
			if err := syscall.Setgid(job.UID); err != nil {
				return 3
			}
			if err := syscall.Setuid(job.UID); err != nil {
				return 3
			}
		}
		b, err := Bind(job.Network, job.Address, job.Options)
		if err != nil {
			out.Err = err.Error()
		} else {
			out.Address, out.Warnings = b.Address, b.Warnings
		}
		json.NewEncoder(os.Stdout).Encode(out)
		io.Copy(io.Discard, io.MultiReader(in.Buffered(), os.Stdin))
		return 0
	}
}

// bindElsewhere lets a child bind; it ends with the test, or by the function returned.
func bindElsewhere(t *testing.T, job bindJob) (bindOutcome, func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// The race detector would else wait a second at the end of each child.
	cmd.Env = append(os.Environ(), roleEnv+"=bind", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			stdin.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	text, _ := json.Marshal(job)
	fmt.Fprintf(stdin, "%s\n", text)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
	var out bindOutcome
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		t.Fatal(err)
	}
	return out, end
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: binds as another user")
	}
}

// none are the options of a unit that asks for nothing.
func none() Options { return Options{UID: -1, GID: -1} }

func mustBind(t testing.TB, network, address string, o Options) *Bound {
	t.Helper()
	b, err := Bind(network, address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.close()
	})
	return b
}

// close closes the socket once and removes its path.
func (b *Bound) close() {
	if b.FD >= 0 {
		syscall.Close(b.FD)
		b.FD = -1
	}
	if b.Path != nil {
		b.Path.Remove()
	}
}
