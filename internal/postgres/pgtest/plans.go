package pgtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/postgres"
)

// Plans looks at how the statements of a pool are carried out. It keeps what is
// asked through the pool and, afterwards, runs it again under EXPLAIN. The zero
// value is ready for use.
type Plans struct {
	mu   sync.Mutex
	open map[*pgx.Conn]*transaction // under way
	over []*transaction
	used map[string]bool // indexes
}

// transaction is one, with its statements in their order.
type transaction struct {
	statements []statement
	begun      bool // by a BEGIN
}

type statement struct {
	sql  string
	args []any
}

// bigPages is from how many pages on a table is one that nothing may read from
// end to end.
const bigPages = 32

// uniqueViolation is an SQLSTATE.
const uniqueViolation = "23505"

// PlansDB returns pools of a new database: its owner's, and the server's, whose
// statements are kept.
func PlansDB(t *testing.T) (owner, pool *pgxpool.Pool, plans *Plans) {
	t.Helper()
	url := URL(t)
	plans = &Plans{}
	for into, options := range map[**pgxpool.Pool][]postgres.Option{
		&owner: {postgres.MaxConns(1)},
		&pool:  {postgres.MaxConns(8), postgres.As(postgres.AppRole), plans.Keep},
	} {
		p, err := postgres.Open(t.Context(), url, options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		*into = p
	}
	return owner, pool, plans
}

// Keep is an option of DB that has a pool's statements kept.
func (p *Plans) Keep(c *pgxpool.Config) { c.ConnConfig.Tracer = p }

// Of runs fn and fails the test for each plan of a statement that fn has run
// through the pool which reads a table of more than 32 pages from end to end, or
// more than most rows of one, or sorts more than most rows. The statements are run
// again, with what they then find, and rolled back. At least one is expected.
func (p *Plans) Of(t *testing.T, pool *pgxpool.Pool, most float64, fn func()) {
	t.Helper()
	p.mu.Lock()
	p.over = nil
	p.mu.Unlock()
	fn()
	p.mu.Lock()
	over := p.over
	p.mu.Unlock()
	seen := 0
	for _, tx := range over {
		seen += p.again(t, pool, tx, most)
	}
	if seen == 0 {
		t.Error("no statement was run")
	}
}

// again runs a transaction again and returns how many of its statements it has
// looked at.
func (p *Plans) again(t *testing.T, pool *pgxpool.Pool, tx *transaction, most float64) (seen int) {
	t.Helper()
	again, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Rollback(context.WithoutCancel(t.Context())) }()
	for _, st := range tx.statements {
		if strings.Contains(st.sql, "set_config(") { // how the next ones are planned, and what they see
			_, err = again.Exec(t.Context(), st.sql, st.args...)
		} else {
			seen, err = seen+1, p.explain(t, again, st, most)
		}
		if err != nil {
			t.Errorf("again: %v:\n%s", err, st.sql)
			return seen
		}
	}
	return seen
}

// Uses reports whether any plan so far has used the index.
func (p *Plans) Uses(index string) bool { return p.used[index] }

// node is a part of a plan, as EXPLAIN writes it.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"` // in each loop, as the next two
	Filtered float64 `json:"Rows Removed by Filter"`
	Recheck  float64 `json:"Rows Removed by Index Recheck"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []node
}

func (p *Plans) explain(t *testing.T, tx pgx.Tx, st statement, most float64) error {
	t.Helper()
	var text string
	err := pgx.BeginFunc(t.Context(), tx, func(tx pgx.Tx) error {
		return tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+st.sql, st.args...).Scan(&text)
	})
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == uniqueViolation { // it cannot be done twice
		err = tx.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+st.sql, st.args...).Scan(&text)
	}
	if err != nil {
		return err
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		return err
	}
	rows, err := tx.Query(t.Context(), `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > $1 * current_setting('block_size')::int`, bigPages)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	big := map[string]bool{}
	for _, name := range names {
		big[name] = true
	}
	var found []string
	var walk func(n node)
	walk = func(n node) {
		read := (n.Rows + n.Filtered + n.Recheck) * n.Loops
		switch {
		case n.Type == "Seq Scan" && big[n.Relation]:
			found = append(found, fmt.Sprintf("reads %s from end to end", n.Relation))
		case big[n.Relation] && n.Type != "ModifyTable" && read > most:
			found = append(found, fmt.Sprintf("reads %.0f rows of %s by %s", read, n.Relation, n.Index))
		case strings.HasSuffix(n.Type, "Sort") && read > most:
			found = append(found, fmt.Sprintf("sorts %.0f rows", read))
		}
		if n.Index != "" {
			if p.used == nil {
				p.used = map[string]bool{}
			}
			p.used[n.Index] = true
		}
		for _, below := range n.Plans {
			walk(below)
		}
	}
	for _, plan := range plans {
		walk(plan.Plan)
	}
	if len(found) > 0 {
		t.Errorf("a statement %s:\n%s\n%s", strings.Join(found, "; "), st.sql, text)
	}
	return nil
}

// TraceQueryStart implements pgx.QueryTracer.
func (p *Plans) TraceQueryStart(ctx context.Context, conn *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch command, _, _ := strings.Cut(q.SQL, " "); strings.ToLower(command) {
	case "begin":
		p.begin(conn).begun = true
	case "commit", "rollback":
		p.end(conn)
	default:
		alone := p.open[conn] == nil
		tx := p.begin(conn)
		tx.statements = append(tx.statements, statement{q.SQL, q.Args})
		if alone {
			p.end(conn)
		}
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (p *Plans) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (p *Plans) TraceBatchStart(ctx context.Context, conn *pgx.Conn, b pgx.TraceBatchStartData) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	tx := p.begin(conn)
	for _, q := range b.Batch.QueuedQueries {
		tx.statements = append(tx.statements, statement{q.SQL, q.Arguments})
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (p *Plans) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (p *Plans) TraceBatchEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceBatchEndData) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if tx := p.open[conn]; tx != nil && !tx.begun {
		p.end(conn)
	}
}

// begin returns the connection's transaction, a new one if there is none.
func (p *Plans) begin(conn *pgx.Conn) *transaction {
	if p.open == nil {
		p.open = map[*pgx.Conn]*transaction{}
	}
	if p.open[conn] == nil {
		p.open[conn] = &transaction{}
	}
	return p.open[conn]
}

func (p *Plans) end(conn *pgx.Conn) {
	if tx := p.open[conn]; tx != nil {
		p.over = append(p.over, tx)
		delete(p.open, conn)
	}
}
