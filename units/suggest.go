package units

import "strings"

// didYouMean is a hint that names the candidate nearest to got, or "" if none is
// near enough to be worth reading.
func didYouMean(got string, candidates []string) string {
	const longest = 40 // no key or word of ours is longer; and the distance costs length squared
	if len(got) > longest {
		return ""
	}
	plain := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
	}
	best, least := "", max(1, len(got)/3)+1
	for _, c := range candidates {
		if d := distance(plain(got), plain(c)); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

// distance counts the letters to add, drop, change or swap with a neighbour to
// get from a to b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
