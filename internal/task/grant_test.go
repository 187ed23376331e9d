package task_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// deploy is a request that can be remembered.
func deploy(change ...func(*task.NewQuestion)) task.NewQuestion {
	n := task.NewQuestion{ID: uuid.New(), Kind: task.Approval, Text: "May I deploy?", Risk: "high", Remember: true,
		Tool: &task.ToolCall{Name: "execute", Title: "Deploy", Input: json.RawMessage(`{"command": "deploy", "n": 12345678901234567}`)}}
	for _, f := range change {
		f(&n)
	}
	return n
}

// inWeb is a user in a session of project web.
var inWeb = policy.Caller{UserID: "ann", SessionID: "s1", ProjectID: "web", Roles: []policy.Role{policy.Developer}}

// runningOf submits a task as c and returns it and its lease.
func (r rig) runningOf(t *testing.T, c policy.Caller, n task.New) (id, lease uuid.UUID) {
	t.Helper()
	n.Description = "d"
	submitted, err := r.Submit(t.Context(), c, n, "")
	if err != nil {
		t.Fatal(err)
	}
	got := r.claim(t, "w", 1)
	if len(got) != 1 || got[0].ID != submitted.ID {
		t.Fatalf("claimed %+v", got)
	}
	return submitted.ID, got[0].LeaseToken
}

// grant has bob approve a request of a task of c's and remember that.
func (r rig) grant(t *testing.T, c policy.Caller, scope task.GrantScope) (taskID, lease uuid.UUID) {
	t.Helper()
	id, lease := r.runningOf(t, c, task.New{AgentID: "builder"})
	q := r.ask(t, id, lease, deploy())
	if q.Status != task.Open {
		t.Fatalf("it is %s before anybody approved it", q.Status)
	}
	if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true), Remember: scope}); err != nil {
		t.Fatal(err)
	}
	return id, lease
}

func TestAnApprovalIsRememberedWithinItsScopeForTheVerySameRequestOnly(t *testing.T) {
	t.Parallel()
	another := inWeb
	another.SessionID = "s2"
	elsewhere := inWeb
	elsewhere.ProjectID = "shop"
	for scope, want := range map[task.GrantScope]string{
		task.GrantTask: "same task", task.GrantSession: "same task,same session", task.GrantProject: "same task,same session,same project",
	} {
		t.Run(string(scope), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id, lease := r.grant(t, inWeb, scope)
			var through []string
			try := func(name string, id, lease uuid.UUID, n task.NewQuestion) {
				t.Helper()
				if q := r.ask(t, id, lease, n); q.Status == task.Approved {
					through = append(through, name)
				}
			}
			try("same task", id, lease, deploy(func(n *task.NewQuestion) {
				n.Tool.Input = json.RawMessage(`{"n":12345678901234567,"command":"deploy"}`)
			}))
			for name, change := range map[string]func(*task.NewQuestion){
				"another command": func(n *task.NewQuestion) { n.Tool.Input = json.RawMessage(`{"command":"drop","n":12345678901234567}`) },
				"another number": func(n *task.NewQuestion) {
					n.Tool.Input = json.RawMessage(`{"command":"deploy","n":12345678901234568}`)
				},
				"another tool":   func(n *task.NewQuestion) { n.Tool.Name = "edit" },
				"another title":  func(n *task.NewQuestion) { n.Tool.Title = "Drop" },
				"another text":   func(n *task.NewQuestion) { n.Text = "May I drop?" },
				"another risk":   func(n *task.NewQuestion) { n.Risk = "low" },
				"not remembered": func(n *task.NewQuestion) { n.Remember = false },
			} {
				try(name, id, lease, deploy(change))
			}
			for _, c := range []struct {
				name  string
				c     policy.Caller
				agent string
			}{{"same session", inWeb, "builder"}, {"same project", another, "builder"}, {"another project", elsewhere, "builder"}, {"another agent", inWeb, "painter"}} {
				id, lease := r.runningOf(t, c.c, task.New{AgentID: c.agent})
				try(c.name, id, lease, deploy())
			}
			if got := strings.Join(through, ","); got != want {
				t.Errorf("through come %s, want %s", got, want)
			}
		})
	}
}

func TestEachUseOfAGrantIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.grant(t, inWeb, task.GrantTask)
	q := r.ask(t, id, lease, deploy())
	grants, more, err := r.Grants(t.Context(), inWeb, uuid.Max, 10)
	if err != nil || more || len(grants) != 1 || grants[0].Uses != 1 || grants[0].LastUsedAt == nil || grants[0].GrantedBy != "bob" || grants[0].TaskID == nil {
		t.Fatalf("grants %+v, %v", grants, err)
	}
	if q.AnsweredBy != "grant:"+grants[0].ID.String() || !strings.HasPrefix(q.Answer.Reason, "bob approved the same for this task on ") {
		t.Errorf("approved by %s: %s", q.AnsweredBy, q.Answer.Reason)
	}
	r.told(t, id, "open/waiting approved/running open/waiting approved/running")
	if n := r.entries(t, "grant.use", "allowed"); n != 1 {
		t.Errorf("%d audit entries of the use", n)
	}
	if got := r.get(t, id); got.Status != task.Running {
		t.Errorf("the task is %s", got.Status)
	}
}

