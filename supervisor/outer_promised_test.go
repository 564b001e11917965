package supervisor

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"
)

func init() {
	// Was promised more than it was passed, and then needs what Go's runtime has opened.
	roles["promised"] = func() {
		own, err := net.Listen("tcp", "127.0.0.1:0") // the runtime waits for connections with descriptors of its own
		if err != nil {
			fmt.Println(err)
			return
		}
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		passed := passedFiles(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}})))
		for _, f := range passed {
			f.Close()
		}
		go net.Dial("tcp", own.Addr().String())
		_, err = own.Accept()
		fmt.Println(len(passed), err, os.Getenv("LISTEN_FDS"))
	}
}

func TestMorePromisedThanPassed(t *testing.T) {
	file, _ := listenerFile(t)
	for _, c := range []struct {
		name, promised string
		passed         []*os.File
		wanted         string
	}{
		{"as many", "1", []*os.File{file}, "1 <nil>"},
		{"none", "1", nil, "msg=\"passed sockets missing\" promised=1 there=0\n0 <nil>"},
		{"fewer", "9", []*os.File{file, file}, "msg=\"passed sockets missing\" promised=9 there=2\n2 <nil>"},
		{"far fewer", "2000000000", []*os.File{file}, "msg=\"passed sockets missing\" promised=2000000000 there=1\n1 <nil>"},
	} {
		if got, err := passTo("promised", c.promised, c.passed...); err != nil || got != c.wanted {
			t.Errorf("%s: %v, %.1000q; want %q", c.name, err, got, c.wanted)
		}
	}
}
