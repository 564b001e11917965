package units

// Quote writes s as a TOML basic string, with its quotes: what a program puts into
// a unit file that it writes.
func Quote(s string) string { return tomlString(s) }
