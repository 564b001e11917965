package sys

import (
	"os"
	"testing"
)

// A leaf can be made also after somebody has removed the empty folder above it.
func TestLeafAfterTheFolderWasSwept(t *testing.T) {
	c, err := OpenCgroup()
	if err != nil {
		t.Skip(err)
	}
	defer c.Close()
	if err := os.Remove(c.dir); err != nil {
		t.Fatal(err)
	}
	l, err := c.NewLeaf()
	if err != nil {
		t.Fatal(err)
	}
	l.Remove()
}
