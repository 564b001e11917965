package sys

import (
	"os"
	"testing"
)

func TestReserveThreads(t *testing.T) {
	const n = 40
	ReserveThreads(n)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < n {
		t.Errorf("%d threads, %v; want %d at least", len(threads), err, n)
	}
}
