package units

import "strings"

// longestWord bounds what is compared: no key or word of ours is longer.
const longestWord = 40

// didYouMean is a hint that names the candidate nearest to got, or "" if none is
// near enough to be worth reading.
func didYouMean(got string, candidates []string) string {
	if len(got) > longestWord {
		return ""
	}
	got = plainWord(got)
	best, least := "", max(1, len(got)/3)+1
	for _, c := range candidates {
		if d := distance(got, plainWord(c)); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

// plainWord is a word without what people vary: case and the marks between parts.
func plainWord(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '_' || r == '-' || r == ' ':
			return -1
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// distance counts the letters to add, drop, change or swap with a neighbour to get
// from a to b (optimal string alignment). Neither may be longer than longestWord.
func distance(a, b string) int {
	var space [3][longestWord + 1]int
	before, last, row := space[0][:], space[1][:], space[2][:]
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
