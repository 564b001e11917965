package sys

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func ptr[T any](v T) *T { return &v }

func TestParseNotify(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Notification // FDPoll is set by the test where it is not the subject
		err        string
	}{
		{"nothing", "", Notification{}, ""},
		{"newlines alone", "\n\n", Notification{}, ""},
		{"READY", "READY=1", Notification{Ready: true}, ""},
		{"a NUL at the end", "READY=1\n\x00", Notification{Ready: true}, ""},
		{"two NULs", "READY=1\x00\x00", Notification{}, "a NUL byte inside"},
		{"a NUL inside", "STATUS=a\x00b\nREADY=1", Notification{}, "a NUL byte inside"},
		{"READY=0 says nothing", "READY=0", Notification{}, ""},
		{"READY=1 counts wherever it stands", "READY=0\nREADY=1", Notification{Ready: true}, ""},
		{"READY with a space", "READY=1 ", Notification{}, ""},
		{"all phases", "STOPPING=1\nREADY=1\nRELOADING=1", Notification{Ready: true, Reloading: true, Stopping: true}, ""},
		{"reload", "RELOADING=1\nMONOTONIC_USEC=123456", Notification{Reloading: true, MonotonicUsec: ptr(uint64(123456))}, ""},
		{"CR separates too", "READY=1\r\nSTATUS=x\r", Notification{Ready: true, Status: ptr("x")}, ""},
		{"STATUS", "STATUS=größer = besser", Notification{Status: ptr("größer = besser")}, ""},
		{"empty STATUS clears", "STATUS=", Notification{Status: ptr("")}, ""},
		{"first STATUS", "STATUS=a\nSTATUS=b", Notification{Status: ptr("a")}, ""},
		{"STATUS not UTF-8", "STATUS=\xff\nREADY=1", Notification{Ready: true, Problems: []string{"STATUS: not UTF-8"}}, ""},
		{"first STATUS, even if wrong", "STATUS=\xff\nSTATUS=b", Notification{Problems: []string{"STATUS: not UTF-8"}}, ""},
		{"ERRNO", "ERRNO=2", Notification{Errno: ptr(2)}, ""},
		{"ERRNO cleared", "ERRNO=0", Notification{Errno: ptr(0)}, ""},
		{"ERRNO by name", "ERRNO=ENOENT", Notification{Errno: ptr(2)}, ""},
		{"ERRNO wrong", "ERRNO=ENOSUCH", Notification{Problems: []string{`ERRNO: "ENOSUCH" is no error number and no error name`}}, ""},
		{"ERRNO negative", "ERRNO=-2", Notification{Problems: []string{`ERRNO: "-2" is no error number and no error name`}}, ""},
		{"ERRNO too large", "ERRNO=4096", Notification{Problems: []string{`ERRNO: "4096" is not in 0..4095`}}, ""},
		{"EXIT_STATUS", "EXIT_STATUS=255", Notification{ExitStatus: ptr(255)}, ""},
		{"EXIT_STATUS too large", "EXIT_STATUS=256", Notification{Problems: []string{`EXIT_STATUS: "256" is not in 0..255`}}, ""},
		{"MAINPID", "MAINPID=4711", Notification{MainPID: 4711}, ""},
		{"MAINPID 0", "MAINPID=0", Notification{Problems: []string{`MAINPID: "0" is not in 1..2147483647`}}, ""},
		{"MAINPID negative", "MAINPID=-1", Notification{Problems: []string{`MAINPID: "-1" is not in 1..2147483647`}}, ""},
		{"MAINPID with a sign", "MAINPID=+1", Notification{Problems: []string{`MAINPID: "+1" is not in 1..2147483647`}}, ""},
		{"MAINPID overflows", "MAINPID=99999999999999999999", Notification{Problems: []string{`MAINPID: "99999999999999999999" is not in 1..2147483647`}}, ""},
		{"WATCHDOG", "WATCHDOG=1", Notification{Watchdog: true}, ""},
		{"WATCHDOG=trigger", "WATCHDOG=trigger", Notification{Trigger: true}, ""},
		{"WATCHDOG wrong", "WATCHDOG=yes", Notification{Problems: []string{`WATCHDOG: "yes" is neither 1 nor trigger`}}, ""},
		{"WATCHDOG_USEC", "WATCHDOG_USEC=20000000", Notification{WatchdogUsec: ptr(uint64(20000000))}, ""},
		{"WATCHDOG_USEC off", "WATCHDOG_USEC=0", Notification{WatchdogUsec: ptr(uint64(0))}, ""},
		{"WATCHDOG_USEC for ever", "WATCHDOG_USEC=18446744073709551615", Notification{WatchdogUsec: ptr(uint64(math.MaxInt64 / 1000))}, ""},
		{"WATCHDOG_USEC overflows", "WATCHDOG_USEC=18446744073709551616", Notification{Problems: []string{`WATCHDOG_USEC: "18446744073709551616" does not fit in 64 bits`}}, ""},
		{"EXTEND_TIMEOUT_USEC", "EXTEND_TIMEOUT_USEC=5000000", Notification{ExtendTimeoutUsec: 5000000}, ""},
		{"EXTEND_TIMEOUT_USEC 0", "EXTEND_TIMEOUT_USEC=0", Notification{Problems: []string{`EXTEND_TIMEOUT_USEC: 0 extends nothing`}}, ""},
		{"EXTEND_TIMEOUT_USEC wrong", "EXTEND_TIMEOUT_USEC=5s", Notification{Problems: []string{`EXTEND_TIMEOUT_USEC: "5s" is not a number of microseconds`}}, ""},
		{"BARRIER", "BARRIER=1", Notification{Barrier: true}, ""},
		{"BARRIER with newline", "BARRIER=1\n", Notification{Barrier: true}, ""},
		{"BARRIER and more", "BARRIER=1\nREADY=1", Notification{}, "BARRIER=1 must be the only key"},
		{"more and BARRIER", "X=1\nBARRIER=1", Notification{}, "BARRIER=1 must be the only key"},
		{"FDSTORE", "FDSTORE=1\nFDNAME=a b\nFDPOLL=0", Notification{FDStore: true, FDName: "a b"}, ""},
		{"FDSTOREREMOVE", "FDSTOREREMOVE=1\nFDNAME=a:b", Notification{FDStoreRemove: true, Problems: []string{`FDNAME: "a:b" is no name for a descriptor`}}, ""},
		{"unknown keys", "X_MINE=1\nNOTIFYACCESS=all\nnonsense\n=\n=x", Notification{}, ""},
		{"a long value is shortened in the message", "ERRNO=" + strings.Repeat("9", 100), Notification{Problems: []string{`ERRNO: "` + strings.Repeat("9", 40) + `…" is not in 0..4095`}}, ""},
		{"4096 bytes", "READY=1\nSTATUS=" + strings.Repeat("s", 4096-15), Notification{Ready: true, Status: ptr(strings.Repeat("s", 4096-15))}, ""},
		{"4097 bytes", "READY=1\nSTATUS=" + strings.Repeat("s", 4097-15), Notification{}, "longer than 4096 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.want.FDPoll = !strings.Contains(row.text, "FDPOLL=0")
			got, err := ParseNotify([]byte(row.text))
			if (err == nil) != (row.err == "") || err != nil && err.Error() != row.err {
				t.Errorf("error %v, want %q", err, row.err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got  %+v\nwant %+v", got, row.want)
			}
		})
	}
}

