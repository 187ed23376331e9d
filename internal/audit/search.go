package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

// Query selects entries; what is zero selects all. It decides nothing: who may
// see only the entries of one session asks with that SessionID.
type Query struct {
	UserID       string
	Action       string
	Result       Result
	ResourceType string
	ResourceID   string
	SessionID    string
	ProjectID    string
	Since        time.Time // inclusive
	Until        time.Time // exclusive
}

// MaxPage is the most entries that Search returns at once.
const MaxPage = 500

// where returns the query's condition on a table called e.
func (q Query) where() (string, pgx.NamedArgs) {
	conditions, args := []string{"true"}, pgx.NamedArgs{}
	add := func(condition, name string, value any) {
		conditions = append(conditions, condition)
		args[name] = value
	}
	for _, f := range []struct{ column, value string }{
		{"user_id", q.UserID}, {"action", q.Action}, {"resource_type", q.ResourceType}, {"resource_id", q.ResourceID},
		{"session_id", q.SessionID}, {"project_id", q.ProjectID},
	} {
		if f.value != "" {
			// Not empty, so that a partial index serves.
			add("e."+f.column+" = @"+f.column+" AND e."+f.column+" <> ''", f.column, text(f.value))
		}
	}
	switch q.Result {
	case "":
	case Allowed:
		add("e.result = @result", "result", q.Result)
	default:
		add("e.result = @result AND e.result <> 'allowed'", "result", q.Result)
	}
	// Of an entry's id and time the one is made right after the other.
	if !q.Since.IsZero() {
		add("e.created_at >= @since", "since", q.Since)
		add("e.id >= @since_id", "since_id", postgres.FirstID(q.Since.Add(-idSlack)))
	}
	if !q.Until.IsZero() {
		add("e.created_at < @until", "until", q.Until)
		add("e.id < @until_id", "until_id", postgres.FirstID(q.Until.Add(idSlack)))
	}
	return strings.Join(conditions, " AND "), args
}

// idSlack is more than an id's time and its entry's can be apart.
const idSlack = time.Second

// Search returns up to limit entries that the query selects, newest first,
// that are older than the one with the id before; uuid.Max begins. more says
// that there are further ones. limit is at most 500.
func (l *Log) Search(ctx context.Context, q Query, before uuid.UUID, limit int) (entries []Entry, more bool, err error) {
	limit = min(limit, MaxPage)
	where, args := q.where()
	args["before"], args["limit"] = before, limit+1
	rows, err := l.pool.Query(ctx, `SELECT `+rowColumns+` FROM audit_entries e
		WHERE e.id < @before AND `+where+` ORDER BY e.id DESC LIMIT @limit`, args)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("search the audit log: %w", err))
	}
	defer rows.Close()
	for rows.Next() {
		if len(entries) == limit {
			return entries, true, nil
		}
		r, err := scanRow(rows)
		if err != nil {
			return nil, false, fmt.Errorf("search the audit log: %w", err)
		}
		entries = append(entries, r.Entry)
	}
	if err := rows.Err(); err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("search the audit log: %w", err))
	}
	return entries, false, nil
}

// Each calls yield for every entry that the query selects, newest first, until
// it returns an error, which Each then returns. It holds a page of entries in
// memory and no transaction open, so that a slow reader costs nothing; entries
// that are written meanwhile are not among them.
func (l *Log) Each(ctx context.Context, q Query, yield func(Entry) error) error {
	for before := uuid.Max; ; {
		entries, more, err := l.Search(ctx, q, before, MaxPage)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := yield(e); err != nil {
				return err
			}
			before = e.ID
		}
		if !more {
			return nil
		}
	}
}
