//go:build amd64 || arm64

package inherited

import "unsafe"

func read() (l Limit, ok bool) { return l, getNofile(unsafe.Pointer(&l)) == 0 }

// getNofile is prlimit64(0, RLIMIT_NOFILE, nil, limit); it returns what the kernel does.
//
//go:noescape
func getNofile(limit unsafe.Pointer) int64