func FuzzParseNotify(f *testing.F) {
	for _, s := range []string{"", "READY=1\n", "STATUS=x\nERRNO=2\nMAINPID=1", "BARRIER=1", "WATCHDOG=trigger\nWATCHDOG_USEC=18446744073709551615", "FDSTORE=1\nFDNAME=a", "EXTEND_TIMEOUT_USEC=-1", "\x00", "A=\x00B=", "STATUS=\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNotify(b)
		if err != nil {
			if !reflect.DeepEqual(n, Notification{FDPoll: true}) {
				t.Errorf("an error, and still %+v", n)
			}
			return
		}
		if n.Status != nil && (!utf8.ValidString(*n.Status) || strings.ContainsAny(*n.Status, "\n\x00")) {
			t.Errorf("status %q", *n.Status)
		}
		if n.MainPID < 0 || n.Errno != nil && (*n.Errno < 0 || *n.Errno > 4095) || n.ExitStatus != nil && (*n.ExitStatus < 0 || *n.ExitStatus > 255) {
			t.Errorf("out of range: %+v", n)
		}
		if n.ExtendTimeoutUsec > math.MaxInt64/1000 || n.WatchdogUsec != nil && *n.WatchdogUsec > math.MaxInt64/1000 {
			t.Errorf("longer than a time.Duration: %+v", n)
		}
		if n.Barrier && (n.Ready || n.Status != nil || n.FDStore) {
			t.Errorf("a barrier and more: %+v", n)
		}
		for _, p := range n.Problems {
			if len(p) > 400 {
				t.Errorf("a problem of %d bytes", len(p))
			}
		}
	})
}
