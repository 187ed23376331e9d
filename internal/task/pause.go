package task

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Pause says that no task of an agent or a session is begun for now. What runs
// goes on, and tasks are accepted.
type Pause struct {
	Kind     PauseKind
	Name     string
	Reason   string
	PausedAt time.Time
	PausedBy string
}

// PauseKind says of what.
type PauseKind string

// What can be paused.
const (
	PauseAgent   PauseKind = "agent"
	PauseSession PauseKind = "session"
)

// Pause pauses an agent or the queue of a session. One that is paused already
// stays as it is. Once it returns, no claim begins a task of it.
//
// Faults: Invalid; Forbidden unless c may write the configuration, for an agent,
// or submit tasks, for a session, which must be one that c sees.
func (s *Service) Pause(ctx context.Context, c policy.Caller, p Pause) (Pause, error) {
	if !IsID(p.Name) {
		return Pause{}, fault.InvalidFields([]fault.Field{{Path: "path.id", Message: "must be an id"}})
	}
	if len(p.Reason) > MaxReasonBytes || !utf8.ValidString(p.Reason) {
		return Pause{}, fault.InvalidFields([]fault.Field{{Path: "body.reason", Message: fmt.Sprintf("must have at most %d bytes", MaxReasonBytes)}})
	}
	entry, err := s.mayPause(ctx, c, p.Kind, p.Name, "pause")
	if err != nil {
		return Pause{}, err
	}
	err = s.betweenClaims(ctx, entry, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO pauses AS p (kind, name, paused_by, reason) VALUES ($1, $2, $3, $4)
			ON CONFLICT (kind, name) DO UPDATE SET reason = p.reason RETURNING reason, paused_at, paused_by`,
			p.Kind, p.Name, c.UserID, p.Reason).Scan(&p.Reason, &p.PausedAt, &p.PausedBy)
	})
	return p, err
}

// Resume ends a pause; where there is none it does nothing. Faults: as of Pause.
func (s *Service) Resume(ctx context.Context, c policy.Caller, kind PauseKind, name string) error {
	entry, err := s.mayPause(ctx, c, kind, name, "resume")
	if err != nil {
		return err
	}
	return s.betweenClaims(ctx, entry, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM pauses WHERE kind = $1 AND name = $2`, kind, name)
		return err
	})
}

// mayPause decides about a pause, and returns the entry of that.
func (s *Service) mayPause(ctx context.Context, c policy.Caller, kind PauseKind, name, verb string) (audit.Entry, error) {
	r := policy.Request{Permission: policy.ConfigWrite, Action: string(kind) + "." + verb}
	on := subject{kind: string(kind), id: name}
	if kind == PauseSession {
		r.Permission, r.ProjectID = policy.TaskSubmit, c.ProjectID
	} else {
		on.whole = "agents are of the whole server"
	}
	return s.allowOn(ctx, c, r, on)
}

// Pauses returns what is paused: all agents, and the sessions that c may pause.
func (s *Service) Pauses(ctx context.Context, c policy.Caller) ([]Pause, error) {
	return s.pauses(ctx, `kind = 'agent' OR $1 OR name = $2 AND name <> ''`, c.AllProjects, c.SessionID)
}

func (s *Service) pauses(ctx context.Context, which string, args ...any) ([]Pause, error) {
	rows, err := s.pool.Query(ctx, `SELECT kind, name, reason, paused_at, paused_by FROM pauses WHERE `+which+` ORDER BY kind, name`, args...)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list pauses: %w", err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[Pause])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list pauses: %w", err))
	}
	return all, nil
}

// pause returns a pause, or nil if there is none any more.
func (s *Service) pause(ctx context.Context, kind PauseKind, name string) (*Pause, error) {
	found, err := s.pauses(ctx, `kind = $1 AND name = $2`, kind, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}
