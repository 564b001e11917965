package sys

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A parent that does not reap keeps nobody from knowing how its child ended.
func TestStatusOfAZombieThatIsNotOurs(t *testing.T) {
	for script, want := range map[string]Status{"exit 0": {}, "exit 41": {Code: 41}, "kill -9 $$": {Signal: 9}} {
		// The shell waits for nothing while it is a cat.
		parent := exec.Command("sh", "-c", `sh -c 'read x; `+script+`' <&3 & echo $!; exec cat`)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		parent.ExtraFiles = []*os.File{r}
		in, _ := parent.StdinPipe()
		out, _ := parent.StdoutPipe()
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(line))
		p, err := Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Pinned() {
			t.Skip("it takes pidfd")
		}
		w.WriteString("go\n")
		if err := p.WaitDead(); err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st != want {
			t.Errorf("%s: %+v, %v; want %+v", script, st, err, want)
		}
		p.Close()
		in.Close()
		parent.Process.Signal(syscall.SIGKILL)
		parent.Wait()
		r.Close()
		w.Close()
	}
}
