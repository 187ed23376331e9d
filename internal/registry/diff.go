package registry

import (
	"fmt"
	"slices"
	"strings"
)

// contextLines is how many lines that are the same stand around a difference.
const contextLines = 3

// unified compares two texts by line, in the unified format; "" if they are the
// same. Its time is that of sorting the lines, whatever they are: lines that
// stand once in each text, in the same order, hold the others in place.
func unified(fromName, toName, from, to string) string {
	if from == to {
		return ""
	}
	a, b := lines(from), lines(to)
	out := &strings.Builder{}
	fmt.Fprintf(out, "--- %s\n+++ %s\n", fromName, toName)
	var h hunk
	i, j := 0, 0 // what is written, or left out as being the same
	for _, s := range matches(a, b) {
		if i < s.a || j < s.b {
			if h.body == nil {
				before := min(i, contextLines)
				h = hunk{a: i - before, b: j - before}
				h.add(' ', a[i-before:i])
			}
			h.add('-', a[i:s.a])
			h.add('+', b[j:s.b])
		}
		i, j = s.a+s.n, s.b+s.n
		switch last := i == len(a) && j == len(b); {
		case h.body == nil:
		case last || s.n > 2*contextLines:
			h.add(' ', a[s.a:s.a+min(s.n, contextLines)])
			h.write(out)
			h = hunk{}
		default:
			h.add(' ', a[s.a:i])
		}
	}
	return out.String()
}

// lines splits a text; each line keeps its end.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	all := strings.SplitAfter(text, "\n")
	if last := len(all) - 1; all[last] == "" {
		all = all[:last]
	} else {
		all[last] += "\n\\ No newline at end of file\n"
	}
	return all
}

// hunk is a group of differences with the lines around them.
type hunk struct {
	a, b   int // where it begins
	na, nb int // how many lines it covers
	body   []string
}

func (h *hunk) add(sign byte, lines []string) {
	for _, l := range lines {
		h.body = append(h.body, string(sign)+l)
	}
	if sign != '+' {
		h.na += len(lines)
	}
	if sign != '-' {
		h.nb += len(lines)
	}
}

func (h *hunk) write(out *strings.Builder) {
	fmt.Fprintf(out, "@@ -%s +%s @@\n", extent(h.a, h.na), extent(h.b, h.nb))
	for _, l := range h.body {
		out.WriteString(l)
	}
}

// extent names n lines from index at on. Lines count from 1; none stand after
// the line that is named.
func extent(at, n int) string {
	if n > 0 {
		at++
	}
	return fmt.Sprintf("%d,%d", at, n)
}

// span is n lines from a on of one text that are those from b on of another.
type span struct{ a, b, n int }

// matches returns what two texts have in common, in order; the last one reaches
// to the end of both, and may be empty.
func matches(a, b []string) (spans []span) {
	i, j := 0, 0 // what lies before is dealt with
	for _, s := range slices.Concat([]span{{0, 0, 0}}, anchors(a, b), []span{{len(a), len(b), 0}}) {
		if s.a < i {
			continue // reached from the one before
		}
		end := s
		for end.a < len(a) && end.b < len(b) && a[end.a] == b[end.b] {
			end.a, end.b = end.a+1, end.b+1
		}
		for s.a > i && s.b > j && a[s.a-1] == b[s.b-1] {
			s.a, s.b = s.a-1, s.b-1
		}
		s.n = end.a - s.a
		spans = append(spans, s)
		i, j = end.a, end.b
	}
	return spans
}

// anchors returns the longest sequence of lines that stand once in either text
// and in the same order in both.
func anchors(a, b []string) []span {
	type places struct{ inA, inB, a, b int }
	seen := map[string]*places{}
	at := func(line string) *places {
		p := seen[line]
		if p == nil {
			p = &places{}
			seen[line] = p
		}
		return p
	}
	for i, line := range a {
		p := at(line)
		p.inA, p.a = p.inA+1, i
	}
	for j, line := range b {
		p := at(line)
		p.inB, p.b = p.inB+1, j
	}
	var once []span
	for i, line := range a {
		if p := seen[line]; p.inA == 1 && p.inB == 1 {
			once = append(once, span{a: i, b: p.b})
		}
	}
	return increasing(once)
}

// increasing returns a longest subsequence of spans, which are ordered by a,
// that is ordered by b too.
func increasing(spans []span) []span {
	var ends []int                    // by length: the last of the sequence that ends lowest
	before := make([]int, len(spans)) // the one before each in the best sequence that it ends
	for k, s := range spans {
		n, _ := slices.BinarySearchFunc(ends, s.b, func(e, b int) int { return spans[e].b - b })
		before[k] = -1
		if n > 0 {
			before[k] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, k)
		} else {
			ends[n] = k
		}
	}
	if len(ends) == 0 {
		return nil
	}
	longest := make([]span, len(ends))
	for n, k := len(ends)-1, ends[len(ends)-1]; n >= 0; n-- {
		longest[n] = spans[k]
		k = before[k]
	}
	return longest
}