func TestAGrantIsWorthWhatItsGiverMayApproveNow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.grant(t, inWeb, task.GrantTask)
	r.rights.mu.Lock()
	r.rights.gone = map[string]bool{"bob": true}
	r.rights.mu.Unlock()
	if q := r.ask(t, id, lease, deploy()); q.Status != task.Open {
		t.Errorf("by the grant of one who is gone it is %s", q.Status)
	}
	r.rights.mu.Lock()
	r.rights.gone = nil
	r.rights.mu.Unlock()
	r.rights.forbid("builder", "agent builder is denied")
	if q := r.ask(t, id, lease, deploy()); q.Status != task.Open {
		t.Errorf("against the policies it is %s", q.Status)
	}
}

func TestAGrantEndsWhenItIsRevokedOrExpiresOrItsTaskGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, end := range map[string]func(task.Grant){
		"revoked": func(g task.Grant) {
			viewer := inWeb
			viewer.Roles = []policy.Role{policy.ReadOnly}
			if err := r.RevokeGrant(context.Background(), viewer, g.ID); fault.CodeOf(err) != fault.Forbidden {
				t.Errorf("one who may not approve revokes: %v", err)
			}
			stranger := policy.Caller{UserID: "ann", ProjectID: "shop", Roles: []policy.Role{policy.Admin}}
			if err := r.RevokeGrant(context.Background(), stranger, g.ID); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("one of another project revokes: %v", err)
			}
			if grants, _, err := r.Grants(context.Background(), stranger, uuid.Max, 10); err != nil || len(grants) > 0 {
				t.Errorf("one of another project sees %+v, %v", grants, err)
			}
			if err := r.RevokeGrant(context.Background(), inWeb, g.ID); err != nil {
				t.Error(err)
			}
			if err := r.RevokeGrant(context.Background(), inWeb, g.ID); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("revoked again: %v", err)
			}
		},
		"expired": func(g task.Grant) {
			r.exec(t, `UPDATE grants SET expires_at = clock_timestamp() WHERE id = $1`, g.ID)
		},
	} {
		id, lease := r.grant(t, inWeb, task.GrantTask)
		grants, _, err := r.Grants(t.Context(), inWeb, uuid.Max, 1)
		if err != nil || len(grants) != 1 {
			t.Fatalf("%s: %+v, %v", name, grants, err)
		}
		end(grants[0])
		if q := r.ask(t, id, lease, deploy()); q.Status != task.Open {
			t.Errorf("%s: it is %s", name, q.Status)
		}
	}
	if n := r.entries(t, "grant.revoke", "allowed"); n != 1 {
		t.Errorf("%d audit entries of revocations", n)
	}
	r.grant(t, inWeb, task.GrantTask)
	r.exec(t, `DELETE FROM tasks`)
	if grants, _, err := r.Grants(t.Context(), ann, uuid.Max, 10); err != nil || len(grants) > 0 {
		t.Errorf("of tasks that are gone remain %+v, %v", grants, err)
	}
}

func TestAnApprovalIsRememberedOnlyWhereThatWasOffered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.runningOf(t, ann, task.New{})
	plain := r.ask(t, id, lease, deploy(func(n *task.NewQuestion) { n.Remember = false }))
	offered := r.ask(t, id, lease, deploy())
	yes := task.Answer{Approve: new(true)}
	for name, c := range map[string]struct {
		q     task.Question
		a     task.Answer
		scope task.GrantScope
	}{
		"not offered":          {plain, yes, task.GrantTask},
		"a denial":             {offered, task.Answer{Approve: new(false)}, task.GrantTask},
		"no session":           {offered, yes, task.GrantSession},
		"no project":           {offered, yes, task.GrantProject},
		"a scope that is none": {offered, yes, "world"},
	} {
		c.a.Remember = c.scope
		if _, err := r.Answer(t.Context(), bob, c.q.ID, c.a); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	reader := policy.Caller{UserID: "eve", AllProjects: true, Roles: []policy.Role{policy.ReadOnly}}
	yes.Remember = task.GrantTask
	if _, err := r.Answer(t.Context(), reader, offered.ID, yes); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("one who may not approve: %v", err)
	}
	if grants, _, err := r.Grants(t.Context(), root, uuid.Max, 10); err != nil || len(grants) > 0 {
		t.Errorf("remembered is %+v, %v", grants, err)
	}
	for name, change := range map[string]func(*task.NewQuestion){
		"an input": func(n *task.NewQuestion) { n.Kind = task.Input }, "no tool": func(n *task.NewQuestion) { n.Tool = nil },
		"a skill": func(n *task.NewQuestion) { n.SkillID = "shell" },
	} {
		if _, err := r.Ask(t.Context(), task.InProcess, id, lease, deploy(change)); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s is to be remembered: %v", name, err)
		}
	}
}

func TestAGrantLetsNoDangerousSkillThrough(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.grant(t, inWeb, task.GrantProject)
	d, err := r.Authorize(t.Context(), task.InProcess, id, lease, "dangerous-skill", uuid.New(), deploy().Tool)
	if err != nil || d.Verdict != task.SkillApproval {
		t.Errorf("the skill is %s, %v", d.Verdict, err)
	}
	if d, err = r.Authorize(t.Context(), task.InProcess, id, lease, "denied-skill", uuid.New(), deploy().Tool); err != nil || d.Verdict != task.SkillDenied {
		t.Errorf("a denied skill is %s, %v", d.Verdict, err)
	}
}
