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
// one stale run of the unit at a time; when the successor is ready the older run is
// told to leave. If the new version fails, what is left of the old one stays, and
// the whole request is given up with a reason: a broken version never churns
// through all instances. The new version is every run younger than the request
// (Upto), also one that a crash has brought into another instance.
//
// # After a crash
//
// Every run that the keeper lists was intended by the saved unit (save before act),
// and news that was not acknowledged is delivered again (acknowledge last). So
// [Unit.Recover] has little to do: repeat what was saved and not done, be patient
// with runs which could not be heard for a while, watch again, settle.
package machine
