package clawbench

import (
	"context"
	"errors"
	"fmt"
)

// plan is how a benchmark measures how much can be done.
type plan struct {
	// prepare makes a server ready, once, and returns what measures a round of it.
	prepare func(context.Context, *rig) (turn, error)
	// baseline is what pgbench runs instead, on the first server's database.
	baseline *script
}

// turn measures one round.
type turn func(context.Context) (*tally, error)

// measure has the plan's rounds run for each number of clients, beside what the
// flags compare it with.
func (b *bench) measure(ctx context.Context, r *rig, res *result, p plan) error {
	contenders, err := b.servers(ctx, r, p)
	if err != nil {
		return err
	}
	if b.baseline == withPgbench {
		baseline, err := newPgbench(ctx, r)
		switch {
		case errors.Is(err, errNoPgbench):
			b.say("%v", err)
		case err != nil:
			return err
		default:
			contenders = append(contenders, contender{withPgbench, func(ctx context.Context) (figures, *usage, error) {
				return r.metered(ctx, func() (*tally, error) { return baseline.run(ctx, p.baseline, b.load()) })
			}, true})
		}
	}
	more, err := b.peerContenders(ctx, r)
	if err != nil {
		return err
	}
	contenders = append(contenders, more...)
	for _, b.clients = range b.counts {
		named := append([]contender{}, contenders...)
		if len(b.counts) > 1 {
			for i := range named {
				named[i].name = fmt.Sprintf("%s, %d clients", named[i].name, b.clients)
			}
		}
		rows, ratios, err := b.inTurns(ctx, named)
		if err != nil {
			return err
		}
		res.Rows, res.Ratios = append(res.Rows, rows...), append(res.Ratios, ratios...)
	}
	return nil
}

// servers are r's own and, to compare, others with each kind of preload.
func (b *bench) servers(ctx context.Context, r *rig, p plan) ([]contender, error) {
	add := func(all []contender, name string, r *rig, filling preload) ([]contender, error) {
		if err := b.fill(ctx, r, filling); err != nil {
			return nil, err
		}
		measured, err := p.prepare(ctx, r)
		return append(all, contender{name: name, turn: func(ctx context.Context) (figures, *usage, error) {
			return r.metered(ctx, func() (*tally, error) { return measured(ctx) })
		}}), err
	}
	if !b.compare {
		return add(nil, "server", r, b.preload)
	}
	all, err := add(nil, "empty", r, preload{})
	if err != nil {
		return nil, err
	}
	for _, kind := range []struct {
		count   int
		name    string
		preload preload
	}{
		{b.preload.finished, "finished", preload{finished: b.preload.finished}},
		{b.preload.blocked, "blocked", preload{blocked: b.preload.blocked, by: b.preload.by}},
	} {
		if kind.count == 0 {
			continue
		}
		other, err := r.beside(ctx, "clawbench_"+kind.name)
		if err != nil {
			return nil, err
		}
		if all, err = add(all, fmt.Sprintf("%d %s", kind.count, kind.name), other, kind.preload); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (b *bench) load() load { return load{b.clients, b.duration, b.rate} }

// metered runs a round and says what it used.
func (r *rig) metered(ctx context.Context, run func() (*tally, error)) (figures, *usage, error) {
	before, err := r.meter.read(ctx)
	if err != nil {
		return figures{}, nil, err
	}
	counted, err := run()
	if err != nil {
		return figures{}, nil, err
	}
	used, err := r.meter.since(ctx, before, counted.all)
	if err != nil {
		return figures{}, nil, err
	}
	f, err := counted.figures()
	return f, used, err
}
