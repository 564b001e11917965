package supervisor

// crashpoint, which tests set, is called between the steps of what must be whole
// whenever this process dies. What the keeper is asked to do are steps too; tests
// see those by standing before the keeper.
var crashpoint func(point string)

// passing names a place where it may die.
func passing(point string) {
	if crashpoint != nil {
		crashpoint(point)
	}
}
