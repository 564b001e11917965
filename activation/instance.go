package activation

import (
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
