package clawbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (b *bench) soakCommand() *cobra.Command {
	m := &mix{bench: b}
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Do all at once for long, and see that nothing grows; then kill the server and see that nothing is lost",
		Long: `Do what mixed does at a steady rate, and look now and then at the server's memory
and goroutines and at the database's dead rows and size. Then the server is
killed with SIGKILL under load, and what it has acknowledged is looked for in the
database.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.check(); err != nil {
				return err
			}
			if b.url != "" {
				return errors.New("soak kills the server: it takes one that clawbench starts, not --url")
			}
			return b.run(cmd.Context(), "soak", "operations", nil, func(ctx context.Context, r *rig, res *result) error {
				return m.soak(ctx, r, res)
			})
		},
	}
	b.addFlags(cmd, time.Hour)
	b.addClientsFlag(cmd, 16)
	m.addFlags(cmd, 25)
	return cmd
}

// looks is how often a soak looks at the server.
const looks = 60

func (m *mix) soak(ctx context.Context, r *rig, res *result) error {
	if err := m.prepare(ctx, r); err != nil {
		return err
	}
	var seen []vitals
	g, watching := errgroup.WithContext(ctx)
	watching, stop := context.WithCancel(watching)
	g.Go(func() error {
		for sleep(watching, max(m.duration/looks, time.Second/2)) {
			v, err := m.rig.vitals(watching)
			if watching.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			seen = append(seen, v)
			m.say("%.0f MiB, %.0f goroutines, %.0f dead rows, %.0f bytes for each row", v.mib, v.goroutines, v.deadRows, v.bytesPerRow)
		}
		return nil
	})
	err := m.measure(ctx, res)
	stop()
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	noteTrend(res, seen)
	if err := m.killUnderLoad(ctx); err != nil {
		return err
	}
	return m.verify(ctx, res)
}

// vitals are what must not grow for ever.
type vitals struct{ mib, goroutines, deadRows, bytesPerRow float64 }

func (r *rig) vitals(ctx context.Context) (v vitals, err error) {
	bytes, err := residentOf(r.own.pid())
	if err != nil {
		return v, err
	}
	v.mib = float64(bytes) / (1 << 20)
	if v.goroutines, err = r.metric(ctx, "go_goroutines"); err != nil {
		return v, err
	}
	return v, r.query(ctx, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `SELECT coalesce(sum(n_dead_tup), 0)::float8, pg_database_size(current_database()) / greatest(sum(n_live_tup), 1)::float8
			FROM pg_stat_user_tables`).Scan(&v.deadRows, &v.bytesPerRow)
		if err != nil {
			return fmt.Errorf("look at the tables: %w", err)
		}
		return nil
	})
}

// metric reads a metric of the server that has no labels.
func (r *rig) metric(ctx context.Context, name string) (float64, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if err := c.send(http.MethodGet, "/metrics", "Accept: text/plain\r\n", nil); err != nil {
		return 0, err
	}
	_, body, err := c.receive(http.MethodGet, "/metrics")
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("the server has no metric %s", name)
}

// noteTrend sets the middle of the last third beside that of the first.
func noteTrend(res *result, seen []vitals) {
	if len(seen) == 0 {
		return
	}
	third := max(len(seen)/3, 1)
	first, last := seen[:third], seen[len(seen)-third:]
	for _, of := range []struct {
		name, unit string
		value      func(vitals) float64
	}{
		{"serverMiB", "MiB", func(v vitals) float64 { return v.mib }},
		{"goroutines", "", func(v vitals) float64 { return v.goroutines }},
		{"deadRows", "rows", func(v vitals) float64 { return v.deadRows }},
		{"bytesPerRow", "bytes of the database for each row", func(v vitals) float64 { return v.bytesPerRow }},
	} {
		res.note(of.name+"First", medianOf(first, of.value), of.unit)
		res.note(of.name+"Last", medianOf(last, of.value), of.unit)
	}
}

// killUnderLoad puts the mix on the server once more and kills it meanwhile.
func (m *mix) killUnderLoad(ctx context.Context) error {
	m.say("killing the server under load")
	ended := make(chan error, 1)
	go func() {
		_, _, err := m.run(ctx, time.Hour)
		ended <- err
	}()
	// Once it has completed some tasks it is in the middle of others.
	for enough := m.ledger.completed.count() + 20; m.ledger.completed.count() < enough; {
		select {
		case err := <-ended:
			return errors.Join(errors.New("the load ended before the server was killed"), err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := m.rig.own.kill(); err != nil {
		return err
	}
	if err := <-ended; err == nil {
		return errors.New("the load went on without the server")
	}
	return ctx.Err()
}

// verify looks whether what was acknowledged is there, and whole.
func (m *mix) verify(ctx context.Context, res *result) error {
	submitted, completed := m.ledger.submitted.copy(), m.ledger.completed.copy()
	res.note("submissionsAcknowledged", float64(len(submitted)+len(completed)), "tasks")
	res.note("completionsAcknowledged", float64(len(completed)), "tasks")
	acknowledged := slices.Concat(submitted, completed)
	return m.rig.query(ctx, func(conn *pgx.Conn) error {
		var broken []error
		for _, invariant := range []struct {
			name, what, sql string
			args            []any
		}{
			{"tasksLost", "acknowledged tasks are not there",
				`SELECT count(*) FROM unnest($1::uuid[]) a WHERE NOT EXISTS (SELECT FROM tasks WHERE id = a)`, []any{acknowledged}},
			{"completionsLost", "tasks whose completion was acknowledged are not completed",
				`SELECT count(*) FROM unnest($1::uuid[]) a WHERE NOT EXISTS (SELECT FROM tasks WHERE id = a AND status = 'completed')`, []any{completed}},
			{"entriesLost", "acknowledged tasks have no audit entry",
				`SELECT count(*) FROM unnest($1::uuid[]) a WHERE NOT EXISTS (SELECT FROM audit_entries WHERE resource_id = a::text AND action = 'task.submit')`, []any{acknowledged}},
			{"gaps", "tasks have events that are not 1, 2, 3, … to the last one",
				`SELECT count(*) FROM tasks t LEFT JOIN (SELECT task_id, count(*), min(seq), max(seq) FROM task_events GROUP BY 1) e ON task_id = id
				WHERE (count, min, max) IS DISTINCT FROM (last_seq, 1::bigint, last_seq)`, nil},
			{"endedOtherThanOnce", "tasks have not ended as often as their events say, or more than once",
				`SELECT count(*) FROM tasks t LEFT JOIN (SELECT task_id, count(*) FROM task_events
					WHERE type = 'status' AND status IN ('completed', 'failed', 'cancelled') GROUP BY 1) e ON task_id = id
				WHERE coalesce(count, 0) <> (completed_at IS NOT NULL)::int`, nil},
		} {
			var n int64
			if err := conn.QueryRow(ctx, invariant.sql, invariant.args...).Scan(&n); err != nil {
				return fmt.Errorf("look for %s: %w", invariant.name, err)
			}
			res.note(invariant.name, float64(n), invariant.what)
			if n > 0 {
				broken = append(broken, fmt.Errorf("%d %s", n, invariant.what))
			}
		}
		return errors.Join(broken...)
	})
}
