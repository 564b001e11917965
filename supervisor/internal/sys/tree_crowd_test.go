package sys

import (
	"strconv"
	"testing"
)

// A look comes to an end also where there is somebody new in every list.
func TestLookInACrowd(t *testing.T) {
	for name, c := range map[string]struct{ comes, want int }{"a crowd": {1 << 30, mostLists}, "three": {3, 4}} {
		lists := 0
		_, err := lookAt(func() ([]string, error) {
			if lists++; lists > 2*mostLists {
				t.Fatalf("%s: it looks without end", name)
			}
			return []string{"self", strconv.Itoa(1<<30 + min(lists, c.comes))}, nil // no process has such a number
		})
		if err != nil || lists != c.want {
			t.Errorf("%s: %d lists, %v", name, lists, err)
		}
	}
}
