package steer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Open steers the sockets of one address. fds[place] is bound with SO_REUSEPORT and,
// if it is tcp, listens; -1 leaves the place empty. They stay the caller's. Without
// [Options].Held they must stand in the order in which they listened (udp: were
// bound) and nobody else may be in the group. A listener that somebody has shut
// down is made to listen again.
//
// want is the best level to try; Best tries all. If it cannot be had the next one is
// taken, and Why says why: only bad sockets are an error. All weights are 0 at
// first: everybody holds. With Held they are what they were, in units of 1/Slots.
func Open(fds []int, want Level, o Options) (Group, error) {
	if len(fds) == 0 || len(fds) > MaxPlaces {
		return nil, fmt.Errorf("steer: %d sockets are not in 1..%d", len(fds), MaxPlaces)
	}
	s := &steering{wire: kernel{}}
	if err := s.begin(fds); err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	if err := s.choose(want, o); err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	if err := s.prune(); err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	return s, nil
}

// prune gives the slots of places that are no more to others: a table that was adopted
// may have them.
func (s *steering) prune() error {
	for _, place := range s.table {
		if !s.has(int(place)) {
			return s.again()
		}
	}
	return nil
}

// begin fills the books: everybody holds.
func (s *steering) begin(fds []int) error {
	s.fds = append([]int(nil), fds...)
	s.weights = make([]int, len(fds))
	s.quiet = make([]time.Time, len(fds))
	s.home = extend(new(table), 1, len(fds))
	s.table = s.home
	first := true
	for place, fd := range fds {
		if fd < 0 {
			continue
		}
		k, err := s.wire.kind(fd)
		if err != nil {
			return fmt.Errorf("place %d: %w", place, err)
		}
		if !first && k != s.kind {
			return fmt.Errorf("place %d is %s, the first is %s", place, k, s.kind)
		}
		s.kind, first = k, false
	}
	if first {
		return errors.New("no socket")
	}
	s.table = s.plan(s.weights)
	return nil
}

// choose opens the best level that can be had.
func (s *steering) choose(want Level, o Options) error {
	var why []string
	for level := max(want, EBPF); level <= Hash; level++ {
		var err error
		s.engine, err = s.openLevel(level, o)
		if err == nil {
			s.why = strings.Join(why, "; ")
			return nil
		}
		why = append(why, fmt.Sprintf("%s: %v", level, err))
	}
	return errors.New(strings.Join(why, "; "))
}

func (s *steering) openLevel(level Level, o Options) (engine, error) {
	switch level {
	case EBPF:
		if err := s.heal(nil); err != nil {
			return nil, err
		}
		return openEBPF(s, o)
	case ClassicBPF:
		return openClassic(s, o)
	}
	if err := s.heal(nil); err != nil {
		return nil, err
	}
	// Steering that nobody knows any more must not go on. It may need Linux 5.3, and
	// where that is missing nothing can be attached that we have not attached.
	return hashing{}, s.each(func(fd int) error {
		if err := detach(fd); !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
		return nil
	})
}

// heal makes every socket listen that should, and tells which did not.
func (s *steering) heal(again func(fd int)) error {
	if !s.kind.stream {
		return nil
	}
	return s.each(func(fd int) error {
		listening, _, _, err := s.wire.look(fd)
		if err != nil || listening {
			return err
		}
		if err := s.wire.listen(fd, maxBacklog); err != nil {
			return err
		}
		if again != nil {
			again(fd)
		}
		return nil
	})
}

func (s *steering) each(do func(fd int) error) error {
	for place, fd := range s.fds {
		if fd < 0 {
			continue
		}
		if err := do(fd); err != nil {
			return fmt.Errorf("place %d: %w", place, err)
		}
	}
	return nil
}

// adopt takes a table over that is at work.
func (s *steering) adopt(t *table) {
	s.table = t
	clear(s.weights)
	for _, place := range t {
		if s.has(int(place)) {
			s.weights[place]++
		}
	}
}

// attach sets a program through the first member that lets it be set; it is the whole
// group's. Only through one that listens: set on another it would make a group of
// its own there.
func (s *steering) attach(set func(fd int) error) error {
	err := errors.New("no socket listens")
	for _, fd := range s.fds {
		if fd < 0 {
			continue
		}
		if s.kind.stream {
			if listening, _, _, e := s.wire.look(fd); e != nil || !listening {
				continue
			}
		}
		if err = set(fd); err == nil {
			return nil
		}
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("attach program: %w (not permitted, or every socket is locked)", err)
	}
	return fmt.Errorf("attach program: %w", err)
}
