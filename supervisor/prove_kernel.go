package supervisor

import (
	"fmt"
	"os"
	"strings"
)

// kernelCounts are of the network namespace. Only sockd moves connections in most.
type kernelCounts struct {
	unmoved, resets uint64
	opened          uint64 // by somebody else: each connection that came into a queue
}

func readKernelCounts() (c kernelCounts) {
	c.unmoved = netCounter("/proc/net/netstat", "TcpExt", "TCPMigrateReqFailure")
	c.resets = netCounter("/proc/net/snmp", "Tcp", "OutRsts")
	c.opened = netCounter("/proc/net/snmp", "Tcp", "PassiveOpens")
	return c
}

// movedConnections is how many have been moved from one listener's queue to another's.
func movedConnections() uint64 {
	return netCounter("/proc/net/netstat", "TcpExt", "TCPMigrateReqSuccess")
}

// netCounter reads one counter of a file that has two lines for each protocol: names
// and values. What is not there counts nothing.
func netCounter(file, protocol, name string) (n uint64) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		for i := range min(len(names), len(words)) {
			if names[i] == name {
				fmt.Sscan(words[i], &n)
			}
		}
	}
	return n
}
