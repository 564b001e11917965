package keeper

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sealed is a memfd with that text, as a hand-over is.
func sealed(t *testing.T, text []byte, with int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.Write(fd, text); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, with); err != nil {
		t.Fatal(err)
	}
	return fd
}

func devnull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// someHandover is one of a keeper that holds two descriptors and runs a process.
func someHandover(t *testing.T) *handover {
	t.Helper()
	l, err := NewLocal(Options{NoCgroup: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, name := range []string{"listen/web/http", "control"} {
		if err := l.Hold(name, devnull(t)); err != nil {
			t.Fatal(err)
		}
	}
	l.Save("web", []byte("state"))
	id := ID{"web", 1, 7}
	if err := l.Spawn(id, Process{Argv: []string{"/bin/sleep", "1000"}, Env: []string{"NOTIFY_SOCKET=@x"}, Output: -1, Umask: -1}); err != nil {
		t.Fatal(err)
	}
	if ev := <-l.Events(); ev.Kind != Execed {
		t.Fatalf("%+v", ev)
	}
	t.Cleanup(func() { l.Signal(id, unix.SIGKILL); <-l.Events() })
	if !l.gate.close(time.Minute) {
		t.Fatal("the gate does not close")
	}
	defer l.gate.open()
	h := l.handover()
	h.Guard = savedGuard{Supervisor: savedProcess{os.Getpid(), -1}, Wire: devnull(t), File: devnull(t), Before: devnull(t), Argv: os.Args}
	t.Cleanup(func() { closeAll([]int{h.Guard.Wire, h.Guard.File, h.Guard.Before}) })
	return h
}

func TestHandoverRoundTrip(t *testing.T) {
	h := someHandover(t)
	fd, err := h.write()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	again, err := readHandover(fd)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(h)
	b, _ := json.Marshal(again)
	if !bytes.Equal(a, b) || len(again.Runs) != 1 || again.Runs[0].Mark != "NOTIFY_SOCKET=@x" || len(again.Record) != 1 || again.Record[0].Process.Pid != again.Runs[0].Main.Pid {
		t.Fatalf("%s\nhas become\n%s", a, b)
	}
}

// What another version adds is passed by; what makes no sense is refused before
// anything is done about it.
func TestHandoverThatMakesNoSense(t *testing.T) {
	h := someHandover(t)
	fd, err := h.write()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	whole := make([]byte, 1<<20)
	n, _ := unix.Pread(fd, whole, 0)
	whole = whole[:n]
	with := func(change func(*handover)) int {
		other := *h
		change(&other)
		fd, err := other.write()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	for name, c := range map[string]struct {
		fd   int
		says string
	}{
		"not sealed":      {sealed(t, whole, unix.F_SEAL_GROW), "not sealed"},
		"empty":           {sealed(t, nil, seals), "does not begin"},
		"cut short":       {sealed(t, whole[:len(whole)-1], seals), "damaged"},
		"a bit turned":    {sealed(t, damaged, seals), "damaged"},
		"another file":    {sealed(t, []byte("hello"), seals), "does not begin"},
		"another version": {with(func(h *handover) { h.Version++ }), "version is 2, not 1"},
		"another process": {with(func(h *handover) { h.Pid++ }), "of process"},
		"closed":          {with(func(h *handover) { h.Held = map[string]int{"x": 987654} }), "descriptor 987654"},
		"twice":           {with(func(h *handover) { h.Held = map[string]int{"x": h.Guard.Wire} }), "twice"},
		"standard":        {with(func(h *handover) { h.Held = map[string]int{"x": 2} }), "standard one"},
		"unlisted":        {with(func(h *handover) { h.Children = nil }), "not listed"},
	} {
		if _, err := readHandover(c.fd); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// A later version may write what has another form here: the way back is found all the same.
func TestHandoverOfAnotherFormFindsTheWayBack(t *testing.T) {
	for version, says := range map[int]string{StateVersion: "cannot unmarshal", StateVersion + 1: "version is 2, not 1"} {
		body := fmt.Appendf(nil, `{"Version":%d,"Runs":"none","Held":{"control":"8"},"Guard":{"Wire":7,"Before":9}}`, version)
		text := binary.LittleEndian.AppendUint64([]byte(handoverMagic), uint64(len(body)))
		text = append(binary.LittleEndian.AppendUint32(text, crc32.ChecksumIEEE(body)), body...)
		h, err := readHandover(sealed(t, text, seals))
		if err == nil || !strings.Contains(err.Error(), says) || h == nil || h.Guard.Before != 9 || h.Guard.Wire != 7 {
			t.Errorf("version %d: %+v, %v", version, h, err)
		}
	}
}

// A start that does not come to an end keeps nobody from being served: the keeper
// stays as it is.
func TestGate(t *testing.T) {
	var g gate
	g.enter()
	if g.close(time.Millisecond) {
		t.Fatal("closed with somebody inside")
	}
	g.enter() // it is open again
	closed := make(chan bool)
	go func() { closed <- g.close(time.Minute) }()
	g.leave()
	g.leave()
	if !<-closed {
		t.Fatal("not closed when everybody had left")
	}
	entered := make(chan struct{})
	go func() { g.enter(); close(entered) }()
	select {
	case <-entered:
		t.Fatal("entered through a closed gate")
	default:
	}
	g.open()
	<-entered
}

// The record tells what lives, whatever has come and gone, and whatever was cut off.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	j := newJournal(slog.New(slog.DiscardHandler))
	j.open(fd)
	defer j.close()
	const runs = 5000
	for i := range runs {
		id := ID{"web", 1, uint64(i + 1)}
		j.begin(Survivor{ID: id, Mark: "NOTIFY_SOCKET=@x", Sockets: []HeldSocket{{"listen/web/http", 42}}})
		if i != 77 && i != runs-1 {
			j.end(id)
		}
	}
	if st, err := os.Stat(dir + "/" + RecordName); err != nil || st.Size() > 2*slack {
		t.Errorf("%d runs that have ended: %v bytes, %v", runs, st.Size(), err)
	}
	f, err := os.OpenFile(dir+"/"+RecordName, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"End":{"Unit":"web","Inst`)
	f.Close()
	r, err := ReadRecord(dir)
	if err != nil || len(r.Runs) != 2 || r.Runs[0].ID.Gen != 78 || r.LastGen["web"] != runs || r.Keeper != os.Getpid() || r.Runs[0].Sockets[0].Cookie != 42 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r.Runs[0].Find() != nil {
		t.Error("a process that never was has been found")
	}
	for i, id := range []ID{r.Runs[0].ID, r.Runs[1].ID} { // over what is not whole, and behind that
		if err := r.End(dir, id); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadRecord(dir); err != nil || len(again.Runs) != 1-i || again.LastGen["web"] != runs {
			t.Fatalf("after %d ends: %+v, %v", i+1, again, err)
		}
	}
	os.WriteFile(dir+"/"+RecordName, []byte("nonsense\n"), 0o600)
	if r, err := ReadRecord(dir); err == nil {
		t.Errorf("nonsense is %+v", r)
	}
	os.Remove(dir + "/" + RecordName)
	if r, err := ReadRecord(dir); err != nil || len(r.Runs) != 0 {
		t.Errorf("none is %+v, %v", r, err)
	}
}
