package units

import "iter"

// overlapping yields every two claims whose addresses the kernel takes for one, the one
// that stands later in the files first.
func overlapping(sources []*source) iter.Seq2[claim, claim] {
	type slot struct {
		family, path string
		port         uint16
	}
	return func(yield func(claim, claim) bool) {
		taken := map[slot][]claim{}
		for _, src := range sources {
			for i := range src.unit.Sockets {
				sock := &src.unit.Sockets[i]
				for j, a := range sock.Listen {
					c := claim{sock.endpoint(a), src, sock, a, src.listen[i][j]}
					at := slot{c.family, c.path, c.port}
					if c.port == 0 && c.path == "" {
						continue // a free port overlaps with nobody
					}
					for _, o := range taken[at] {
						if c.overlaps(o.endpoint) && !yield(c, o) {
							return
						}
					}
					taken[at] = append(taken[at], c)
				}
			}
		}
	}
}

// steals warns of what the kernel permits and takes traffic away: of two sockets on one
// port the more specific gets all that both could have, by whichever order they were
// bound; and a datagram socket with SO_REUSEADDR can be bound over by anybody.
func steals(sources []*source) (warnings Problems) {
	for c, o := range overlapping(sources) {
		if !c.share(o.endpoint) {
			continue // a problem, and no warning
		}
		if what := c.takes(o.endpoint); what != "" {
			warnings = append(warnings, c.warn(c.address.String()+" takes "+what+" from "+o.address.String()+" of "+o.whose(c)))
		} else if what := o.takes(c.endpoint); what != "" {
			warnings = append(warnings, c.warn(o.address.String()+" of "+o.whose(c)+" takes "+what+" from "+c.address.String()))
		}
	}
	for _, src := range sources {
		for i := range src.unit.Sockets {
			sock := &src.unit.Sockets[i]
			for j, a := range sock.Listen {
				if c := (claim{sock.endpoint(a), src, sock, a, src.listen[i][j]}); c.family == "udp" && c.addr && !c.ip.IsMulticast() {
					warnings = append(warnings, c.warn("reuse_addr = true lets any user of the machine bind it too, and the last to do so gets all datagrams but those to a multicast group"))
				}
			}
		}
	}
	return warnings
}

// takes says what an endpoint gets that the other would have without it; "" if nothing.
func (e endpoint) takes(o endpoint) string {
	switch {
	case e.path != "" || e.device != o.device:
		return ""
	case !e.any && o.any:
		return "what is sent to that address"
	case e.any && o.any && !e.v6 && o.v6:
		return "all IPv4"
	}
	return ""
}

func (c claim) warn(text string) Problem {
	return Problem{File: c.src.file, Line: c.spot.line, Col: c.spot.col, Key: dotted("socket", c.sock.Name, "listen"), Text: text}
}
