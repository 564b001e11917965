package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// A flow is known by a hash, and belongs to the run that had its first datagram: the table
// remembers that run's prefix, which says the place and the generation, as a connection id
// does. The run keeps it as long as it lives, whatever is new goes to. Then the flow is the
// next run's of the same instance.

// knownFlow selects the place of the run that has a flow, if that was not silent for long
// and the place has its socket. A flow whose run has left goes to the place's heir, and is
// that one's from then on. Where nobody is there either, it waits; with connection ids it
// goes where new ones go: the connection has ended with its process.
//
// The key is the hash alone: that two flows share one in four thousand million sends the
// newer to the place of the older, which does no harm.
func knownFlow(m *maps, timeout uint32) asm.Instructions {
	ins := asm.Instructions{
		asm.StoreMem(asm.R10, onFlow, asm.R7, asm.Word).WithSymbol("flow"),
		asm.FnKtimeGetNs.Call(),
		asm.RSh.Imm(asm.R0, 30),
		asm.StoreMem(asm.R10, onNow, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.flows.FD()),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, onFlow),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "probe0"),
		asm.LoadMem(asm.R1, asm.R10, onNow, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.LoadMem(asm.R2, asm.R0, flowSeen, asm.Word),
		asm.Sub.Reg32(asm.R3, asm.R2),
		asm.JEq.Imm32(asm.R3, 0, "fresh"),
		asm.JGT.Imm32(asm.R3, int32(timeout), "probe0"),
		asm.StoreMem(asm.R0, flowSeen, asm.R1, asm.Word),

		asm.LoadMem(asm.R3, asm.R0, flowOwner, asm.Word).WithSymbol("fresh"),
	}
	ins = append(ins, placeOf(asm.R3, "probe0")...)
	ins = append(ins, ofPlace(m.issuers)...)
	ins = append(ins, asm.JEq.Reg(asm.R2, asm.R3, "lives"))

	ins = append(ins, ofPlace(m.heirs)...)
	ins = append(ins,
		asm.Xor.Reg(asm.R9, asm.R2),
		asm.JGT.Imm(asm.R9, MaxPlaces-1, "probe0"),
	)
	ins = append(ins, ofPlace(m.issuers)...)
	if m.ids {
		ins = append(ins, asm.JEq.Imm(asm.R2, 0, "probe0"))
	}
	ins = append(ins, owner("inherited")...)
	ins = append(ins, asm.StoreMem(asm.R0, flowOwner, asm.R2, asm.Word))

	chosen := selectPlace(m)
	chosen[0] = chosen[0].WithSymbol("lives")
	ins = append(ins, chosen...)
	ins = append(ins, asm.JNE.Imm(asm.R0, 0, "probe0"))
	return append(ins, count(m, "known")...)
}

// rememberFlow enters the run at place R9 as the owner of a new flow.
func rememberFlow(m *maps) asm.Instructions {
	ins := ofPlace(m.issuers)
	ins = append(ins, owner("new")...)
	return append(ins,
		asm.StoreMem(asm.R10, onVerdict+flowOwner, asm.R2, asm.Word),
		asm.LoadMem(asm.R1, asm.R10, onNow, asm.Word),
		asm.StoreMem(asm.R10, onVerdict+flowSeen, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, m.flows.FD()),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, onFlow),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, onVerdict),
		asm.Mov.Imm(asm.R4, 0), // BPF_ANY
		asm.FnMapUpdateElem.Call(),
	)
}

// placeOf makes R9 the place whose run has a prefix, as it is in a register. It goes on to
// none if there is no such place.
func placeOf(prefix asm.Register, none string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R9, prefix),
		asm.RSh.Imm(asm.R9, 16),
		asm.JEq.Imm(asm.R9, 0, none),
		asm.Sub.Imm(asm.R9, 1),
		asm.JGT.Imm(asm.R9, MaxPlaces-1, none),
	}
}

// ofPlace reads the u32 that an array has for place R9 into R2, by way of R1.
func ofPlace(array *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.LSh.Imm(asm.R1, 2),
		asm.LoadMapValue(asm.R2, array.FD(), 0),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.LoadMem(asm.R2, asm.R2, 0, asm.Word),
	}
}

// owner makes R2, what is issued at place R9, the owner of a flow there: where nobody
// issues, that is generation 0.
func owner(label string) asm.Instructions {
	return asm.Instructions{
		asm.JNE.Imm(asm.R2, 0, label),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.Add.Imm(asm.R2, 1),
		asm.LSh.Imm(asm.R2, 16),
		asm.Mov.Reg(asm.R1, asm.R2).WithSymbol(label),
	}
}

// issue lets ids with a prefix, and its flows, come to a place; 0: none do.
func (e *mapped) issue(place int, prefix uint32) error {
	return setOfPlace(e.maps.issuers, place, prefix)
}

// inherit says to which place flows go that a place had.
func (e *mapped) inherit(place, heir int) error {
	return setOfPlace(e.maps.heirs, place, uint32(place^heir)) // so that 0 is the place itself
}

// setOfPlace writes what an array has for a place; nil has nothing.
func setOfPlace(array *ebpf.Map, place int, value uint32) error {
	if array == nil {
		return nil
	}
	var all [MaxPlaces]uint32
	if err := array.Lookup(uint32(0), &all); err != nil {
		return fmt.Errorf("read %s: %w", array, err)
	}
	all[place] = value
	if err := array.Put(uint32(0), &all); err != nil {
		return fmt.Errorf("write %s: %w", array, err)
	}
	return nil
}

func (g *steering) Issue(place int, gen uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.check(place); err != nil {
		return err
	}
	if gen == 0 {
		return g.engine.issue(place, 0)
	}
	return g.engine.issue(place, Prefix(place, gen))
}

func (g *steering) Inherit(place, heir int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.check(place); err != nil {
		return err
	}
	if err := g.check(heir); err != nil {
		return err
	}
	return g.engine.inherit(place, heir)
}
