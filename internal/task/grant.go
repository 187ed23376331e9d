package task

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// GrantScope says how far an approval is remembered.
type GrantScope string

// The scopes. Each holds for the agent that asked, in the project of its task, and
// for the very same request only.
const (
	GrantTask    GrantScope = "task"
	GrantSession GrantScope = "session" // of the task
	GrantProject GrantScope = "project"
)

// grantAge is how long an approval is remembered.
const grantAge = 30 * 24 * time.Hour

// Grant is an approval that is remembered.
type Grant struct {
	ID         uuid.UUID // in the order in which they were given
	Scope      GrantScope
	TaskID     *uuid.UUID // with GrantTask
	SessionID  string     // of the task for which it was given
	ProjectID  string
	UserID     string // who submitted that task
	AgentID    string
	Text       string // what was asked
	Tool       *ToolCall
	GrantedBy  string
	GrantedIn  string // the session
	CreatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt *time.Time
	Uses       int
}

const grantColumns = `g.id, g.scope, g.task_id, g.session_id, g.project_id, g.user_id, g.agent_id, g.text, g.tool, g.granted_by, g.granted_in,
	g.created_at, g.expires_at, g.last_used_at, g.uses`

// grantConfined is confined for a grant g.
var grantConfined = postgres.Within("g")

var toGrant = pgx.RowToStructByName[Grant]

// digestOf stands for what is asked, to the last byte of what is shown of it,
// however its JSON is written down.
func digestOf(text, risk string, tool *ToolCall) []byte {
	of := struct {
		Text, Risk, Name, Title string
		Input                   json.RawMessage
	}{Text: text, Risk: risk}
	if tool != nil {
		of.Name, of.Title, of.Input = tool.Name, tool.Title, canonical(tool.Input)
	}
	sum := sha256.Sum256(encoded(of))
	return sum[:]
}

// canonical is a JSON text in the form in which all of the same meaning are
// equal; numbers stay as they are written.
func canonical(text json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil // there is none: what is kept is valid
	}
	return encoded(v)
}

// rememberFault says why the approval of a task's question cannot be remembered
// so far, or "".
func (q Question) rememberFault(t Task, scope GrantScope) string {
	switch {
	case !q.Remember:
		return "is for requests that can be remembered, and this is not one"
	case scope == GrantSession && t.SessionID == "":
		return "must be task or project: the task belongs to no session"
	case scope == GrantProject && t.ProjectID == "":
		return "must be task or session: the task belongs to no project"
	case scope != GrantTask && scope != GrantSession && scope != GrantProject:
		return "must be task, session or project"
	}
	return ""
}

// remember keeps the caller's approval of a question.
func (q Question) remember(ctx context.Context, tx pgx.Tx, c policy.Caller, t Task, scope GrantScope) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make id of grant: %w", err)
	}
	var of *uuid.UUID
	if scope == GrantTask {
		of = &t.ID
	}
	n := NewQuestion{Tool: q.Tool}
	_, err = tx.Exec(ctx, `INSERT INTO grants (id, task_id, expires_at, scope, project_id, user_id, session_id, agent_id, granted_by, granted_in, digest, text, tool)
		VALUES (@id, @task, clock_timestamp() + @age::interval, @scope, @project, @user, @session, @agent, @by, @in, @digest, @text, @tool)`, pgx.NamedArgs{
		"id": id, "task": of, "age": grantAge, "scope": scope, "project": t.ProjectID, "user": t.UserID, "session": t.SessionID, "agent": t.AgentID,
		"by": c.UserID, "in": c.SessionID, "digest": digestOf(q.Text, q.Risk, q.Tool), "text": q.Text, "tool": n.tool(),
	})
	if err != nil {
		return fmt.Errorf("remember the approval: %w", err)
	}
	return nil
}

// granted is a grant that lets a request through, and the decision that its giver
// may still approve it.
type granted struct {
	Grant
	giver    policy.Caller
	decision policy.Decision
}

// findGrant returns the grant that lets a request of a task's agent through, or
// nil. It is worth what its giver may do now, in the session in which it was
// given.
func (s *Service) findGrant(ctx context.Context, t Task, n NewQuestion) (*granted, error) {
	const most = 8 // of the same request, by different people
	rows, err := s.pool.Query(ctx, `SELECT `+grantColumns+` FROM grants g
		WHERE g.digest = @digest AND g.agent_id = @agent AND g.project_id = @project AND (g.project_id <> '' OR g.user_id = @user)
			AND g.expires_at > clock_timestamp()
			AND (g.scope = 'task' AND g.task_id = @task OR g.scope = 'session' AND g.session_id = @session OR g.scope = 'project')
		ORDER BY g.id DESC LIMIT @most`, pgx.NamedArgs{
		"digest": digestOf(n.Text, n.Risk, n.Tool), "agent": t.AgentID, "project": t.ProjectID, "user": t.UserID, "task": t.ID, "session": t.SessionID, "most": most,
	})
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("look for grants: %w", err))
	}
	grants, err := pgx.CollectRows(rows, toGrant)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("look for grants: %w", err))
	}
	for _, g := range grants {
		c, err := s.submitters.Submitter(ctx, g.GrantedBy, g.GrantedIn, t.ProjectID)
		if fault.CodeOf(err) == fault.Unauthenticated {
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := s.access.Decide(ctx, c, approving(t))
		if err != nil {
			return nil, err
		}
		if d.Allowed {
			return &granted{g, c, d}, nil
		}
	}
	return nil, nil
}

