// Package units reads unit files: TOML text becomes a Unit with every default
// applied and every rule checked, or a list of problems, each with its place.
//
// It starts nothing and asks the system for nothing but the files it is told to
// read: whether a user or a device exists is seen when it is used. The one thing to
// know before calling it: the error of Parse and Load is Problems, all of them at
// once, and with even one problem there is no result.
package units

import (
	"io/fs"
	"syscall"
	"time"
)

// A Set is every unit of one or more files and folders, in order of name.
type Set struct{ Units []*Unit }

// A Unit is one TOML file: one service and the sockets it is given. Every default
// is applied and every relative path resolved. Its JSON holds what is not zero, and
// is for sockd itself: TOML is what people write.
type Unit struct {
	Name    string   `json:",omitzero"` // the file's name without .toml
	File    string   `json:",omitzero"` // as it was found: what messages say
	Dir     string   `json:",omitzero"` // the file's folder, absolute: where relative paths start
	Service *Service `json:",omitzero"` // nil: the unit only holds sockets
	Sockets []Socket `json:",omitzero"` // in file order; nil: a plain supervised service
}

// A Service is the command and how to run it. The key of each field, its default
// and its meaning stand in keys.go, from which the reference is made.
type Service struct {
	Exec               []string `json:",omitzero"`
	Directory          string   `json:",omitzero"` // absolute
	Environment        []string `json:",omitzero"` // KEY=value, later ones win
	EnvironmentFiles   []string `json:",omitzero"` // absolute; a leading "-" says that the file may be missing
	InheritEnvironment bool     `json:",omitzero"`
	User, Group        string   `json:",omitzero"` // names or numbers; "" is sockd's own
	Umask              int      `json:",omitzero"` // -1: sockd's own

	Start        Start          `json:",omitzero"`
	Instances    int            `json:",omitzero"`
	Ready        Ready          `json:",omitzero"`
	Gate         *Gate          `json:",omitzero"` // nil: it says itself when it is ready
	StartTimeout time.Duration  `json:",omitzero"` // 0: none
	StopTimeout  time.Duration  `json:",omitzero"` // 0: none
	StopSignal   syscall.Signal `json:",omitzero"`
	ReloadSignal syscall.Signal `json:",omitzero"` // 0: off
	Watchdog     time.Duration  `json:",omitzero"` // 0: off

	Restart         Restart       `json:",omitzero"`
	RestartDelay    time.Duration `json:",omitzero"`
	RestartDelayMax time.Duration `json:",omitzero"`
	RestartReset    time.Duration `json:",omitzero"`
	Essential       bool          `json:",omitzero"`

	Overlap     bool          `json:",omitzero"`
	OverlapTime time.Duration `json:",omitzero"`
	Step        int           `json:",omitzero"` // instances replaced at a time

	CPU CPU `json:",omitzero"` // "": wherever the scheduler likes

	FDStoreMax      int      `json:",omitzero"` // 0: off
	FDStorePreserve Preserve `json:",omitzero"`
}

// Start says when a service is started.
type Start string

const (
	Demand Start = "demand" // when somebody connects
	Boot   Start = "boot"   // at once
)

// Ready says when a run counts as ready.
type Ready string

const (
	ReadyExec    Ready = "exec"    // its program runs
	ReadyNotify  Ready = "notify"  // it said READY=1
	ReadyHTTP    Ready = "http"    // it answered a request: see Gate, for this one and those below
	ReadyTCP     Ready = "tcp"     // it accepted a connection
	ReadyCommand Ready = "command" // a command says so
)

// Restart says which exits are followed by another start; systemd's words.
type Restart string

const (
	No         Restart = "no"
	OnSuccess  Restart = "on-success"
	OnFailure  Restart = "on-failure"
	OnAbnormal Restart = "on-abnormal"
	OnWatchdog Restart = "on-watchdog"
	OnAbort    Restart = "on-abort"
	Always     Restart = "always"
)

// CPU says which CPUs instances run on.
type CPU string

// Spread pins each instance to one CPU, instance after instance.
const Spread CPU = "spread"

// Preserve says how long descriptors that a service has stored are kept; systemd's words.
type Preserve string

const (
	PreserveNo      Preserve = "no"      // while a process of the instance runs
	PreserveRestart Preserve = "restart" // until the unit is stopped or has ended for good
	PreserveYes     Preserve = "yes"     // until the unit is removed
)

// A Socket is what one table [socket.NAME] says.
type Socket struct {
	Name         string        `json:",omitzero"`
	Listen       []Address     `json:",omitzero"` // in file order
	PerInstance  bool          `json:",omitzero"`
	ReusePort    bool          `json:",omitzero"`
	Flows        Flows         `json:",omitzero"` // "": where the weights say, datagram by datagram
	FlowsTimeout time.Duration `json:",omitzero"` // 0: 2 minutes
	FlowsMax     int           `json:",omitzero"` // 0: 65,536
	ReuseAddr    *bool         `json:",omitzero"` // nil: on for stream, off for datagram, decided per address
	NonBlocking  bool          `json:",omitzero"`
	Backlog      int           `json:",omitzero"` // 0: the system's maximum
	IPv6Only     bool          `json:",omitzero"` // no IPv4 where an address would take both; tcp6 and udp6 never take it

	FreeBind     bool   `json:",omitzero"`
	Transparent  bool   `json:",omitzero"`
	BindToDevice string `json:",omitzero"`
	// Numbers and times with their systemd namesakes; nil or 0 leaves the system's.
	Mark          *int          `json:",omitzero"`
	Priority      *int          `json:",omitzero"`
	ReceiveBuffer int           `json:",omitzero"` // bytes
	SendBuffer    int           `json:",omitzero"` // bytes
	KeepAlive     bool          `json:",omitzero"`
	NoDelay       bool          `json:",omitzero"`
	DeferAccept   time.Duration `json:",omitzero"`
	FastOpen      int           `json:",omitzero"` // queue length; 0: off
	IPTOS         *int          `json:",omitzero"`
	IPTTL         *int          `json:",omitzero"`

	Mode, DirectoryMode fs.FileMode `json:",omitzero"` // Unix paths
	User, Group         string      `json:",omitzero"` // Unix paths: owner; "" is sockd's own

	Optional []string `json:",omitzero"` // keys of this table whose failure is a warning
}

// Flows says where the datagrams of one peer go to.
type Flows string

// Sticky keeps a peer's datagrams with the process that had its first one, also while
// another replaces that, and then with the same instance.
const Sticky Flows = "sticky"

// QUIC is for services that speak QUIC: a packet comes to the process that has issued its
// connection id, wherever it was sent from, also while another replaces that process.
const QUIC Flows = "quic"

// MaxFlowsInstances is the largest number of instances with Flows: each has two sockets,
// one for each process of a replacement.
const MaxFlowsInstances = 512

// An Address is where a socket listens. Network is Go's name for it.
type Address struct {
	Network string // tcp tcp4 tcp6 udp udp4 udp6 unix unixgram unixpacket
	Address string // "0.0.0.0:8080", "[::]:8080", ":8080", "/run/x.sock", "@name"
}

// String writes it as a unit file does: tcp://0.0.0.0:8080.
func (a Address) String() string { return a.Network + "://" + a.Address }
