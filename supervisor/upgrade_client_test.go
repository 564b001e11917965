package supervisor

import (
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Who asks for an upgrade while another is under way may be cut off with the supervisor
// that ends, and may hear of the later one when his own is over.
func TestUpgradeIsAskedForAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		known  bool
		wanted string
	}{
		{"its end is known", true, Done},
		{"another has followed", false, Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			ln, err := net.Listen("unix", filepath.Join(dir, ControlSocket))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			mux := http.NewServeMux()
			var asked atomic.Int32
			mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
				reply(w, http.StatusAccepted, &Upgrade{ID: "2", Outcome: UnderWay})
			})
			mux.HandleFunc("GET /v1/upgrade", func(w http.ResponseWriter, r *http.Request) {
				if tc.known {
					reply(w, http.StatusOK, &Upgrade{ID: "2", Outcome: Done})
				} else {
					reply(w, http.StatusNotFound, &APIError{Text: "no upgrade here has the id"})
				}
			})
			go http.Serve(ln, mux)
			up, err := NewClient(dir).Upgrade(t.Context(), UpgradeRequest{})
			if err != nil || up.Outcome != tc.wanted || asked.Load() != 2 {
				t.Errorf("asked %d times: %+v (%v)", asked.Load(), up, err)
			}
		})
	}
}
