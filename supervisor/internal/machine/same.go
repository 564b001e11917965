package machine

import "slices"

// Clone returns a unit that shares nothing with u.
func (u *Unit) Clone() *Unit {
	c := *u
	c.Weights = slices.Clone(u.Weights)
	c.Instances = slices.Clone(u.Instances)
	for i := range c.Instances {
		c.Instances[i].Runs = slices.Clone(c.Instances[i].Runs)
	}
	return &c
}

// Same reports whether u and v are the same in everything: what was saved of one need
// not be saved of the other.
func (u *Unit) Same(v *Unit) bool {
	return u.Spec == v.Spec && u.Up == v.Up && u.Paused == v.Paused && u.Scaled == v.Scaled && u.Watched == v.Watched &&
		u.LastGen == v.LastGen && u.Upto == v.Upto && slices.Equal(u.Weights, v.Weights) &&
		slices.EqualFunc(u.Instances, v.Instances, Instance.same)
}

func (in Instance) same(other Instance) bool {
	return slices.Equal(in.Runs, other.Runs) && in.Fails == other.Fails && in.Until == other.Until && in.Called == other.Called &&
		in.Watched == other.Watched && in.Ended == other.Ended && in.Failed == other.Failed && in.Because == other.Because &&
		in.Away == other.Away && in.EmptyBy == other.EmptyBy && in.FlushAt == other.FlushAt && in.Flushed == other.Flushed
}
