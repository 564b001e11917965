package steer

// hashing leaves the choice to the kernel, which spreads over all sockets alike.
type hashing struct{}

func (hashing) level() Level { return Hash }

func (hashing) spread(_ *table, weights []int) error {
	for _, w := range weights {
		if w != weights[0] {
			return ErrUnsteered
		}
	}
	return nil
}

func (hashing) migrates() bool            { return migrateReq() }
func (hashing) leaving(int, int) error    { return nil }
func (hashing) left(int, int) error       { return nil }
func (hashing) entered(int, int) error    { return nil }
func (hashing) issue(int, uint32) error   { return nil }
func (hashing) inherit(int, int) error    { return nil }
func (hashing) counts(int) (Counts, bool) { return Counts{}, false }
func (hashing) held() map[string]int      { return nil }
func (hashing) close(int) error           { return nil }
