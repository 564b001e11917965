// Package supervisor runs units: it binds their sockets, starts their services on
// demand or at once, and keeps them as the unit files wish.
//
//	units (TOML) ──▶ Spec                             people, tools: HTTP on a Unix socket
//	                   │                                          │
//	┌──────────────────▼────────── one goroutine ─────────────────▼─────────┐
//	│  news ──▶ machine.Step(now, event) ──▶ actions                        │
//	│  decide       pure                     save → act → tell → acknowledge│
//	└───▲────────▲───────────────────────────────────│──────────┬───────────┘
//	    │        │ readable? READY=1? log lines      │ hold, spawn, signal, save
//	    │      sys: epoll, notify sockets, pipes     ▼          ▼
//	    └───────── exited, execed, failed ──────── keeper: descriptors, children, state
//
// Every piece of news takes the same five steps. The machine decides; what it
// decided is saved with the keeper; then it is done; then people are told; and only
// then is the news acknowledged. A supervisor that dies anywhere on that road is
// followed by one that asks the keeper for its inventory and goes on.
//
// To embed it, load units and call Run:
//
//	set, err := units.Load("./sockd.d")
//	…
//	err = supervisor.New(supervisor.Config{Units: set}).Run(ctx)
//
// The one thing to know before calling it: services are prepared by re-executing
// the running program in a role of its own, before main begins. Linux only.
package supervisor
