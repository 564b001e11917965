package supervisor

import "runtime/debug"

// beginPercent is how far the heap may grow, in percent, while a supervisor begins.
// Almost all that it reads stays, so there is nothing to collect, and who collects takes
// the processor from who begins. Go begins at 4 MiB and this makes it 16, which is enough
// for a thousand units.
const beginPercent = 400

// roomToBegin lets the heap grow until giveBack is called, which gives back to the system
// what beginning took.
func roomToBegin() (giveBack func()) {
	before := debug.SetGCPercent(beginPercent)
	if before < 0 || before > beginPercent { // somebody wants even more room
		debug.SetGCPercent(before)
	}
	return func() {
		debug.SetGCPercent(before)
		debug.FreeOSMemory()
		debug.FreeOSMemory() // and what pools had kept through the first time
	}
}
