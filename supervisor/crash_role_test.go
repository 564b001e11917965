package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sockd/sockd/supervisor/internal/keeper"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

func init() {
	// A keeper, or the supervisor that it has started, on the units of TEST_DIR.
	roles["keep"] = func() {
		k, err := Attach()
		if err == nil && k == nil {
			code, err := Keep(os.Args, slog.New(slog.NewJSONHandler(os.Stderr, nil)), Care{Steady: time.Nanosecond})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(code)
		}
		if err == nil {
			err = superviseAndDie(k)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "supervisor:", err)
			k.Bye(1)
			os.Exit(1)
		}
		k.Bye(0)
	}
	// A service that leaves facts in TEST_DIR, as those of the chaos test do: births,
	// violations, lock.UNIT@INSTANCE, lines.UNIT.GEN.
	roles["factual"] = factual
}

// superviseAndDie dies at crash points as mortality says.
func superviseAndDie(k *Keeper) error {
	dir := os.Getenv("TEST_DIR")
	m := &mortality{file: filepath.Join(dir, "deaths"), hits: number("TEST_HITS"), skip: number("TEST_SKIP"), only: os.Getenv("TEST_ONLY")}
	m.choose()
	m.sendOff = k.remote.Flush
	crashpoint = m.passing
	s := New(Config{Keeper: k, Load: func() (*units.Set, error) { return units.Load(dir) }, RuntimeDir: filepath.Join(dir, "run"),
		Orphans: os.Getenv("TEST_ORPHANS"), Output: os.Stdout, Format: JSON, Log: slog.New(slog.NewJSONHandler(k, nil))})
	s.keeper = &mortal{s.keeper, m}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for sig := range k.Orders() {
			cancel(fmt.Errorf("signal: %v", sig))
		}
	}()
	return s.Run(ctx)
}

// A mortality ends the process at the points of a list, one after the other, each as
// often as is wanted; not at the first visit, but at a later one, by chance. Each
// death is a line in a file.
type mortality struct {
	file  string
	hits  int    // of each point; 0: no deaths
	skip  int    // if not 0: die once, at this visit of any point
	only  string // if not "": names the points, with commas between them
	point string
	left  chan int // how many visits to live

	sendOff func() error // brings what waits to the keeper
}

// crashPoints are those that a supervisor passes while units come, go and live. The
// number is about how often it passes while one story is told.
var crashPoints = map[string]int{
	"hold": 4, "held": 4, "release": 4, "released": 4, "spawn": 2, "spawned": 2, "signal": 2, "signalled": 2, "save": 12, "saved": 12,
	"acknowledge": 3, "acknowledged": 3, "tell": 9, "told": 9, "notification handled": 1, "notification taken": 1,
	"begin: sockets open": 1, "begin: runs resumed": 1,
	"reload: bound": 1, "reload: held": 1, "reload: handled": 1, "reload: released": 1,
	"output: taken": 6, "output: made": 6, "output: rest kept": 6, "output: taken out": 6, "output: written": 6,
	"output: rest put": 1, "output: last line made": 1, "output: rest forgotten": 1,
}

// deathsIn counts deaths by point.
func deathsIn(file string) map[string]int {
	all := map[string]int{}
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		all[strings.TrimSpace(line)]++
	}
	return all
}

// choose picks the point where this process is to die.
func (m *mortality) choose() {
	m.left = make(chan int, 1)
	had := deathsIn(m.file)
	if m.skip > 0 {
		if len(had) == 0 {
			m.point = "*"
			m.left <- m.skip
		}
		return
	}
	var open []string
	for p := range crashPoints {
		if had[p] < m.hits && (m.only == "" || slices.Contains(strings.Split(m.only, ","), p)) {
			open = append(open, p)
		}
	}
	if len(open) > 0 {
		m.point = open[rand.IntN(len(open))]
		m.left <- 1 + rand.IntN(crashPoints[m.point])
	}
}

