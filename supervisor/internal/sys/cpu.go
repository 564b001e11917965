package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CPUs lists the CPUs that this process may use, by number. A cpuset may change them
// at any time.
func CPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var list []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list, nil
}

// AnyCPU is what IncomingCPU takes for none in particular.
const AnyCPU = -1

// IncomingCPU makes a socket of a reuseport group the one for what arrives on that
// CPU, where no program chooses (SO_INCOMING_CPU, socket(7); heeded in groups since
// Linux 6.2).
func IncomingCPU(fd, cpu int) error {
	if have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU); err == nil && have == cpu {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu)
}
