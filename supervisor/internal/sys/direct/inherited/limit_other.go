//go:build !amd64 && !arm64

package inherited

func read() (l Limit, ok bool) { return Limit{}, false }
