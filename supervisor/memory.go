package supervisor

import "runtime/debug"

// beginPercent is how far the heap may grow, in percent, while a supervisor goes on where
// another has left off. Almost all that it reads stays, so there is nothing to collect,
// and who collects takes the processor from who begins. Go begins at 4 MiB and this makes
// it 32, which is enough for a thousand services that run.
const beginPercent = 800

// roomToBegin lets the heap grow, of one that goes on, until giveBack is called. That gives
// back to the system what beginning took.
func roomToBegin(goesOn bool) (giveBack func()) {
	before := debug.SetGCPercent(beginPercent)
	if !goesOn || before < 0 || before > beginPercent { // or somebody wants even more room
		debug.SetGCPercent(before)
	}
	return func() {
		debug.SetGCPercent(before)
		debug.FreeOSMemory()
		debug.FreeOSMemory() // and what pools had kept through the first time
	}
}
