package steer

import "golang.org/x/sys/unix"

// Loads count from the payload; these two regions are special (linux/filter.h; the
// constants are negative there).
const (
	skfNetOff = 0xfff00000      // SKF_NET_OFF: from the IP header
	skfRandom = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM: a random number
)

// nowhere is an index that no group has: the kernel takes its hash.
const nowhere = 0xffffffff

// classicProgram answers with the kernel's index of a member. index gives it for a
// place, or -1. tcp picks a slot at random, so places are laid end to end; udp picks
// it by the sender's address and port, which keeps a flow where it is.
func classicProgram(t *table, k kind, index func(place uint16) int) []unix.SockFilter {
	if k.stream {
		t = sorted(t)
	}
	return append(slotOf(k), ranges(t, index)...)
}

// ranges is a chain: one comparison for each run of slots of one place.
func ranges(t *table, index func(place uint16) int) []unix.SockFilter {
	answer := func(place uint16) unix.SockFilter {
		if i := index(place); i >= 0 {
			return stmt(unix.BPF_RET|unix.BPF_K, uint32(i))
		}
		return stmt(unix.BPF_RET|unix.BPF_K, nowhere)
	}
	var ins []unix.SockFilter
	for slot := 0; slot < Slots-1; slot++ {
		if t[slot] != t[slot+1] {
			ins = append(ins, jump(unix.BPF_JGT, uint32(slot), 1, 0), answer(t[slot]))
		}
	}
	return append(ins, answer(t[Slots-1]))
}

// sorted has the same shares with the fewest runs.
func sorted(t *table) *table {
	var size [MaxPlaces]int
	for _, p := range t {
		size[p]++
	}
	out, slot := new(table), 0
	for p, n := range size {
		for ; n > 0; n-- {
			out[slot] = uint16(p)
			slot++
		}
	}
	return out
}

// slotOf leaves a slot in the accumulator.
func slotOf(k kind) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		half  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		octet = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		alu   = unix.BPF_ALU
	)
	if k.stream {
		return []unix.SockFilter{
			stmt(load, skfRandom),
			stmt(alu|unix.BPF_AND|unix.BPF_K, Slots-1),
		}
	}
	// addr ^ port * odd, and then the upper bits of a product with 2^32 divided by the
	// golden ratio: neighbours spread evenly (Knuth, vol. 3, 6.4). An IPv4 header with
	// options, or an IPv6 one with extensions, has something else where the port is
	// looked for: worse spread, and still the same for all packets of a flow.
	const fibonacci, odd = 0x9e3779b1, 0x85ebca6b
	mix := []unix.SockFilter{
		stmt(alu|unix.BPF_MUL|unix.BPF_K, odd),
		stmt(alu|unix.BPF_XOR|unix.BPF_X, 0),
		stmt(alu|unix.BPF_MUL|unix.BPF_K, fibonacci),
		stmt(alu|unix.BPF_RSH|unix.BPF_K, 22), // 32 bits less 10: 1024 slots
	}
	v4 := []unix.SockFilter{
		stmt(load, skfNetOff+12), // source address
		stmt(unix.BPF_MISC|unix.BPF_TAX, 0),
		stmt(half, skfNetOff+20), // source port
	}
	if !k.v6 {
		return append(v4, mix...)
	}
	v6 := []unix.SockFilter{stmt(load, skfNetOff+8)}
	for _, at := range []uint32{12, 16, 20} {
		v6 = append(v6,
			stmt(unix.BPF_MISC|unix.BPF_TAX, 0),
			stmt(load, skfNetOff+at),
			stmt(alu|unix.BPF_XOR|unix.BPF_X, 0))
	}
	v6 = append(v6,
		stmt(unix.BPF_MISC|unix.BPF_TAX, 0),
		stmt(half, skfNetOff+40))
	ins := []unix.SockFilter{
		stmt(octet, skfNetOff),
		stmt(alu|unix.BPF_RSH|unix.BPF_K, 4), // the version
		jump(unix.BPF_JEQ, 6, uint8(len(v4)+1), 0),
	}
	ins = append(ins, v4...)
	ins = append(ins, stmt(unix.BPF_JMP|unix.BPF_JA, uint32(len(v6))))
	ins = append(ins, v6...)
	return append(ins, mix...)
}

func stmt(code int, k uint32) unix.SockFilter { return unix.SockFilter{Code: uint16(code), K: k} }

func jump(op int, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: uint16(unix.BPF_JMP | op | unix.BPF_K), Jt: yes, Jf: no, K: k}
}