// approving is what the policies are asked before somebody approves for a task.
func approving(t Task) policy.Request {
	return policy.Request{
		Permission: policy.TaskSubmit, Action: actionDecide, ProjectID: t.ProjectID, AgentID: t.AgentID, Labels: t.Labels, Approving: t.UserID,
	}
}

// use approves a question that was asked just now, unless the grant was revoked
// meanwhile.
func (g *granted) use(ctx context.Context, tx pgx.Tx, t Task, q Question) (Question, error) {
	used, err := tx.Exec(ctx, `UPDATE grants SET uses = uses + 1, last_used_at = clock_timestamp() WHERE id = $1 AND expires_at > clock_timestamp()`, g.ID)
	if err != nil {
		return q, fmt.Errorf("use grant %s: %w", g.ID, err)
	}
	if used.RowsAffected() == 0 {
		return q, nil
	}
	a := &Answer{Approve: new(true), Reason: fmt.Sprintf("%s approved the same for this %s on %s", g.GrantedBy, g.Scope, g.CreatedAt.UTC().Format(time.DateOnly))}
	entry := audit.NewEntry(g.giver, actionUseGrant, resourceType, t.ID.String(), g.decision)
	entry.ProjectID = t.ProjectID
	if entry.Details, err = json.Marshal(struct {
		GrantID    string `json:"grantId"`
		QuestionID string `json:"questionId"`
	}{g.ID.String(), q.ID.String()}); err != nil {
		return q, fmt.Errorf("encode what was granted: %w", err)
	}
	if q, _, _, err = end(ctx, tx, q, Approved, a, "grant:"+g.ID.String()); err != nil {
		return q, err
	}
	return q, audit.Append(ctx, tx, entry)
}

// Grants returns up to limit grants that hold and that c sees, newest first, that
// are older than the one with the id before; uuid.Max begins.
func (s *Service) Grants(ctx context.Context, c policy.Caller, before uuid.UUID, limit int) (grants []Grant, more bool, err error) {
	err = s.read(ctx, c, `SELECT `+grantColumns+` FROM grants g
		WHERE g.id < @before AND g.expires_at > clock_timestamp() AND `+grantConfined+`
		ORDER BY g.id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "limit": limit + 1}, func(rows pgx.Rows) (err error) {
			grants, err = pgx.CollectRows(rows, toGrant)
			return err
		})
	if err != nil {
		return nil, false, fmt.Errorf("list grants: %w", err)
	}
	if more = len(grants) > limit; more {
		grants = grants[:limit]
	}
	return grants, more, nil
}

// RevokeGrant forgets an approval: the next request is asked of people. It returns
// NotFound if c does not see the grant, and Forbidden if the policies do not let c
// answer there.
func (s *Service) RevokeGrant(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	var g Grant
	err := s.read(ctx, c, `SELECT `+grantColumns+` FROM grants g WHERE g.id = @id AND `+grantConfined,
		pgx.NamedArgs{"id": id}, func(rows pgx.Rows) (err error) {
			g, err = pgx.CollectExactlyOneRow(rows, toGrant)
			return err
		})
	if errors.Is(err, pgx.ErrNoRows) {
		return noGrant(id)
	}
	if err != nil {
		return fmt.Errorf("read grant %s: %w", id, err)
	}
	r := policy.Request{Permission: policy.TaskSubmit, Action: actionRevokeGrant, ProjectID: g.ProjectID, AgentID: g.AgentID}
	entry, err := s.allowOn(ctx, c, r, subject{kind: "grant", id: id.String()})
	if err != nil {
		return err
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		gone, err := tx.Exec(ctx, `DELETE FROM grants WHERE id = $1`, id)
		if err != nil {
			return fmt.Errorf("revoke grant %s: %w", id, err)
		}
		if gone.RowsAffected() == 0 {
			return noGrant(id)
		}
		return audit.Append(ctx, tx, entry)
	})
	return audit.Fault(err)
}

func noGrant(id uuid.UUID) error { return fault.New(fault.NotFound, "no grant %s", id) }

// forgetGrants removes those that hold no more.
func (s *Service) forgetGrants(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM grants WHERE expires_at <= clock_timestamp()`); err != nil {
		return postgres.Fault(fmt.Errorf("forget grants: %w", err))
	}
	return nil
}