func (m *mortality) passing(point string) {
	if point != m.point && m.point != "*" {
		return
	}
	left := <-m.left - 1
	if left == 0 {
		note(m.file, point)
		if rand.IntN(2) == 0 { // or it is lost, as if we had died before
			m.sendOff()
		}
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	m.left <- left
}

// A mortal stands before the keeper.
type mortal struct {
	keeper.Keeper
	*mortality
}

func around[T any](m *mortality, before, after string, do func() T) T {
	m.passing(before)
	defer m.passing(after)
	return do()
}

func (k *mortal) Hold(name string, fd int) error {
	return around(k.mortality, "hold", "held", func() error { return k.Keeper.Hold(name, fd) })
}
func (k *mortal) Release(name string) error {
	return around(k.mortality, "release", "released", func() error { return k.Keeper.Release(name) })
}
func (k *mortal) Spawn(id keeper.ID, p keeper.Process) error {
	return around(k.mortality, "spawn", "spawned", func() error { return k.Keeper.Spawn(id, p) })
}
func (k *mortal) Signal(id keeper.ID, sig unix.Signal) error {
	return around(k.mortality, "signal", "signalled", func() error { return k.Keeper.Signal(id, sig) })
}
func (k *mortal) Save(unit string, state []byte) error {
	return around(k.mortality, "save", "saved", func() error { return k.Keeper.Save(unit, state) })
}
func (k *mortal) Adopt(o keeper.Survivor) error {
	return around(k.mortality, "adopt", "adopted", func() error { return k.Keeper.Adopt(o) })
}
func (k *mortal) Acknowledge(ev keeper.Event) error {
	return around(k.mortality, "acknowledge", "acknowledged", func() error { return k.Keeper.Acknowledge(ev) })
}

// note adds a line to a file, in one write.
func note(file, line string) {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Write(fd, []byte(line+"\n"))
		unix.Close(fd)
	}
}

func factual() {
	dir := os.Getenv("TEST_DIR")
	unit, instance, gen := os.Getenv("SOCKD_UNIT"), os.Getenv("SOCKD_INSTANCE"), os.Getenv("SOCKD_GENERATION")
	note(filepath.Join(dir, "births"), fmt.Sprintf("%s %s %s %d", unit, instance, gen, os.Getpid()))
	locked := false
	for i := range 1 + number("TEST_PAIR") {
		fd, err := unix.Open(filepath.Join(dir, fmt.Sprintf("lock.%s@%s.%d", unit, instance, i)), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		if locked = err == nil && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil; locked {
			break
		}
	}
	if !locked {
		note(filepath.Join(dir, "violations"), fmt.Sprintf("%s@%s gen %s pid %d: one copy too many", unit, instance, gen, os.Getpid()))
		os.Exit(70)
	}
	// Lines, in two pieces each; the last one has no end.
	count, _ := unix.Open(filepath.Join(dir, "lines."+unit+"."+gen), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	say := func(n uint64, end string) {
		line := fmt.Sprintf("line %d%s", n, end)
		syscall.Write(1, []byte(line[:3]))
		syscall.Write(1, []byte(line[3:]))
		unix.Pwrite(count, binary.LittleEndian.AppendUint64(nil, n), 0)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	stop, wrote := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(wrote)
		for n := uint64(1); ; n++ {
			select {
			case <-time.After(2 * time.Millisecond):
				say(n, "\n")
			case <-stop:
				say(n, "")
				return
			}
		}
	}()
	var ln net.Listener
	if os.Getenv("LISTEN_FDS") != "" {
		f := os.NewFile(3, "")
		ln, _ = net.FileListener(f)
		f.Close()
		go acceptLoop(ln)
	}
	notify("READY=1\nSTATUS=serving")
	<-term
	if ln != nil {
		ln.Close()
	}
	close(stop)
	<-wrote
	served.Wait()
}

// bornIn reads which processes there were.
func bornIn(dir string) (pids map[string]int) {
	pids = map[string]int{}
	text, _ := os.ReadFile(filepath.Join(dir, "births"))
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) == 4 {
			pids[f[0]+"."+f[2]], _ = strconv.Atoi(f[3])
		}
	}
	return pids
}
