package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Fields of struct sk_reuseport_md (linux/bpf.h).
const (
	ctxHash      = 32 // of addresses and ports, with a secret: the same for all packets of a flow
	ctxMigrating = 48 // not 0: a connection of a listener that goes looks for another
)

// What the program keeps on its stack.
const (
	onPlace   = -8  // u32: the place to select
	onTally   = -16 // u64: one of the tallies
	onFlags   = -24 // u8: TCP flags
	onFlow    = -32 // u32: key of the flow table
	onNow     = -40 // u32: units of 2^30 ns
	onVerdict = -48 // two u32: owner and time, a value of the flow table
)

// Fields of a value of the flow table.
const (
	flowOwner = 0 // u32: the prefix of the run that has it, see Prefix; also without connection ids
	flowSeen  = 4 // u32: units of 2^30 ns since boot
)

// Tallies: how a choice is counted.
const (
	tallySteered = iota
	tallyMoved
	tallyNone
)

// After the counters by place come two of the whole group.
const (
	countHashed = MaxPlaces
	countMoved  = MaxPlaces + 1
	countWords  = MaxPlaces + 2
)

const skPass = 1 // without a selection: the kernel's hash

// probes is how many slots are tried for a place that has its socket. One is wrong
// only in the moment between a Flush and the next Set, or when a service has shut
// its listener down.
const probes = 4

// program is select-or-migrate. R6 is the context, R7 the hash, R9 the place.
//
//	count what kind of call it is (tcp)
//	who has issued the connection id gets the packet (connection ids)
//	a known flow stays (sticky)
//	up to four times: slot of the hash → place → its socket, if it is there
//	count; else leave it to the kernel's hash
func program(m *maps, stream bool, timeout uint32) *ebpf.ProgramSpec {
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, ctxHash, asm.Word),
		asm.StoreImm(asm.R10, onTally, tallySteered, asm.Word),
	}
	if stream {
		ins = append(ins, tally()...)
	}
	if m.ids {
		ins = append(ins, byConnectionID(m)...)
	}
	sticky := m.flows != nil
	if sticky {
		ins = append(ins, knownFlow(m, timeout)...)
	}
	for i := range probes {
		ins = append(ins, probe(m, i)...)
	}
	hashed := countFixed(m, countHashed, "hashed")
	hashed[0] = hashed[0].WithSymbol(fmt.Sprintf("probe%d", probes))
	ins = append(ins, hashed...)
	ins = append(ins, asm.Mov.Imm(asm.R0, 0).WithSymbol("chosen"))
	if sticky {
		ins = append(ins, rememberFlow(m)...)
	}
	ins = append(ins, count(m, "counted")...)
	return &ebpf.ProgramSpec{
		Name:         "sockd_steer",
		Type:         ebpf.SkReuseport,
		AttachType:   ebpf.AttachSkReuseportSelectOrMigrate,
		License:      "Apache-2.0", // no helper used here asks for another
		Instructions: ins,
	}
}

// tally tells connections that are moved and new ones (a SYN and nothing else) from
// stray packets, which look for a listener too.
func tally() asm.Instructions {
	const offset, fin, syn, rst, ack = 13, 0x01, 0x02, 0x04, 0x10 // of the TCP header
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, ctxMigrating, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "packet"),
		asm.StoreImm(asm.R10, onTally, tallyMoved, asm.Word),
		asm.Ja.Label("probe0"),
		asm.StoreImm(asm.R10, onTally, tallyNone, asm.Word).WithSymbol("packet"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, onFlags),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(), // offsets count from the transport header
		asm.JNE.Imm(asm.R0, 0, "probe0"),
		asm.LoadMem(asm.R1, asm.R10, onFlags, asm.Byte),
		asm.And.Imm(asm.R1, fin|syn|rst|ack),
		asm.JNE.Imm(asm.R1, syn, "probe0"),
		asm.StoreImm(asm.R10, onTally, tallySteered, asm.Word),
	}
}

// probe looks up a slot and selects its place's socket. It goes on to "chosen", or
// to the next probe with other bits of the hash.
func probe(m *maps, i int) asm.Instructions {
	next, missing := fmt.Sprintf("probe%d", i+1), fmt.Sprintf("missing%d", i)
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R7).WithSymbol(fmt.Sprintf("probe%d", i)),
		asm.And.Imm(asm.R1, Slots-1),
		asm.LSh.Imm(asm.R1, 1), // entries are u16
		asm.LoadMapValue(asm.R2, m.table.FD(), 0),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.LoadMem(asm.R9, asm.R2, 0, asm.Half),
		asm.JGT.Imm(asm.R9, MaxPlaces-1, missing),
	}
	ins = append(ins, selectPlace(m)...)
	return append(ins,
		asm.JEq.Imm(asm.R0, 0, "chosen"),
		asm.Mul.Imm32(asm.R7, 0x41c64e6d).WithSymbol(missing), // a linear congruential step
		asm.Add.Imm32(asm.R7, 12345),
		asm.RSh.Imm32(asm.R7, 7), // its low bits are poor
		asm.Ja.Label(next),
	)
}

// selectPlace asks for the socket of place R9; R0 is 0 if it is there.
func selectPlace(m *maps) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.R10, onPlace, asm.R9, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, m.sockets.FD()),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, onPlace),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),
	}
}

// count adds one to the counter of place R9, or to that of moved connections, and ends.
// Both have code of their own: where a process has CAP_BPF and no more the kernel wants
// a pointer to be made in one way wherever it comes from.
func count(m *maps, label string) asm.Instructions {
	return append(tallied(m, label),
		asm.LSh.Imm(asm.R9, 3),
		asm.LoadMapValue(asm.R2, m.counts.FD(), 0),
		asm.Add.Reg(asm.R2, asm.R9),
		asm.Mov.Imm(asm.R1, 1).WithSymbol(label+"_add"),
		asm.StoreXAdd(asm.R2, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, skPass).WithSymbol(label),
		asm.Return(),
	)
}

// countFixed is count of a counter of the whole group.
func countFixed(m *maps, counter uint32, label string) asm.Instructions {
	return append(tallied(m, label),
		asm.LoadMapValue(asm.R2, m.counts.FD(), 8*counter),
		asm.Mov.Imm(asm.R1, 1).WithSymbol(label+"_add"),
		asm.StoreXAdd(asm.R2, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, skPass).WithSymbol(label),
		asm.Return(),
	)
}

// tallied goes to label where nothing is to be counted, and to label_add with R2 at the
// counter of moved connections for one of those; else on.
func tallied(m *maps, label string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R10, onTally, asm.Word),
		asm.JEq.Imm(asm.R1, tallyNone, label),
		asm.LoadMapValue(asm.R2, m.counts.FD(), 8*countMoved),
		asm.JEq.Imm(asm.R1, tallyMoved, label+"_add"),
	}
}
