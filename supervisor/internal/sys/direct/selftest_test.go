package direct_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/sockd/sockd/supervisor/internal/sys/direct"
)

func TestSelfTest(t *testing.T) {
	err := direct.SelfTest()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		if !errors.Is(err, direct.ErrUnsupported) {
			t.Error(err)
		}
	} else if err != nil {
		t.Error(err)
	}
}
