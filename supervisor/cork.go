package supervisor

// cork has what the keeper is asked wait for the start that it is about, or for uncork,
// so that it is heard of in one message. What has an effect beside the keeper, and
// stands on what was saved, sends it off first.
func (s *Supervisor) cork() {
	if k := s.cfg.Keeper; k != nil {
		k.remote.Cork()
	}
}

func (s *Supervisor) uncork() {
	if k := s.cfg.Keeper; k != nil {
		k.remote.Uncork() // where that fails the keeper has gone
	}
}

func (s *Supervisor) sendOff() {
	if k := s.cfg.Keeper; k != nil {
		k.remote.Flush()
	}
}
