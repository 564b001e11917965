package supervisor

import (
	"context"
	"os"
	"strings"
)

// The files of a service's environment are read when a run starts, and beside the loop:
// a disk that hangs holds up those runs, and nobody else.

// A filesRead is what came of reading the files of a run.
type filesRead struct {
	run  *run
	vars []string
	err  error
}

// readFiles reads a run's files; filesRead goes on from there. Of a unit one run's are
// read at a time, so that a disk that hangs takes one thread of us.
func (s *Supervisor) readFiles(r *run) {
	var ctx context.Context
	ctx, r.unread = context.WithCancel(context.Background())
	if r.unit.reading == nil {
		r.unit.reading = make(chan struct{}, 1)
	}
	files, turn := r.unit.conf.Service.EnvironmentFiles, r.unit.reading
	go func() {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return
		case <-s.quit:
			return
		}
		vars, err := readEnvironmentFiles(files)
		<-turn
		select {
		case s.files <- filesRead{r, vars, err}:
		case <-ctx.Done():
		case <-s.quit:
		}
	}()
}

// filesWereRead starts the run, unless it has been told to leave meanwhile.
func (s *Supervisor) filesWereRead(n filesRead) {
	switch r := n.run; {
	case r.unread == nil:
	case n.err != nil:
		s.unreadFailed(r, n.err.Error())
	default:
		r.read()
		s.launchOrFail(r, n.vars)
	}
}

// unreadFailed ends a run that has no process yet.
func (s *Supervisor) unreadFailed(r *run, because string) {
	r.read()
	s.follow = append(s.follow, news{r.unit, s.spawnFailed(r, "environment", "environment_files: "+because)})
}

// read: its files are read, or nobody waits for them any more.
func (r *run) read() {
	r.unread()
	r.unread = nil
}

// readEnvironmentFiles reads them in order. A test has a disk of its own.
var readEnvironmentFiles = func(files []string) (all []string, err error) {
	for _, file := range files {
		path, optional := strings.CutPrefix(file, "-")
		vars, err := readEnvironmentFile(path)
		if optional && os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, vars...)
	}
	return all, nil
}
