package clawbench

import (
	"context"
	"fmt"
	"strings"
)

// contender is one of those that are measured in turns.
type contender struct {
	name string
	turn func(context.Context) (figures, *usage, error)
	// yardstick says that the first contender is compared to this one, not this
	// one to the first.
	yardstick bool
}

// inTurns measures the contenders in turns, each first in every so many rounds.
func (b *bench) inTurns(ctx context.Context, contenders []contender) ([]row, []ratio, error) {
	rounds := make([][]figures, len(contenders))
	used := make([]*usage, len(contenders)) // of the last round
	for i := range contenders {
		rounds[i] = make([]figures, b.rounds)
	}
	for round := range b.rounds {
		for j := range contenders {
			i := (round + j) % len(contenders)
			var err error
			if rounds[i][round], used[i], err = contenders[i].turn(ctx); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", contenders[i].name, err)
			}
		}
		var said []string
		for i, c := range contenders {
			said = append(said, fmt.Sprintf("%s %.0f/s", c.name, rounds[i][round].PerSecond))
		}
		b.say("round %d of %d: %s", round+1, b.rounds, strings.Join(said, ", "))
	}
	var rows []row
	var ratios []ratio
	for i, c := range contenders {
		rows = append(rows, row{Name: c.name, figures: middle(rounds[i]), Usage: used[i]})
		if i == 0 {
			continue
		}
		of, to := i, 0
		if c.yardstick {
			of, to = 0, i
		}
		ratios = append(ratios, ratioOf(contenders[of].name, contenders[to].name, rounds[of], rounds[to]))
	}
	return rows, ratios, nil
}

// ratioOf compares two that were measured in the same rounds.
func ratioOf(of, to string, a, b []figures) ratio {
	pairs := make([][2]figures, len(a))
	for i := range a {
		pairs[i] = [2]figures{a[i], b[i]}
	}
	return ratio{
		Of: of, To: to,
		Throughput: medianOf(pairs, func(p [2]figures) float64 { return p[0].PerSecond / p[1].PerSecond }),
		P99:        medianOf(pairs, func(p [2]figures) float64 { return p[0].P99 / max(p[1].P99, 0.001) }),
	}
}
