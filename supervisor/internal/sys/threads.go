package sys

import (
	"runtime"
	"sync"
)

// ReserveThreads makes n threads now, for Go's runtime to use later. A process that
// cannot have another thread when the runtime wants one is ended by it; with a
// reserve it goes on when others have taken all there are.
func ReserveThreads(n int) {
	var here, gone sync.WaitGroup
	here.Add(n)
	for range n {
		gone.Go(func() {
			// While locked, each goroutine has a thread to itself; once unlocked, its
			// thread is idle and is never ended.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			here.Done()
			here.Wait()
		})
	}
	gone.Wait()
}
