package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Scope is what a read may see.
type Scope struct {
	All       bool   // everything
	ProjectID string // or this project; "": what belongs to none
	UserID    string // with ProjectID "": whose
	SessionID string // whose own budget is seen before it has a task
}

// Within is the condition that a row of a table, by its alias, is in the scope
// whose Args a statement has. The table has a project_id and a user_id.
func Within(alias string) string {
	return "(@scope_all OR " + alias + ".project_id = @scope_project AND (@scope_project <> '' OR " + alias + ".user_id = @scope_user))"
}

// Args adds the parameters of Within, scope_all, scope_project and scope_user, to
// args.
func (s Scope) Args(args pgx.NamedArgs) pgx.NamedArgs {
	args["scope_all"], args["scope_project"], args["scope_user"] = s.All, s.ProjectID, s.UserID
	return args
}

// Read runs a query, which can hold Within, and hands its rows to scan. Within a scope the database
// itself hides what is outside of it, whatever the query says: a second wall
// behind the query's own condition. The error goes through [Fault].
func Read(ctx context.Context, pool *pgxpool.Pool, s Scope, sql string, args pgx.NamedArgs, scan func(pgx.Rows) error) error {
	args = s.Args(args)
	if s.All {
		rows, err := pool.Query(ctx, sql, args)
		if err != nil {
			return Fault(err)
		}
		defer rows.Close()
		return Fault(errors.Join(scan(rows), rows.Err()))
	}
	b := &pgx.Batch{}
	b.Queue(`SELECT set_config('role', 'coderclaw_scoped', true),
		set_config('coderclaw.project', $1, true), set_config('coderclaw.user', $2, true), set_config('coderclaw.session', $3, true)`, s.ProjectID, s.UserID, s.SessionID)
	// Another text, for the plan depends on the role.
	b.Queue("/* scoped */ "+sql, args).Query(scan)
	return Fault(pool.SendBatch(ctx, b).Close())
}
