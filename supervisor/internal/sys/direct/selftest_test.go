package direct

import (
	"errors"
	"runtime"
	"testing"
)

func TestSelfTest(t *testing.T) {
	err := SelfTest()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		if !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
	} else if err != nil {
		t.Error(err)
	}
}
