package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file that is asked who it is may be anything: none keeps us waiting for ever.
func TestAskedProgramNeedNotEnd(t *testing.T) {
	defer func(before time.Duration) { handshakePatience = before }(handshakePatience)
	const short = time.Second / 2 // for those that would never end
	const build = `{"program":"sockd","version":"v1.2.3"}`
	for _, c := range []struct {
		name, script string
		patience     time.Duration
		says         string // "": who it is
	}{
		{"says it and ends", "echo '" + build + "'", patience, ""},
		{"says it and stays", "echo '" + build + "'; exec >&- 2>&-; exec sleep 600", short, "did not say within"},
		{"says nothing and stays", "exec sleep 600", short, "did not say within"},
		{"never stops talking", "while :; do echo '" + build + "'; done", patience, "does not work"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			handshakePatience = c.patience
			answer := make(chan error, 1)
			go func() {
				_, err := askProgram(f)
				answer <- err
			}()
			select {
			case err := <-answer:
				var refused *refusal
				if c.says == "" && err != nil || c.says != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("%v, want %q", err, c.says)
				}
			case <-time.After(patience):
				t.Fatal("it is waited for")
			}
		})
	}
}
