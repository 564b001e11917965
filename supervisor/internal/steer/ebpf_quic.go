package steer

import "github.com/cilium/ebpf/asm"

// Connection ids of QUIC (RFC 9000). A client may change its address, so the peer says
// nothing about the place; the id that a packet is for does. A server chooses the ids
// that it is called by, and begins each with the prefix of its run; so packets of a
// connection come to the process that has it, also while another takes what is new. What
// a client chooses before it has heard of the server is a key of the flow table.

// PrefixSize is how many bytes of a connection id say whose it is.
const PrefixSize = 4

// Prefix is what the ids begin with that generation gen at a place issues, the high byte
// first: the place, counted from 1, and the low half of the generation. No two processes
// that live have the same, as each has a place; and a client, who chooses at random,
// meets that of a process that lives once in thousands of millions.
func Prefix(place int, gen uint64) uint32 { return uint32(place+1)<<16 | uint32(uint16(gen)) }

// What the program keeps on its stack of an id.
const (
	onID     = -56 // eight bytes of it
	onPrefix = -64 // u32
)

// Where things are in a datagram, from its UDP header on (RFC 8999, sections 5.1 and
// 5.2: true of all versions).
const (
	quicFirst   = 8         // its high bit says that the header is long
	quicShortID = 8 + 1     // the id follows at once, its length is known to the server only
	quicLength  = 8 + 1 + 4 // after the version
	quicLongID  = quicLength + 1
)

// byConnectionID selects the place that has issued a packet's connection id. For an id
// that nobody has issued who lives, it goes on to "flow" with a hash of the id in place of that of
// the peer. What is no QUIC goes to "flow" as it is. The id's length is not looked at
// further: what follows one that is short is the same in all packets for it.
func byConnectionID(m *maps) asm.Instructions {
	ins := loadBytes(quicFirst, onFlags, 1)
	ins = append(ins,
		asm.Mov.Imm(asm.R8, quicShortID),
		asm.LoadMem(asm.R1, asm.R10, onFlags, asm.Byte),
		asm.JSet.Imm(asm.R1, 0x80, "long"),
		asm.Ja.Label("id"),
	)
	long := loadBytes(quicLength, onFlags, 1)
	long[0] = long[0].WithSymbol("long")
	ins = append(ins, long...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.R10, onFlags, asm.Byte),
		asm.JLT.Imm(asm.R1, PrefixSize, "flow"),
		asm.Mov.Imm(asm.R8, quicLongID),

		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("id"),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, onID),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "flow"),

		asm.LoadMem(asm.R1, asm.R10, onID, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.StoreMem(asm.R10, onPrefix, asm.R1, asm.Word),
	)
	ins = append(ins, placeOf(asm.R1, "stranger")...)
	ins = append(ins, ofPlace(m.issuers)...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.R10, onPrefix, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "stranger"),
	)
	ins = append(ins, selectPlace(m)...)
	ins = append(ins, asm.JNE.Imm(asm.R0, 0, "stranger"))
	ins = append(ins, count(m, "issued")...)
	return append(ins,
		asm.LoadMem(asm.R1, asm.R10, onID, asm.DWord).WithSymbol("stranger"),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 32),
		asm.Xor.Reg(asm.R1, asm.R2),
		asm.LoadImm(asm.R2, -0x61c8864680b583eb, asm.DWord), // 2^64 by the golden ratio: every bit of the id counts
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.RSh.Imm(asm.R1, 32),
		asm.Mov.Reg32(asm.R7, asm.R1),
	)
}

// loadBytes copies bytes of the datagram to the stack; who has fewer goes to "flow".
func loadBytes(from int32, to int32, size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, from),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "flow"),
	}
}
