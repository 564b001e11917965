// Package inherited remembers what this process was started with and Go's own
// initialisation changes. It cannot be asked for later: package syscall raises the
// soft limit of descriptors and keeps the old one to itself.
//
// The one thing to know: it must import nothing and keep a path that sorts before
// "syscall". Packages are initialised in the order of their paths, each as soon as
// its imports are (The Go Programming Language Specification, "Program
// initialization"); so this one comes first, and its test says if it does not.
package inherited

// A Limit is a pair of resource limits, laid out as the kernel has it.
type Limit struct{ Soft, Hard uint64 }

// Descriptors returns RLIMIT_NOFILE as it was at the start of the process; false
// where it is not known.
func Descriptors() (Limit, bool) { return descriptors, known }

var descriptors, known = read()
