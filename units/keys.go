package units

import (
	"sync"
	"syscall"
	"time"
)

// A keyInfo is all there is to know about one key. Decoding, defaults in the
// reference, the JSON Schema, suggestions, writing and comparing are made from it.
type keyInfo struct {
	name     string
	kind     *kind
	fallback string // the default, for people, where it is more than a value
	systemd  string // the directive that means the same, or ""
	meaning  string
	min, max int64  // range of numbers, durations in ns, sizes in bytes; none if max is 0
	least    int64  // what is not 0 is at least that; none if 0
	tooLow   string // what to say then
	refuse   func(syscall.Signal) *fault

	seen   bool    // a running process sees it: a change replaces the process
	needs  applies // which addresses it is for; zero: all
	option bool    // may stand in optional
}

// A key is a keyInfo with the field it fills. The field functions return pointers.
type key[T any] struct {
	keyInfo
	field func(*T) any
}

// A draft is a Service being read, with what is not kept in it.
type draft struct {
	Service
	nonBlocking bool // the default of the unit's sockets
}

const (
	longest   = int64(10 * 365 * 24 * time.Hour) // of any duration
	maxInt31  = 1<<31 - 1
	maxBuffer = 1 << 30 // the kernel doubles it into an int
)

// newService is a service with every default. Start and Directory depend on the
// rest of the unit and are set there.
func newService() *Service {
	return &Service{
		InheritEnvironment: true,
		Umask:              -1,
		Instances:          1,
		Ready:              ReadyExec,
		StartTimeout:       30 * time.Second,
		StopTimeout:        30 * time.Second,
		StopSignal:         syscall.SIGTERM,
		Restart:            OnFailure,
		RestartDelay:       100 * time.Millisecond,
		RestartDelayMax:    30 * time.Second,
		RestartReset:       10 * time.Second,
		Overlap:            true,
		OverlapTime:        20 * time.Millisecond,
		Step:               1,
		FDStorePreserve:    PreserveRestart,
	}
}

// newSocket is a socket with every default.
func newSocket(name string) *Socket {
	return &Socket{Name: name, Mode: 0o666, DirectoryMode: 0o755}
}

