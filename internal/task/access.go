package task

import (
	"cmp"
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Access decides, by the policies that hold at the moment.
type Access interface {
	Decide(ctx context.Context, c policy.Caller, r policy.Request) (policy.Decision, error)
}

// Submitters knows who submitted tasks.
type Submitters interface {
	// Submitter returns what a task's submitter may do now. Unauthenticated is
	// the fault for one who is gone, or whose session was revoked.
	Submitter(ctx context.Context, userID, sessionID, projectID string) (policy.Caller, error)
}

// Recorder keeps denials, which have no transaction of their own to stand in.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry)
}

// What the audit log says of the engine's actions.
const (
	resourceType    = "task"
	actionSubmit    = "task.submit"
	actionUpdate    = "task.update"
	actionCancel    = "task.cancel"
	actionClaim     = "task.claim"
	actionAnswer    = "task.answer"
	actionDecide    = "approval.decide"
	actionAuthorize = "skill.authorize"

	actionUseGrant    = "grant.use"
	actionRevokeGrant = "grant.revoke"
)

// wants is what the policies are asked before the task is submitted.
func (t Task) wants() policy.Request {
	return policy.Request{
		Permission: policy.TaskSubmit, Action: actionSubmit, ProjectID: t.ProjectID,
		AgentID: t.AgentID, SkillID: t.SkillID, Labels: t.Labels,
	}
}

// allow asks the policies and returns the entry of what they decided. A denial
// is recorded and comes back as Forbidden, with the reason.
func (s *Service) allow(ctx context.Context, c policy.Caller, r policy.Request, id string) (audit.Entry, error) {
	return s.allowOn(ctx, c, r, subject{kind: resourceType, id: id})
}

// subject is what something is done to, as the audit log has it.
type subject struct {
	kind, id string
	// whole says why it is nothing for callers who are confined to a project; "": it
	// may be.
	whole string
}

// allowOn is allow for something else than a task.
func (s *Service) allowOn(ctx context.Context, c policy.Caller, r policy.Request, on subject) (audit.Entry, error) {
	d, err := s.access.Decide(ctx, c, r)
	if err != nil {
		return audit.Entry{}, err
	}
	if d.Allowed && on.whole != "" && !c.AllProjects {
		d.Allowed, d.Layer, d.Reason = false, policy.LayerProject, on.whole
	}
	entry := audit.NewEntry(c, r.Action, on.kind, on.id, d)
	// Whoever is confined to no project acts in that of the subject.
	entry.ProjectID = cmp.Or(r.ProjectID, c.ProjectID)
	if r.Action == actionSubmit {
		// What is decided of later tasks is decided of this one: what would
		// another policy have said?
		if entry.Details, err = r.Circumstances(c); err != nil {
			return entry, fmt.Errorf("encode circumstances: %w", err)
		}
	}
	if !d.Allowed {
		s.recorder.Record(ctx, entry)
	}
	return entry, d.Err()
}

// refuse records that the caller may not do this to a task, and returns why.
func (s *Service) refuse(ctx context.Context, c policy.Caller, action string, id uuid.UUID, reason string) error {
	d := policy.Decision{Layer: policy.LayerPermission, Reason: fmt.Sprintf("task %s: %s", id, reason)}
	s.recorder.Record(ctx, audit.NewEntry(c, action, resourceType, id.String(), d))
	return d.Err()
}

// reconsider decides again about a task that was accepted: by the policies and
// by what its submitter may do now.
func (s *Service) reconsider(ctx context.Context, t Task) (policy.Caller, policy.Decision, error) {
	c, err := s.submitters.Submitter(ctx, t.UserID, t.SessionID, t.ProjectID)
	if fault.CodeOf(err) == fault.Unauthenticated {
		c = policy.Caller{UserID: t.UserID, SessionID: t.SessionID, ProjectID: t.ProjectID}
		return c, policy.Decision{Layer: policy.LayerSession, Reason: err.Error()}, nil
	}
	if err != nil {
		return c, policy.Decision{}, err
	}
	// Whichever permission it was submitted by, one of them must be left.
	var d policy.Decision
	for _, p := range []policy.Permission{policy.TaskSubmit, policy.AgentInvoke, policy.SkillExecute} {
		r := t.wants()
		r.Permission = p
		if d, err = s.access.Decide(ctx, c, r); err != nil || d.Allowed || d.Layer != policy.LayerPermission {
			break
		}
	}
	return c, d, err
}

// recheck cancels the running tasks that are not allowed any more, after rights
// or policies have changed.
func (s *Service) recheck(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT `+columns+` FROM tasks t WHERE t.lease_token IS NOT NULL`)
	if err != nil {
		return postgres.Fault(fmt.Errorf("read running tasks: %w", err))
	}
	running, err := pgx.CollectRows(rows, toTask)
	if err != nil {
		return postgres.Fault(fmt.Errorf("read running tasks: %w", err))
	}
	for _, t := range running {
		_, d, err := s.reconsider(ctx, t)
		if err != nil {
			return err
		}
		if d.Allowed {
			continue
		}
		d.Allowed, d.Reason = true, "not allowed any more: "+d.Reason
		entry := audit.NewEntry(policy.Caller{UserID: "system", ProjectID: t.ProjectID}, actionCancel, resourceType, t.ID.String(), d)
		// Another server may have been faster, or the task itself.
		if _, err := s.cancel(ctx, t.ID, entry); err != nil && fault.CodeOf(err) != fault.InvalidTransition {
			return err
		}
	}
	return nil
}

// place puts a new task into the caller's project and session. One that the
// caller is not confined to is as good as not there.
func (n *New) place(c policy.Caller, at string) (bad []fault.Field) {
	// Whoever has no session may write down one of their own making.
	if n.SessionID == "" {
		n.SessionID = c.SessionID
	}
	if n.SessionID != c.SessionID && (c.SessionID != "" || !c.AllProjects) {
		bad = append(bad, fault.Field{Path: at + ".sessionId", Message: "must be the session that submits"})
	}
	if n.ProjectID == "" {
		n.ProjectID = c.ProjectID
	}
	if n.ProjectID != c.ProjectID && !c.AllProjects {
		bad = append(bad, fault.Field{Path: at + ".projectId", Message: "no such project"})
	}
	return bad
}

// confined is the condition that a task t is within a caller's confinement, for
// statements that find tasks by id; its parameters are those of the caller's
// scope. Lists say the same in a form that an index serves.
var confined = postgres.Within("t")

func scopeOf(c policy.Caller) postgres.Scope {
	return postgres.Scope{All: c.AllProjects, ProjectID: c.ProjectID, UserID: c.UserID, SessionID: c.SessionID}
}

// read runs a query on behalf of the caller; it can hold confined.
func (s *Service) read(ctx context.Context, c policy.Caller, sql string, args pgx.NamedArgs, scan func(pgx.Rows) error) error {
	return postgres.Read(ctx, s.pool, scopeOf(c), sql, args, scan)
}
