package machine

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// parseSpec reads the words after "spec". Defaults are those of unit files.
func parseSpec(t *testing.T, words []string) Spec {
	s := Spec{Instances: 1, StartTimeout: 30 * time.Second, StopTimeout: 30 * time.Second,
		Restart: OnFailure, Delay: 100 * time.Millisecond, DelayMax: 30 * time.Second, Reset: 10 * time.Second}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		length := func() time.Duration {
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		switch key {
		case "boot", "up":
		case "shared":
			s.OnDemand, s.Shared = true, true
		case "own":
			s.OnDemand, s.PerInstance = true, true
		case "steered": // at boot or on demand
			s.Steered, s.PerInstance = true, true
		case "flush":
			s.CanFlush = true
		case "exclusive":
			s.Exclusive = true
		case "overlap":
			s.Overlap = length()
		case "step":
			s.Step, _ = strconv.Atoi(value)
		case "notify":
			s.Notify = true
		case "instances":
			s.Instances, _ = strconv.Atoi(value)
		case "start":
			s.StartTimeout = length()
		case "stop":
			s.StopTimeout = length()
		case "watchdog":
			s.Watchdog = length()
		case "restart":
			s.Restart = Restart(value)
		case "delay":
			s.Delay = length()
		case "max":
			s.DelayMax = length()
		case "reset":
			s.Reset = length()
		default:
			t.Fatalf("unknown word in spec: %s", word)
		}
	}
	return s
}

// parseEvent reads what was heard. After the verb come web@N, gen=, upto=, status=,
// signal= and bare words.
func parseEvent(t *testing.T, words []string) Event {
	verb, n, gen, upto := words[0], 0, uint64(0), uint64(0)
	st, say, rest := Status{}, Notified{}, []string(nil)
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		num, _ := strconv.Atoi(value)
		length, _ := time.ParseDuration(value)
		switch {
		case strings.HasPrefix(word, "web@"):
			n, _ = strconv.Atoi(word[4:])
		case key == "gen":
			gen = uint64(num)
		case key == "upto":
			upto = uint64(num)
		case key == "status":
			st.Code = num
		case key == "signal":
			st.Signal = num
		case word == "core":
			st.Core = true
		case key == "ping":
			say.Alive = true
		case key == "trip":
			say.Trip = true
		case key == "stopping":
			say.Stopping = true
		case key == "reloading":
			say.Reloading = true
		case key == "watchdog" && verb == "says":
			say.Watchdog = length
		case key == "extend":
			say.Extend = length
		default:
			rest = append(rest, word)
		}
	}
	say.Instance, say.Gen = n, gen
	if verb == "unready" {
		say.Unready = strings.Join(rest, " ")
	}
	switch verb {
	case "start":
		return Start{}
	case "stop":
		return Stop{}
	case "restart":
		return Replace{Upto: upto}
	case "respec":
		return Respec{Spec: parseSpec(t, rest), Upto: upto}
	case "scale":
		n, _ = strconv.Atoi(rest[0])
		return Scale{Instances: n}
	case "pause":
		return Pause{}
	case "resume":
		return Resume{}
	case "emptied":
		return Emptied{Instance: n}
	case "connected":
		return Connected{Instance: n}
	case "execed":
		return Execed{Instance: n, Gen: gen}
	case "failed":
		return SpawnFailed{Instance: n, Gen: gen, Because: strings.Join(rest, " "), Jitter: 0.5}
	case "ready":
		say.Ready = true
		return say
	case "says", "unready":
		return say
	case "exited":
		return Exited{Instance: n, Gen: gen, Status: st, Jitter: 0.5}
	case "tick":
		return Tick{}
	}
	t.Fatalf("unknown event: %s", verb)
	return nil
}

// parseHeld reads what the keeper lists: web@1.7, web@1.7:running, web@1.7:running:15.
func parseHeld(t *testing.T, words []string) []Held {
	var held []Held
	for _, word := range words {
		parts := strings.Split(word, ":")
		place, gen, ok := strings.Cut(strings.TrimPrefix(parts[0], "web@"), ".")
		n, err1 := strconv.Atoi(place)
		g, err2 := strconv.ParseUint(gen, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			t.Fatalf("not a held run: %s", word)
		}
		h := Held{Instance: n, Gen: g}
		for _, part := range parts[1:] {
			if sig, err := strconv.Atoi(part); err == nil {
				h.Signal = sig
			} else {
				h.Running = part == "running"
			}
		}
		held = append(held, h)
	}
	return held
}
