// Package machine decides what a unit does next. It never acts: it opens nothing,
// starts no goroutine and reads no clock. Give it an event and the time, save the
// unit, then perform the actions it returns, in order.
//
// # Wishes, facts, and who wins
//
// A [Unit] is plain data of two kinds. Wishes come from people: Up, and the [Spec].
// Facts come from news: which runs there are and how far they have come, who has
// called, how often it failed. [Unit.Step] first absorbs the event, which changes a
// wish or a fact and decides nothing. Then it settles: it compares what is with
// what is wished and closes the gap. Settling looks at facts only, never at the
// order in which they were heard, so a lost, late or doubled piece of news costs
// at most time. Settled twice is settled once.
//
// The wish always wins over policy, and policy over callers:
//
//   - Not wished: every run is told to leave, nobody is started, nobody is watched
//     for, and old failures are forgotten.
//   - Wished at boot: every instance has a run, unless it waits after a failure or
//     its policy says that it has ended for good.
//   - Wished on demand: an instance without a run waits for a caller. It never ends
//     for good and its port never closes; after a failure it waits a while and then
//     listens for callers again, so it heals by itself.
//
// # A run
//
//	starting ──▶ ready ──▶ draining ──▶ killing
//
// It goes forward only, and it may exit from any state. It leaves because we asked
// (a stop, fewer instances, a successor took over), because our patience ended (the
// start timeout, the watchdog: [Fault] remembers it, whatever the exit status says
// later), or by itself. Only the last two count for the restart policy, and not even
// they if an operator has asked for another try meanwhile.
//
// # Replacement
//
// A stale run stays until it is relieved. Settling spawns a successor beside it, for
// one stale run of the unit at a time, or for Step of them; when the successor has been
// ready for the Overlap the older run is told to leave. If the new version fails, what is left of the old one
// stays, and the whole request is given up with a reason: a broken version never churns
// through all instances. The new version is every run younger than the request (Upto),
// also one that a crash has brought into another instance.
//
// Where two runs must not coexist (Exclusive) the old one leaves first: its instance is
// Away until the new run is ready or has failed. If siblings serve, new connections are
// steered to them and the run is told to leave when its queue is empty, so that nobody
// waits for the successor. If no sibling serves, there is nothing to gain by waiting:
// it leaves at once, and the queue holds. The last one that serves does not leave while
// another is away.
//
// # Siblings
//
// The sockets of an instance outlive its runs, and so do their queues. Three things can
// be done about a queue, and settling chooses by the facts alone:
//
//   - Steer: who serves gets new connections, and so does who is idle, because a connection
//     starts him. Who starts, waits after a failure, leaves or is away gets none. If that
//     leaves nobody, everybody gets the same: a connection that waits is better than
//     one that is refused. Weights is what was last asked for; Steer is asked for
//     when it changes, before anything else is done.
//   - Flush: if an instance is steered away from and has nobody left, what waits in its
//     queue is moved to its siblings, a moment later, because a connection may have
//     been on its way. FlushAt is set when the instance is steered away from and
//     forgotten when it gets connections again or has been flushed: so it happens once
//     for each outage. It never happens unless a sibling serves, since with nobody to
//     take them the kernel resets the connections; and never while a run is there,
//     since it would find its listener shut down. A start that is due in that moment
//     waits for it, one that is due when the outage begins does not.
//   - Hold: everything else. A queue keeps what it has.
//
// An instance that is one too many gets no connections; its run is told to leave, its
// queue is flushed, and only then, in a later step, it vanishes: a crash in between
// flushes it again. Where queues cannot be moved, its run leaves when the queue is
// empty.
//
// # A pause
//
// While Paused nobody is started, watched for or replaced, and connections are held by
// all alike. Who lives goes on, a successor on its way still relieves, and stopping and
// scaling down are obeyed. Callers who come are remembered. Resume settles the rest.
//
// # After a crash
//
// Every run that the keeper lists was intended by the saved unit (save before act),
// and news that was not acknowledged is delivered again (acknowledge last). So
// [Unit.Recover] has little to do: repeat what was saved and not done, be patient
// with runs which could not be heard for a while, watch again, look again at queues that
// should become empty, steer again and, since the last flush may not have been done,
// flush again.
package machine
