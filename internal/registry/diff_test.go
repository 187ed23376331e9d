package registry_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/registry"
)

func TestDiffShowsWhatChangedWithThreeLinesAround(t *testing.T) {
	t.Parallel()
	var from, to strings.Builder
	for i := range 30 {
		fmt.Fprintf(&from, "line %d\n", i)
		switch i {
		case 5:
			to.WriteString("another 5\n")
		case 12:
		case 25:
			to.WriteString("line 25\nnew\n")
		default:
			fmt.Fprintf(&to, "line %d\n", i)
		}
	}
	want := `--- a
+++ b
@@ -3,14 +3,13 @@
 line 2
 line 3
 line 4
-line 5
+another 5
 line 6
 line 7
 line 8
 line 9
 line 10
 line 11
-line 12
 line 13
 line 14
 line 15
@@ -24,6 +23,7 @@
 line 23
 line 24
 line 25
+new
 line 26
 line 27
 line 28
`
	if got := registry.Unified("a", "b", from.String(), to.String()); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := registry.Unified("a", "b", "x", "x\n"); got != "--- a\n+++ b\n@@ -1,1 +1,1 @@\n-x\n\\ No newline at end of file\n+x\n" {
		t.Errorf("a last line without its end:\n%s", got)
	}
	if got := registry.Unified("a", "b", "x", "x"); got != "" {
		t.Errorf("the same text:\n%s", got)
	}
}

func TestDiffAppliedToTheFirstTextGivesTheSecond(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	text := func(words int) string {
		var b strings.Builder
		for range random.IntN(40) {
			fmt.Fprintf(&b, "%d\n", random.IntN(words))
		}
		return b.String()
	}
	for range 3000 {
		words := 1 + random.IntN(40)
		from, to := text(words), text(words)
		diff := registry.Unified("a", "b", from, to)
		if got, err := patched(from, diff); err != nil || got != to {
			t.Fatalf("from\n%sto\n%scame\n%sand made %q, %v", from, to, diff, got, err)
		}
	}
}

// patched applies a unified diff, whose every line must fit.
func patched(text, diff string) (string, error) {
	if diff == "" {
		return text, nil
	}
	from := strings.SplitAfter(text, "\n")
	var out strings.Builder
	at, left, right := 0, 0, 0
	take := func(line string) error {
		if at >= len(from) || from[at] != line {
			return fmt.Errorf("line %d is not %q", at+1, line)
		}
		at, left = at+1, left-1
		return nil
	}
	for _, line := range strings.SplitAfter(diff, "\n")[2:] {
		if line == "" {
			break
		}
		sign, rest := line[0], line[1:]
		var err error
		switch sign {
		case '@':
			var a, b int
			if left != 0 || right != 0 {
				return "", fmt.Errorf("a hunk lacks %d and %d lines", left, right)
			}
			if _, err := fmt.Sscanf(line, "@@ -%d,%d +%d,%d @@", &a, &left, &b, &right); err != nil {
				return "", err
			}
			if left > 0 {
				a--
			}
			if right > 0 {
				b--
			}
			out.WriteString(strings.Join(from[at:a], ""))
			at = a
			if n := strings.Count(out.String(), "\n"); n != b {
				return "", fmt.Errorf("a hunk goes to line %d and not to %d", b, n)
			}
		case ' ':
			err, right = take(rest), right-1
			out.WriteString(rest)
		case '-':
			err = take(rest)
		case '+':
			right--
			out.WriteString(rest)
		}
		if err != nil {
			return "", err
		}
	}
	out.WriteString(strings.Join(from[at:], ""))
	return out.String(), nil
}
