package keeper

import (
	"reflect"
	"testing"
)

// Whatever is asked for reaches the other side: each field of a Process is set here,
// and one that has been forgotten by either side fails.
func TestProcessRoundTrip(t *testing.T) {
	want := Process{
		Argv: []string{"web", ""}, Env: []string{"A=1"}, Dir: "/srv", Sockets: []string{"listen/web/http"}, Output: -1,
		PidEnv: []string{"LISTEN_PID"}, PidfdEnv: []string{"LISTEN_PIDFDID"},
		Credential: &Credential{UID: 1, GID: 1<<32 - 2, Groups: []uint32{3}}, Umask: 0o27, CPU: 2,
	}
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not tried", v.Type().Field(i).Name)
		}
	}
	var p packer
	p.process(want)
	u := unpacker{b: p.b}
	if got := u.process(); u.end() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, u.end(), want)
	}
}
