package supervisor

import (
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are made of the published status when somebody asks for them: they count
// nothing of their own but the requests to the control API. Counters begin at zero
// with each supervisor, as Prometheus expects, except those that the kernel keeps.

// An ExitCount is how many of an instance's processes have ended in one way.
type ExitCount struct {
	Code   int    `json:"code"` // 0 when a signal ended it
	Signal string `json:"signal,omitempty"`
	Count  int    `json:"count"`
}

// countExit returns counts with one more. Published ones are never written to.
func countExit(counts []ExitCount, code int, signal string) []ExitCount {
	counts = slices.Clone(counts)
	if signal != "" {
		code = 0
	}
	for i := range counts {
		if counts[i].Code == code && counts[i].Signal == signal {
			counts[i].Count++
			return counts
		}
	}
	return append(counts, ExitCount{code, signal, 1})
}

// A metric is one family.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("sockd_"+name, help, labels, nil), kind}
}

// send makes one sample; label values that are no UTF-8 (paths may be) are made so.
func (m metric) send(to chan<- prometheus.Metric, value float64, labels ...string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	to <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// families are described in docs/command.md.
type families struct {
	up, state, starts, fails, exits, stored, queued, backlog, drops, weight, steered, pid, build metric
}

func newFamilies() *families {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	instance, socket := []string{"unit", "instance"}, []string{"unit", "socket", "instance", "address", "held"}
	return &families{
		up:      newMetric(gauge, "unit_up", "1 if the operator wishes the unit to be up.", "unit"),
		state:   newMetric(gauge, "instance_state", "1 for the state that the instance is in; other states are not listed.", "unit", "instance", "state"),
		starts:  newMetric(counter, "instance_starts_total", "Processes started.", instance...),
		fails:   newMetric(gauge, "instance_failures_in_a_row", "Failures since the instance was last ready for long enough.", instance...),
		exits:   newMetric(counter, "instance_exits_total", "Processes that have ended, by exit code or by the signal that ended them.", "unit", "instance", "code", "signal"),
		stored:  newMetric(gauge, "instance_stored_descriptors", "Descriptors in the instance's store.", instance...),
		queued:  newMetric(gauge, "socket_queued", "What waits in the socket: connections, or bytes of datagrams.", socket...),
		backlog: newMetric(gauge, "socket_backlog", "How much may wait: connections, or bytes of datagrams.", socket...),
		drops:   newMetric(counter, "socket_drops_total", "What the kernel has turned away on this socket.", socket...),
		weight:  newMetric(gauge, "socket_weight", "A sibling's share of what is new; 0 gets nothing.", socket...),
		steered: newMetric(counter, "socket_steered_total", "Connections or datagrams that were steered to this sibling (level ebpf).", socket...),
		pid:     newMetric(gauge, "process_pid", "Process ids of sockd itself.", "role"),
		build:   newMetric(gauge, "build_info", "1, with the version that runs.", "version", "go"),
	}
}

// A collector reads what is published.
type collector struct {
	s *Supervisor
	*families
}

func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range []metric{c.up, c.state, c.starts, c.fails, c.exits, c.stored, c.queued, c.backlog, c.drops, c.weight, c.steered, c.pid, c.build} {
		to <- m.desc
	}
}

func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, u := range c.s.Units() {
		c.up.send(to, truth(u.Up), u.Name)
		for _, in := range u.Instances {
			n := strconv.Itoa(in.Instance)
			c.state.send(to, 1, u.Name, n, in.State)
			c.starts.send(to, float64(in.Starts), u.Name, n)
			c.fails.send(to, float64(in.Fails), u.Name, n)
			c.stored.send(to, float64(len(in.Stored)), u.Name, n)
			for _, e := range in.Exits {
				code := strconv.Itoa(e.Code)
				if e.Signal != "" {
					code = ""
				}
				c.exits.send(to, float64(e.Count), u.Name, n, code, e.Signal)
			}
		}
		for _, k := range u.Sockets {
			labels := func() []string {
				instance := ""
				if k.Instance > 0 {
					instance = strconv.Itoa(k.Instance)
				}
				return []string{k.Unit, k.Name, instance, k.Network + "://" + k.Address, k.Held}
			}
			c.queued.send(to, float64(k.Queued), labels()...)
			c.backlog.send(to, float64(k.Backlog), labels()...)
			c.drops.send(to, float64(k.Drops), labels()...)
			if k.Steering != "" {
				c.weight.send(to, float64(k.Weight), labels()...)
			}
			if k.Steered != nil {
				c.steered.send(to, float64(*k.Steered), labels()...)
			}
		}
	}
	c.pid.send(to, float64(c.s.pid()), "keeper")
	c.pid.send(to, float64(os.Getpid()), "supervisor")
	c.build.send(to, 1, c.s.cfg.Build.Version, runtime.Version())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A gauge of the control API: how long requests take, by route.
type metrics struct {
	latency *prometheus.HistogramVec
	handler func() http.Handler // made when first asked for: a sockd that nobody scrapes pays nothing
}

func (s *Supervisor) newMetrics() *metrics {
	m := &metrics{latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sockd_control_request_seconds", Help: "How long answers of the control API took; verbs wait for their outcome.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
	}, []string{"route"})}
	m.handler = sync.OnceValue(func() http.Handler {
		r := prometheus.NewRegistry()
		r.MustRegister(collector{s, newFamilies()}, m.latency, collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
	})
	return m
}

func (m *metrics) serve(w http.ResponseWriter, r *http.Request) { m.handler().ServeHTTP(w, r) }

// timed measures every answer. The mux has noted the route by the time it is there.
func (m *metrics) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		next.ServeHTTP(w, r)
		if r.Pattern == "" || r.Pattern == "/" || r.Pattern == "GET /v1/events" {
			return // a follower of events stays as long as it likes
		}
		m.latency.WithLabelValues(r.Pattern).Observe(time.Since(began).Seconds())
	})
}

// readCounts asks each group once what it has sent to its siblings.
func readCounts(sockets []SocketStatus) {
	counts := map[*group][]uint64{}
	for i := range sockets {
		k := &sockets[i]
		if k.group == nil {
			continue
		}
		steered, ok := counts[k.group]
		if !ok {
			if c, counted := k.group.steer.Counts(); counted {
				steered = c.Steered
			}
			counts[k.group] = steered
		}
		if at := k.group.at(k.Instance, k.Seat); at < len(steered) {
			k.Steered = &steered[at]
		}
	}
}
