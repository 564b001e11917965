package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A disk that hangs holds up those whose files are on it, and nobody else; not even an
// order to stop waits for it.
func TestDiskThatHangs(t *testing.T) {
	hanging, reads, read := make(chan struct{}), make(chan struct{}, 4), readEnvironmentFiles
	readEnvironmentFiles = func(files []string) ([]string, error) {
		reads <- struct{}{}
		<-hanging
		return read(files)
	}
	defer func() { readEnvironmentFiles = read }()
	f := prepare(t, "slow", "[service]\nrole = serve\nready = \"notify\"\nstart = \"boot\"\nenvironment_files = [\"vars\"]\n[socket.x]\nlisten = \"tcp://127.0.0.1:0\"\n",
		"web", onDemand)
	f.start()
	<-reads
	if _, err := ask("tcp", f.address("web", "http")); err != nil {
		t.Fatal(err)
	}
	f.awaitState("slow", 1, "starting")
	f.do("stop", "slow", Done)
	if st := f.unit("slow"); st.State != "stopped" {
		t.Errorf("stopped, and %s", st.State)
	}
	if _, err := f.s.startUnit(t.Context(), errand{unit: "slow"}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(f.dir, "vars"), "TEST_DISK=back\n")
	close(hanging) // both are read now, and one is wanted
	e := f.awaitState("slow", 1, "ready")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", e.Pid))
	if err != nil || !bytes.Contains(text, []byte("\x00TEST_DISK=back\x00")) || e.Gen != 2 {
		t.Errorf("generation %d is ready with %q, %v", e.Gen, text, err)
	}
}
