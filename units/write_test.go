package units

import "testing"

func TestQuote(t *testing.T) {
	all := ""
	for r := rune(0); r < 0x120; r++ {
		all += string(r)
	}
	for _, s := range []string{"", "plain", `a "b" \c`, "a\nb\r\n\tc", "\x00\x01\x1f\x7f", "é日本🙂\uFEFF\u2028", all} {
		data, err := decode("a = " + Quote(s))
		if err != nil || data["a"] != s {
			t.Errorf("%q: written %s, read %q, %v", s, Quote(s), data["a"], err)
		}
		key, err := decode(tomlKey(s) + " = 1")
		if _, ok := key[s]; err != nil || !ok {
			t.Errorf("%q as a key: written %s, read %q, %v", s, tomlKey(s), key, err)
		}
	}
}

func TestQuantitiesAreWrittenShort(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{formatDuration(0), "0s"}, {formatDuration(3600e9), "1h"}, {formatDuration(5400e9), "1h30m"}, {formatDuration(61e9), "1m1s"},
		{formatDuration(1500e6), "1.5s"}, {formatDuration(3601e9), "1h0m1s"}, {formatDuration(600e9), "10m"}, {formatDuration(36000e9), "10h"},
		{formatSize(0), "0B"}, {formatSize(1024), "1KiB"}, {formatSize(1536), "1536B"}, {formatSize(1 << 30), "1GiB"}, {formatSize(3 << 20), "3MiB"},
		{formatMode(0), "0000"}, {formatMode(0o7), "0007"}, {formatMode(0o777), "0777"},
		{formatSignal(15), "SIGTERM"}, {formatSignal(34), "SIGRTMIN"}, {formatSignal(64), "SIGRTMIN+30"}, {formatSignal(32), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}
