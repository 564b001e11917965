package supervisor

import (
	"os"
	"strings"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/steer"
	"github.com/sockd/sockd/units"
	"golang.org/x/sys/unix"
)

func TestDoctorOnFlows(t *testing.T) {
	denied := os.NewSyscallError("raw socket", unix.EPERM)
	for _, row := range []struct {
		name, keys string
		best       steer.Level
		mayBring   error
		want       string // of what follows; "": nothing is said
	}{
		{"nobody asks", "", steer.Hash, denied, ""},
		{"all is there", "flows = 'sticky'", steer.EBPF, nil, ""},
		{"no eBPF", "flows = 'sticky'", steer.ClassicBPF, nil, "flows are not kept"},
		{"no raw sockets", "flows = 'quic'", steer.EBPF, denied, "wait for the next but one"},
		{"neither", "flows = 'quic'", steer.ClassicBPF, denied, "flows are not kept"},
	} {
		t.Run(row.name, func(t *testing.T) {
			u, err := units.Parse("game.toml", []byte("[service]\nexec = './game'\n[socket.game]\nlisten = 'udp://:1'\nper_instance = true\n"+row.keys))
			if err != nil {
				t.Fatal(err)
			}
			found := findFlows(&units.Set{Units: []*units.Unit{u}}, steer.Report{Best: row.best}, row.mayBring)
			switch {
			case row.want == "" && len(found) != 0:
				t.Errorf("%+v", found)
			case row.want != "" && (len(found) != 1 || found[0].OK || found[0].Remedy == "" || !strings.Contains(found[0].Follows, row.want)):
				t.Errorf("%+v, want %q", found, row.want)
			}
		})
	}
}
