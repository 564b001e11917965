package direct

import (
	"strings"
	"unsafe"
)

// A block is one piece of memory for all strings of a plan.
type block struct {
	free []byte
	spec *Spec
	bad  bool // a string had a NUL byte
}

func newBlock(s *Spec, env []string, path string) *block {
	size := len(s.Dir) + 1
	for _, v := range s.Argv {
		size += len(v) + 1
	}
	for _, v := range env {
		size += len(v) + 1
	}
	for _, list := range [][]string{s.PidEnv, s.PidfdEnv} {
		for _, v := range list {
			size += len(v) + 1 + digits
		}
	}
	elements := strings.Count(path, ":") + 1
	size += len(path) + elements*(len(s.Argv[0])+2)
	return &block{free: make([]byte, size), spec: s}
}

// take cuts n bytes off the block.
func (b *block) take(n int) []byte {
	mine := b.free[:n:n]
	b.free = b.free[n:]
	return mine
}

// add puts the parts and a NUL byte into the block.
func (b *block) add(parts ...string) *byte {
	n := 1
	for _, s := range parts {
		n += len(s)
		b.bad = b.bad || strings.IndexByte(s, 0) >= 0
	}
	mine := b.take(n)
	at := 0
	for _, s := range parts {
		at += copy(mine[at:], s)
	}
	return unsafe.SliceData(mine)
}

// list leaves room for the variables that are the child's to set.
func (b *block) list(strs []string) []*byte {
	list := make([]*byte, len(strs)+len(b.spec.PidEnv)+len(b.spec.PidfdEnv)+1)
	for i, s := range strs {
		list[i] = b.add(s)
	}
	return list
}

// variable puts "name=" and room for a number into the block, and the place of
// the number on the list.
func (b *block) variable(name string, places []*byte) (*byte, []*byte) {
	b.bad = b.bad || strings.IndexByte(name, 0) >= 0
	mine := b.take(len(name) + 1 + digits)
	copy(mine, name)
	mine[len(name)] = '='
	return unsafe.SliceData(mine), append(places, &mine[len(name)+1])
}

// programs lists the files that may be meant by name, in the order of execvp(3).
func (b *block) programs(name, path string) (files []*byte, lookup bool) {
	if strings.Contains(name, "/") {
		return []*byte{b.add(name)}, false
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" { // the current directory, which is the service's by then
			files = append(files, b.add(name))
		} else {
			files = append(files, b.add(dir, "/", name))
		}
	}
	return files, true
}
