//go:build !amd64 && !arm64

package direct

// Start returns ErrUnsupported.
func Start(*Plan) (pid, pidfd int, failure *Failure, err error) { return 0, -1, nil, ErrUnsupported }

// Child tells of no child.
func (p *Plan) Child() (pid, pidfd int, ok bool) { return 0, -1, false }

type call struct{}
