package supervisor

import (
	"strings"
	"testing"
	"time"
)

func TestOlder(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	for _, c := range []struct {
		name string
		a, b Build
		want bool
	}{
		{"patch", Build{Version: "v1.2.3"}, Build{Version: "v1.2.10"}, true},
		{"the same", Build{Version: "v1.2.3"}, Build{Version: "v1.2.3"}, false},
		{"newer", Build{Version: "v2.0.0"}, Build{Version: "v1.99.99"}, false},
		{"before the release", Build{Version: "v1.2.3-rc1"}, Build{Version: "v1.2.3"}, true},
		{"after it", Build{Version: "v1.2.3"}, Build{Version: "v1.2.3-rc1"}, false},
		{"commits", Build{Version: "v0.0.0-20261125160000-aaaaaaaaaaaa"}, Build{Version: "v0.0.0-20261125170000-000000000000"}, true},
		{"what was changed does not count", Build{Version: "v1.2.3+dirty"}, Build{Version: "v1.2.3"}, false},
		{"numbers before times", Build{Version: "v1.3.0", Time: early}, Build{Version: "v1.2.0", Time: late}, false},
		{"times", Build{Version: "devel", Time: early}, Build{Version: "v1.2.0", Time: late}, true},
		{"the same number, times", Build{Version: "v1.2.0", Time: early}, Build{Version: "v1.2.0", Time: late}, true},
		{"nothing to compare", Build{Version: "devel"}, Build{Version: "v1.2.0", Time: late}, false},
		{"no number", Build{Version: "v1.two.3"}, Build{Version: "v9.0.0"}, false},
	} {
		if got := older(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMayReplace(t *testing.T) {
	now := NewBuild("v1.2.0", time.Time{})
	with := func(change func(*Build)) Build {
		b := now
		change(&b)
		return b
	}
	for _, c := range []struct {
		name  string
		next  Build
		older bool
		says  string // "": it may
	}{
		{"itself", now, false, ""},
		{"newer", with(func(b *Build) { b.Version = "v1.2.1" }), false, ""},
		{"older", with(func(b *Build) { b.Version = "v1.1.9" }), false, "is older than v1.2.0"},
		{"older, as wished", with(func(b *Build) { b.Version = "v1.1.9" }), true, ""},
		{"wire", with(func(b *Build) { b.Wire++ }), true, "of the messages"},
		{"state", with(func(b *Build) { b.State-- }), true, "of saved units"},
		{"keeper", with(func(b *Build) { b.Keeper++ }), true, "of a keeper's state"},
	} {
		err := mayReplace(now, c.next, c.older)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}
