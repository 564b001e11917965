package activation_test

import (
	"bytes"
	"testing"

	"github.com/sockd/sockd/activation"
)

func TestConnectionIDPrefix(t *testing.T) {
	for text, want := range map[string][]byte{
		"00020007":   {0, 2, 0, 7},
		"ffFF00a1":   {255, 255, 0, 161},
		"":           nil,
		"0002000":    nil,
		"000200070":  nil,
		"0002000700": nil,
		"0002000g":   nil,
	} {
		t.Setenv("SOCKD_CONNECTION_ID_PREFIX", text)
		if got := activation.ConnectionIDPrefix(); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
