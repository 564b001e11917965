package trampoline

import (
	"bytes"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

var jobs = []Job{
	{Argv: []string{"a"}, Umask: -1},
	{Argv: []string{"/bin/web", "", "x y"}, Env: []string{"A=1", "B="}, PidEnv: []string{"LISTEN_PID"}, PidfdEnv: []string{"LISTEN_PIDFDID"}, Dir: "/tmp", Umask: 0o22},
	{Argv: []string{"a"}, Credential: &Credential{UID: 1, GID: 1<<32 - 2, Groups: []uint32{3, 4}}},
	{Argv: []string{"a"}, Credential: &Credential{}},
	{Argv: []string{"a"}, CPU: MaxCPU},
}

func TestRoundTrip(t *testing.T) {
	for _, j := range jobs {
		b, err := j.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(*got, j) {
			t.Errorf("got %+v, %v, want %+v", got, err, j)
		}
		for n := range b { // every cut is noticed
			if _, err := Decode(b[:n]); err == nil {
				t.Errorf("%d of %d bytes were taken for a job", n, len(b))
			}
		}
		if _, err := Decode(append(b, 0)); err == nil {
			t.Error("a byte too many was not noticed")
		}
	}
}

func TestNoSuchCPU(t *testing.T) {
	for _, cpu := range []int{-1, MaxCPU + 1, 1 << 40} {
		if b, err := (&Job{Argv: []string{"a"}, CPU: cpu}).Encode(); err == nil {
			t.Errorf("CPU %d: %q", cpu, b)
		}
	}
	b, _ := jobs[0].Encode()
	copy(b[len(magic)+8:], "\xff\xff\xff\xff")
	if j, err := Decode(b); err == nil {
		t.Errorf("%+v", j)
	}
}

// Wild counts are refused before anything is allocated for them.
func TestDecodeAllocatesLittle(t *testing.T) {
	b, _ := jobs[0].Encode()
	for at := len(magic) + 4; at+4 <= len(b); at++ {
		wild := bytes.Clone(b)
		copy(wild[at:], "\xff\xff\xff\x7f")
		n := testing.AllocsPerRun(1, func() { Decode(wild) })
		if n > 20 {
			t.Errorf("%v allocations with a wild number at %d", n, at)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, j := range jobs {
		b, _ := j.Encode()
		f.Add(b)
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := Decode(b)
		if err != nil {
			return
		}
		again, err := j.Encode()
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(j, back) {
			t.Fatalf("%+v became %+v, %v", j, back, err)
		}
	})
}

func FuzzParseReport(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0, 0, 0, 4, 'e', 'x', 'e', 'c', 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if reached, failure := ParseReport(b); failure != nil && (len(failure.Stage)+len(failure.Detail) > len(b) || reached != (b[0] == aboutToExec)) {
			t.Errorf("%v %+v", reached, failure)
		}
	})
}

func TestFailureReads(t *testing.T) {
	f := Failure{Stage: "exec", Detail: "./web", Errno: syscall.ENOENT}
	if f.Error() != "exec: ./web: no such file or directory" || f.Why() != "./web: no such file or directory" {
		t.Error(f.Error(), f.Why())
	}
}

func TestAtoi(t *testing.T) {
	for s, want := range map[string]int{"0": 0, "17": 17, "9999999": 9999999, "": -1, "x": -1, "-1": -1, "12345678": -1} {
		if n, ok := atoi(s); ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d %v", s, n, ok)
		}
	}
	if itoa(0)+itoa(120) != "0120" {
		t.Error("itoa")
	}
}

func TestWithOwn(t *testing.T) {
	inherited := []string{"A=1", "LISTEN_PID=1", "LISTEN_PIDX=2", "LISTEN_PID=3"}
	if got := withOwn(inherited, []string{"LISTEN_PID"}, "7"); strings.Join(got, " ") != "A=1 LISTEN_PIDX=2 LISTEN_PID=7" {
		t.Error(got)
	}
	if got := withOwn(inherited, []string{"LISTEN_PID"}, ""); strings.Join(got, " ") != "A=1 LISTEN_PIDX=2" {
		t.Error(got)
	}
}
