package keeper

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockd/sockd/supervisor/internal/sys"
)

// StorePrefix begins the names of descriptors that a service has given us to keep.
// All that a keeper knows of them is that their close may take as long as the
// service likes.
const StorePrefix = "store/"

// closeHeld closes what was held as name, without waiting for a service.
func closeHeld(name string, fd int) {
	if strings.HasPrefix(name, StorePrefix) {
		sys.CloseAside(fd)
		return
	}
	unix.Close(fd)
}
