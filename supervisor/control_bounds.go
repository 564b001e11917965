package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What a request may bring and how long it may take to bring it. A body that is announced and does not come must not keep a connection for ever.
const (
	maxBody     = 64 << 10
	bodyTimeout = 5 * time.Second
)

// controlBacklog is how many clients may wait to be accepted: a client of a Unix
// socket whose queue is full is not made to wait but turned away (EAGAIN).
const controlBacklog = 4096

// bounded reads a request's body before it is answered.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			rc.SetReadDeadline(time.Time{})
			var large *http.MaxBytesError
			switch {
			case errors.As(err, &large):
				reply(w, http.StatusRequestEntityTooLarge, &APIError{Text: fmt.Sprintf("a body of more than %d bytes", maxBody)})
				return
			case err != nil:
				reply(w, http.StatusBadRequest, &APIError{Text: "the body did not come: " + err.Error()})
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

// otherwise answers what no route takes, in JSON as all the rest.
func otherwise(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 || slices.Contains(allowed, r.Method) {
			reply(w, http.StatusNotFound, &APIError{Text: "there is no " + r.URL.Path})
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		reply(w, http.StatusMethodNotAllowed, &APIError{Text: fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " and "), r.Method)})
	}
}
