package clawbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) progressCommand() *cobra.Command {
	var tasks int
	cmd := &cobra.Command{
		Use:   "progress",
		Short: "Report progress on tasks that run",
		Long: `Report progress on tasks that run, each time on one of them at random, as the
worker that holds its lease: a change of the task and an event.

The baseline runs the server's statement for each of them on as many tasks, in a
transaction of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tasks < 1 {
				return errors.New("--tasks must be positive")
			}
			return b.run(cmd.Context(), "progress", "reports", nil, func(ctx context.Context, r *rig, res *result) error {
				p, err := b.progress(tasks)
				if err != nil {
					return err
				}
				return b.measure(ctx, r, res, p)
			})
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addLoadFlags(cmd)
	cmd.Flags().IntVar(&tasks, "tasks", 1000, "how many tasks run")
	return cmd
}

// progressWorker holds the leases of the tasks that are reported on.
const progressWorker = "clawbench-progress"

func (b *bench) progress(tasks int) (plan, error) {
	event := api.ReportEvent{Type: api.EventProgress, Progress: new(50), Message: progressMessage}
	body, err := encode(api.Report{Events: []api.ReportEvent{event}})
	if err != nil {
		return plan{}, err
	}
	zero := time.Now().UnixMilli() - 2*int64(tasks)
	s := &script{}
	s.report(event, zero, tasks+1, 2*tasks)
	return plan{baseline: s, prepare: func(ctx context.Context, r *rig) (turn, error) {
		// The other half of the tasks is the baseline's.
		all, err := r.runTasks(ctx, zero, 2*tasks)
		if err != nil {
			return nil, err
		}
		operate := reportOn(all[:tasks], body)
		return func(ctx context.Context) (*tally, error) { return b.load().run(ctx, r.workers.target, operate) }, nil
	}}, nil
}

// reportOn returns the operation of reporting on one of the tasks.
func reportOn(tasks []leased, body []byte) func(context.Context, *connection) error {
	return func(_ context.Context, c *connection) error {
		t := tasks[rand.IntN(len(tasks))]
		return c.report(t.id, t.lease, body)
	}
}

// leased is a task that a worker of ours holds.
type leased struct{ id, lease string }

// report says something of a task under its lease.
func (c *connection) report(id, lease string, body []byte) error {
	_, err := c.call(http.MethodPost, "/v1/tasks/"+id+"/reports", acceptJSON+"Lease-Token: "+lease+"\r\n", body, nil)
	return err
}

// runningSQL writes tasks that run, with leases that outlast a benchmark and are
// named as the tasks are; see pastSQL for $1 to $3.
const runningSQL = pastSQL + `, t AS (
	INSERT INTO tasks (id, created_at, updated_at, started_at, last_seq, last_txid, attempt, claimable, status, dispatch,
		agent_id, user_id, description, input, worker_id, lease_token, lease_expires_at)
	SELECT id, at, at, at, 3, pg_current_xact_id(), 1, false, 'running', 'auto',
		$4, 'local', $5, $6, $7, id, now() + interval '1 day' FROM n
), e AS (
	INSERT INTO task_events (task_id, seq, txid, created_at, type, status)
	SELECT id, e.seq, pg_current_xact_id(), at, 'status', e.status FROM n, (VALUES (1, 'pending'), (2, 'planning'), (3, 'running')) e (seq, status)
)
SELECT id::text FROM n ORDER BY n`

// runTasks writes n tasks that a worker of ours runs, from number 1 on; zero is
// as in pastSQL.
func (r *rig) runTasks(ctx context.Context, zero int64, n int) (all []leased, err error) {
	if err := r.registerWorker(ctx, progressWorker, n); err != nil {
		return nil, err
	}
	p := payload()
	err = r.query(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, runningSQL, 1, n, zero, noopAgent, p.Description, p.Input, progressWorker)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l leased, err error) {
			err = row.Scan(&l.id)
			l.lease = l.id
			return l, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write running tasks: %w", err)
	}
	return all, nil
}
