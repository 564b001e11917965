package activation

import (
	"encoding/hex"
	"os"
	"strconv"
)

// Instance says which of a unit's instances this process is and how many there
// are: n from 1 to of. A process that sockd did not start is 1 of 1. Variables:
// SOCKD_INSTANCE, SOCKD_INSTANCES; they stay in the environment.
func Instance() (n, of int) {
	n, errN := strconv.Atoi(os.Getenv("SOCKD_INSTANCE"))
	of, errOf := strconv.Atoi(os.Getenv("SOCKD_INSTANCES"))
	if errN != nil || errOf != nil || n < 1 || of < n {
		return 1, 1
	}
	return n, of
}

// ConnectionIDPrefix returns what a QUIC server is to begin each connection id with that
// it issues, so that packets for it come to this very process, also while another
// process replaces it: four bytes, followed by random ones, in the manner of the
// plaintext ids of draft-ietf-quic-load-balancers. It is nil where nobody routes by
// connection ids: any will do then. Key: flows = "quic". Variable:
// SOCKD_CONNECTION_ID_PREFIX, in hexadecimal; it stays in the environment.
func ConnectionIDPrefix() []byte {
	prefix, err := hex.DecodeString(os.Getenv("SOCKD_CONNECTION_ID_PREFIX"))
	if err != nil || len(prefix) != 4 {
		return nil
	}
	return prefix
}
