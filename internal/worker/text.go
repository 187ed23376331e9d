package worker

import (
	"strings"
	"unicode/utf8"
)

// What a task can hold; the contract's limits, in bytes.
const (
	maxOutput = 1 << 20
	maxError  = 64 << 10
)

// clean returns s as valid UTF-8 without U+0000, which PostgreSQL cannot store.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// bounded returns s cleaned and in at most limit bytes, with a mark where it
// was cut.
func bounded(s string, limit int) string {
	const mark = " … [cut]"
	s = clean(s)
	if len(s) <= limit {
		return s
	}
	return prefix(s, limit-len(mark)) + mark
}

// prefix returns the longest beginning of s that has at most limit bytes and
// ends with a whole character.
func prefix(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