var serviceKeys = sync.OnceValue(func() []key[draft] {
	return []key[draft]{
		{keyInfo{name: "exec", kind: command, systemd: "ExecStart=", seen: true, fallback: "required",
			meaning: "The command: an array, or a string split by a shell's quoting rules with no expansion and no shell. A program with a slash is a path that starts at the unit's folder; one without is looked up in the service's `PATH`. A unit without a `[service]` only holds sockets"},
			func(s *draft) any { return &s.Exec }},
		{keyInfo{name: "directory", kind: path, systemd: "WorkingDirectory=", seen: true, fallback: "the unit's folder",
			meaning: "Where the service starts"},
			func(s *draft) any { return &s.Directory }},
		{keyInfo{name: "environment", kind: environment, systemd: "Environment=", seen: true,
			meaning: "Variables, a table of strings"},
			func(s *draft) any { return &s.Environment }},
		{keyInfo{name: "environment_files", kind: files, systemd: "EnvironmentFile=", seen: true,
			meaning: "Files with a variable on each line, `NAME=value`, read before each start; they win over `environment`. A leading `-` says that the file may be missing. [What may stand in them](#environment-files)"},
			func(s *draft) any { return &s.EnvironmentFiles }},
		{keyInfo{name: "inherit_environment", kind: boolean, seen: true,
			meaning: "Pass on sockd's own environment. `LISTEN_*`, `NOTIFY_SOCKET` and `WATCHDOG_*` never leak"},
			func(s *draft) any { return &s.InheritEnvironment }},
		{keyInfo{name: "user", kind: owner, systemd: "User=", seen: true, fallback: "sockd's own",
			meaning: "The user the service runs as, by name or number"},
			func(s *draft) any { return &s.User }},
		{keyInfo{name: "group", kind: owner, systemd: "Group=", seen: true, fallback: "the user's",
			meaning: "The group the service runs as, by name or number"},
			func(s *draft) any { return &s.Group }},
		{keyInfo{name: "umask", kind: mode, systemd: "UMask=", seen: true, fallback: "sockd's own",
			meaning: "The permission bits its new files do not get"},
			func(s *draft) any { return &s.Umask }},
		{keyInfo{name: "non_blocking", kind: boolean, systemd: "NonBlocking=",
			meaning: "The default of `non_blocking` for every socket of the unit"},
			func(s *draft) any { return &s.nonBlocking }},
		{keyInfo{name: "start", kind: words(Demand, Boot), fallback: "`\"demand\"` with sockets, else `\"boot\"`",
			meaning: "`demand`: the first connection or datagram starts it. `boot`: at once"},
			func(s *draft) any { return &s.Start }},
		{keyInfo{name: "instances", kind: integer, min: 1, max: 1024,
			meaning: "How many processes run side by side"},
			func(s *draft) any { return &s.Instances }},
		{keyInfo{name: "ready", kind: readyOrGate, systemd: "Type=",
			meaning: "When it counts as ready. `exec`: once its program runs. `notify`: when it says `READY=1`. A table: when a gate says so that asks this very process"},
			func(s *draft) any { return &readiness{&s.Ready, &s.Gate} }},
		{keyInfo{name: "start_timeout", kind: duration, systemd: "TimeoutStartSec=", max: longest,
			meaning: "How long a start may take until it is ready. `\"0s\"` is no limit"},
			func(s *draft) any { return &s.StartTimeout }},
		{keyInfo{name: "stop_timeout", kind: duration, systemd: "TimeoutStopSec=", max: longest,
			meaning: "How long it may take to leave before all of it is killed. `\"0s\"` is no limit"},
			func(s *draft) any { return &s.StopTimeout }},
		{keyInfo{name: "stop_signal", kind: signal, systemd: "KillSignal=", refuse: ends,
			meaning: "What tells it to leave"},
			func(s *draft) any { return &s.StopSignal }},
		{keyInfo{name: "reload_signal", kind: signal, systemd: "ReloadSignal=", fallback: "off", refuse: reloads,
			meaning: "What `sockd reload UNIT` sends"},
			func(s *draft) any { return &s.ReloadSignal }},
		{keyInfo{name: "watchdog", kind: duration, systemd: "WatchdogSec=", fallback: "off", max: longest, seen: true,
			least: int64(10 * time.Millisecond), tooLow: `no service is that quick; "0s" is off`,
			meaning: "A ready service must say `WATCHDOG=1` at least this often. No less than 10 ms; `\"0s\"` is off"},
			func(s *draft) any { return &s.Watchdog }},
		{keyInfo{name: "restart", kind: words(No, OnSuccess, OnFailure, OnAbnormal, OnWatchdog, OnAbort, Always), systemd: "Restart=",
			meaning: "After which exits it is started again"},
			func(s *draft) any { return &s.Restart }},
		{keyInfo{name: "restart_delay", kind: duration, systemd: "RestartSec=", max: longest,
			meaning: "The wait before the first restart; it doubles with every failure in a row. With `\"0s\"` the first restart of a service that was ready is at once, and the wait is at least 10 ms after that"},
			func(s *draft) any { return &s.RestartDelay }},
		{keyInfo{name: "restart_delay_max", kind: duration, systemd: "RestartMaxDelaySec=", max: longest,
			meaning: "The wait grows no further"},
			func(s *draft) any { return &s.RestartDelayMax }},
		{keyInfo{name: "restart_reset", kind: duration, max: longest,
			meaning: "Failures are forgotten once it has been ready that long"},
			func(s *draft) any { return &s.RestartReset }},
		{keyInfo{name: "overlap", kind: boolean,
			meaning: "A replacement starts beside the old process, on the same sockets, and the old one leaves when it is ready. `false`: for services that must not run twice; new connections are steered to other instances, the old process leaves, then the new one starts"},
			func(s *draft) any { return &s.Overlap }},
		{keyInfo{name: "overlap_time", kind: duration, max: longest,
			meaning: "How long the old process stays once the new one is ready. If the new one ends within that time, the old one goes on and the replacement is rolled back: for services that say they are ready and then fail, `\"5s\"` say"},
			func(s *draft) any { return &s.OverlapTime }},
		{keyInfo{name: "step", kind: integer, min: 1, max: 1024,
			meaning: "How many instances are replaced at a time"},
			func(s *draft) any { return &s.Step }},
		{keyInfo{name: "cpu", kind: words(Spread), systemd: "CPUAffinity=", seen: true, fallback: "off",
			meaning: "`spread`: each instance runs on one CPU, the first on the first that sockd may use, the second on the second, and around again. Where siblings are not steered and there are as many as CPUs, each is given what arrives on its CPU"},
			func(s *draft) any { return &s.CPU }},
		{keyInfo{name: "fd_store_max", kind: integer, max: 1024, systemd: "FileDescriptorStoreMax=", seen: true, fallback: "off",
			meaning: "How many descriptors each instance may give sockd to keep with `FDSTORE=1`; its next process is given them after the sockets."},
			func(s *draft) any { return &s.FDStoreMax }},
		{keyInfo{name: "fd_store_preserve", kind: words(PreserveNo, PreserveRestart, PreserveYes), systemd: "FileDescriptorStorePreserve=",
			meaning: "How long they are kept. `no`: while a process of the instance runs. `restart`: until the unit is stopped or has ended for good. `yes`: until the unit is removed"},
			func(s *draft) any { return &s.FDStorePreserve }},
		{keyInfo{name: "essential", kind: boolean, systemd: "SuccessAction= FailureAction=",
			meaning: "sockd ends, with this service's exit code, when it has ended for good; of several instances, with that of the first that failed"},
			func(s *draft) any { return &s.Essential }},
	}
})

// ends refuses stop signals after which a process would go on or hang.
func ends(s syscall.Signal) *fault {
	switch s {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH:
		return wrong("%s does not tell a program to leave", formatSignal(s))
	}
	return nil
}

// reloads refuses what no program can catch.
func reloads(s syscall.Signal) *fault {
	if s == syscall.SIGKILL || s == syscall.SIGSTOP {
		return wrong("%s cannot be caught by the service", formatSignal(s))
	}
	return nil
}

// names lists the names of a table's keys.
func names[T any](keys []key[T]) []string {
	list := make([]string, len(keys))
	for i := range keys {
		list[i] = keys[i].name
	}
	return list
}

func find[T any](keys []key[T], name string) *key[T] {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}
