package supervisor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// scrape reads the metrics: sample, with its labels as written, to value.
func (f *fixture) scrape() map[string]float64 {
	f.t.Helper()
	status, text := f.curl("GET", "/metrics", nil)
	if status != 200 {
		f.t.Fatalf("%d %s", status, text)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			f.t.Fatalf("%q: %v", line, err)
		}
		samples[line[:i]] = v
	}
	return samples
}

func TestMetricsSayWhatStatusSays(t *testing.T) {
	f := newFixture(t, "web", fmt.Sprintf(siblings, "", 2, ""), "held", "[socket.x]\nlisten = [\"tcp4://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\nbacklog = 9\n")
	f.do("start", "web", Done)
	for range 3 {
		pid := f.unit("web").Instances[1].Runs[0].Pid
		kill(t, pid)
		f.awaitState("web", 2, "exited")
		f.awaitState("web", 2, "ready")
	}
	f.do("restart", "web", Done)
	f.until("the old ones to have left", func() bool {
		st := f.unit("web")
		return len(st.Instances[0].Runs)+len(st.Instances[1].Runs) == 2 && len(st.Instances[0].Exits) == 1 && len(st.Instances[1].Exits) == 2
	})
	for range 4 {
		c, err := net.Dial("tcp", f.unit("held").Sockets[1].Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	const asked = 200
	for range asked {
		if _, err := ask("tcp", f.address("web", "http")); err != nil {
			t.Fatal(err)
		}
	}
	check := func(have map[string]float64, want map[string]float64) {
		t.Helper()
		for name, v := range want {
			if got, ok := have[name]; !ok || got != v {
				t.Errorf("%s is %v (there: %v), not %v", name, got, ok, v)
			}
		}
	}
	want := map[string]float64{
		`sockd_unit_up{unit="web"}`:                                                    1,
		`sockd_instance_state{instance="2",state="ready",unit="web"}`:                  1,
		`sockd_instance_starts_total{instance="1",unit="web"}`:                         2,
		`sockd_instance_starts_total{instance="2",unit="web"}`:                         5,
		`sockd_instance_exits_total{code="",instance="2",signal="SIGKILL",unit="web"}`: 3,
		`sockd_instance_exits_total{code="0",instance="2",signal="",unit="web"}`:       1,
		`sockd_instance_exits_total{code="0",instance="1",signal="",unit="web"}`:       1,
	}
	second := f.unit("held").Sockets[1]
	labels := fmt.Sprintf(`{address="tcp://%s",held=%q,instance="",socket="x",unit="held"}`, second.Address, second.Held)
	have := f.scrape()
	check(have, want)
	check(have, map[string]float64{
		"sockd_socket_queued" + labels: 4, "sockd_socket_backlog" + labels: 9, "sockd_socket_drops_total" + labels: 0,
		`sockd_process_pid{role="supervisor"}`: float64(os.Getpid()),
	})
	if f.unit("web").Sockets[0].Steering == "ebpf" {
		sum := 0.0
		for name, v := range have {
			if strings.HasPrefix(name, "sockd_socket_steered_total{") {
				sum += v
			}
		}
		if sum != asked {
			t.Errorf("%v connections steered, %d asked", sum, asked)
		}
	}
	before := have[`sockd_control_request_seconds_count{route="GET /metrics"}`]
	if have = f.scrape(); have[`sockd_control_request_seconds_count{route="GET /metrics"}`] != before+1 {
		t.Error("a request is not counted")
	}
	for name := range have {
		if strings.Contains(name, "events") {
			t.Errorf("a follower counts as slow: %s", name)
		}
	}
	f.crash()
	f.start()
	check(f.scrape(), want) // what has been counted outlives a supervisor
}

// Nobody waits for the loop to be told numbers.
func TestMetricsOfASupervisorThatHangs(t *testing.T) {
	f := newFixture(t, "web", onDemand)
	held, let := make(chan bool), make(chan bool)
	go f.s.ask(t.Context(), func() error { close(held); <-let; return nil })
	<-held
	defer close(let)
	if have := f.scrape(); have[`sockd_instance_state{instance="1",state="idle",unit="web"}`] != 1 {
		t.Error("no state")
	}
}
