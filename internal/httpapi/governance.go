package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"strconv"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/task"
)

// PolicyDocuments are the documents that say who may do what: that of the
// organisation ("") and the projects' own.
type PolicyDocuments interface {
	PolicyAt(ctx context.Context, c policy.Caller, projectID string, version int64) (registry.PolicyVersion, error)
	PutPolicy(ctx context.Context, c policy.Caller, projectID string, document []byte, expected *int64, comment string) (registry.PolicyVersion, error)
	PolicyVersions(ctx context.Context, c policy.Caller, projectID string, before int64, limit int) ([]registry.PolicyVersion, error)
	DiffPolicies(ctx context.Context, c policy.Caller, projectID string, from, to int64) (registry.PolicyDiff, error)
	Rollback(ctx context.Context, c policy.Caller, projectID string, version int64, comment string) (registry.PolicyVersion, error)
	Try(ctx context.Context, c policy.Caller, projectID string, document []byte) (*registry.Trial, error)
}

type (
	// ProjectInput names a project.
	ProjectInput struct {
		ID string `path:"id" maxLength:"128" doc:"The project's id."`
	}
	policyOutput struct {
		ETag string `header:"ETag" doc:"The version."`
		Body api.PolicyDocument
	}
)

func (s *Server) registerGovernance() {
	s.registerOrganizationPolicy()
	s.registerProjectPolicy()
	handle(s, operation{
		id: "checkPermission", action: "permission.check", method: http.MethodPost, path: "/v1/permissions/check", permission: policy.Authenticated, tag: "Policy",
		summary: "Ask whether one may do something, and by which rule", errors: []int{http.StatusUnprocessableEntity},
		detail: "Changes nothing. The answer is the one that the action itself would get.",
	}, s.checkPermission)
	handle(s, operation{
		id: "simulatePolicy", action: "policy.simulate", method: http.MethodPost, path: "/v1/policy/simulate", permission: policy.ConfigWrite, tag: "Policy",
		summary: "Ask which decisions of the past a document would change",
		detail:  "Submissions that the audit log tells of are decided again, as if the document had been in force.",
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.simulatePolicy)
	handle(s, operation{
		id: "getRuntimeConfig", action: "config.read", method: http.MethodGet, path: "/v1/config/runtime", permission: policy.ConfigRead, tag: "Policy",
		summary: "Get what the server was started with",
		detail:  "Secrets are left out. It is read at start, from runtime.yaml and the environment, and cannot be changed here.",
	}, func(context.Context, policy.Caller, *struct{}) (*struct{ Body api.RuntimeConfig }, error) {
		return &struct{ Body api.RuntimeConfig }{s.config}, nil
	})
}

// A document can be read, replaced, listed by versions, compared and rolled
// back, whosever it is. These say how.
func getPolicyOperation(path, whose string) operation {
	return policyOperation("get"+whose+"Policy", "policy.read", http.MethodGet, path, "Get the policy in force")
}

func putPolicyOperation(path, whose string) operation {
	op := policyOperation("put"+whose+"Policy", "policy.update", http.MethodPut, path, "Put a policy into force", http.StatusConflict, http.StatusTooManyRequests)
	op.detail = "Each fault of the text is named by line and column. With If-Match or If-None-Match, 409 if another version is in force. What weakens the policy is for administrators."
	return op
}

func listPoliciesOperation(path, whose string) operation {
	return policyOperation("list"+whose+"PolicyVersions", "policy.list", http.MethodGet, path+"/versions", "List the versions of the policy, newest first")
}

func getPolicyVersionOperation(path, whose string) operation {
	return policyOperation("get"+whose+"PolicyVersion", "policy.read", http.MethodGet, path+"/versions/{version}", "Get a version of the policy")
}

func diffPolicyOperation(path, whose string) operation {
	return policyOperation("diff"+whose+"Policy", "policy.read", http.MethodGet, path+"/diff", "Compare two versions of the policy")
}

func rollBackPolicyOperation(path, whose string) operation {
	return policyOperation("rollBack"+whose+"Policy", "policy.rollback", http.MethodPost, path+"/rollback", "Put the text of an older version into force",
		http.StatusConflict, http.StatusTooManyRequests)
}

func policyOperation(id, action, method, path, summary string, errors ...int) operation {
	need := policy.ConfigWrite
	if method == http.MethodGet {
		need = policy.ConfigRead
	}
	return operation{
		id: id, action: action, method: method, path: path, permission: need, tag: "Policy", summary: summary,
		errors: append(errors, http.StatusNotFound, http.StatusUnprocessableEntity),
	}
}

type (
	// PutPolicyInput is a document to put into force.
	PutPolicyInput struct {
		VersionInput
		Body api.NewPolicyDocument
	}
	// PolicyVersionInput names a version.
	PolicyVersionInput struct {
		Version int64 `path:"version" minimum:"1"`
	}
	// DiffInput names two versions.
	DiffInput struct {
		From int64 `query:"from" minimum:"0" doc:"0: no document at all."`
		To   int64 `query:"to" minimum:"0" doc:"0: the version in force."`
	}
	// RollbackInput says what to go back to.
	RollbackInput struct {
		Body api.PolicyRollback
	}
	policyVersionsOutput struct{ Body api.PolicyVersionList }
	policyDiffOutput     struct{ Body api.PolicyDiff }
)

func (s *Server) registerOrganizationPolicy() {
	const path, whose, organization = "/v1/config/security", "Organization", ""
	handle(s, getPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, _ *struct{}) (*policyOutput, error) {
		return s.getPolicy(ctx, c, organization, 0)
	})
	handle(s, putPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *PutPolicyInput) (*policyOutput, error) {
		return s.putPolicy(ctx, c, organization, in)
	})
	handle(s, listPoliciesOperation(path, whose), func(ctx context.Context, c policy.Caller, in *PageInput) (*policyVersionsOutput, error) {
		return s.listPolicies(ctx, c, organization, in)
	})
	handle(s, getPolicyVersionOperation(path, whose), func(ctx context.Context, c policy.Caller, in *PolicyVersionInput) (*policyOutput, error) {
		return s.getPolicy(ctx, c, organization, in.Version)
	})
	handle(s, diffPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *DiffInput) (*policyDiffOutput, error) {
		return s.diffPolicy(ctx, c, organization, in)
	})
	handle(s, rollBackPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *RollbackInput) (*policyOutput, error) {
		return s.rollBackPolicy(ctx, c, organization, in)
	})
}

func (s *Server) registerProjectPolicy() {
	const path, whose = "/v1/projects/{id}/policy", "Project"
	handle(s, getPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *ProjectInput) (*policyOutput, error) {
		return s.getPolicy(ctx, c, in.ID, 0)
	})
	handle(s, putPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *struct {
		ProjectInput
		PutPolicyInput
	}) (*policyOutput, error) {
		return s.putPolicy(ctx, c, in.ID, &in.PutPolicyInput)
	})
	handle(s, listPoliciesOperation(path, whose), func(ctx context.Context, c policy.Caller, in *struct {
		ProjectInput
		PageInput
	}) (*policyVersionsOutput, error) {
		return s.listPolicies(ctx, c, in.ID, &in.PageInput)
	})
	handle(s, getPolicyVersionOperation(path, whose), func(ctx context.Context, c policy.Caller, in *struct {
		ProjectInput
		PolicyVersionInput
	}) (*policyOutput, error) {
		return s.getPolicy(ctx, c, in.ID, in.Version)
	})
	handle(s, diffPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *struct {
		ProjectInput
		DiffInput
	}) (*policyDiffOutput, error) {
		return s.diffPolicy(ctx, c, in.ID, &in.DiffInput)
	})
	handle(s, rollBackPolicyOperation(path, whose), func(ctx context.Context, c policy.Caller, in *struct {
		ProjectInput
		RollbackInput
	}) (*policyOutput, error) {
		return s.rollBackPolicy(ctx, c, in.ID, &in.RollbackInput)
	})
}

func (s *Server) getPolicy(ctx context.Context, c policy.Caller, projectID string, version int64) (*policyOutput, error) {
	v, err := s.documents.PolicyAt(ctx, c, projectID, version)
	return document(v), err
}

func (s *Server) putPolicy(ctx context.Context, c policy.Caller, projectID string, in *PutPolicyInput) (*policyOutput, error) {
	expected, err := in.version()
	if err != nil {
		return nil, err
	}
	v, err := s.documents.PutPolicy(ctx, c, projectID, []byte(in.Body.Document), expected, in.Body.Comment)
	return document(v), err
}

func (s *Server) diffPolicy(ctx context.Context, c policy.Caller, projectID string, in *DiffInput) (*policyDiffOutput, error) {
	d, err := s.documents.DiffPolicies(ctx, c, projectID, in.From, in.To)
	return &policyDiffOutput{api.PolicyDiff(d)}, err
}

func (s *Server) rollBackPolicy(ctx context.Context, c policy.Caller, projectID string, in *RollbackInput) (*policyOutput, error) {
	v, err := s.documents.Rollback(ctx, c, projectID, in.Body.Version, in.Body.Comment)
	return document(v), err
}

func document(v registry.PolicyVersion) *policyOutput {
	return &policyOutput{etag(v.Version), wirePolicy(v)}
}

func (s *Server) listPolicies(ctx context.Context, c policy.Caller, projectID string, in *PageInput) (*policyVersionsOutput, error) {
	var before int64
	if in.Cursor != "" {
		var err error
		if before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || before < 1 {
			return nil, badCursor()
		}
	}
	versions, err := s.documents.PolicyVersions(ctx, c, projectID, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.PolicyVersionList{Items: make([]api.PolicyDocument, len(versions))}
	for i, v := range versions {
		list.Items[i] = wirePolicy(v)
	}
	if n := len(versions); n == in.Limit && versions[n-1].Version > 1 {
		list.NextCursor = strconv.FormatInt(versions[n-1].Version, 10)
	}
	return &policyVersionsOutput{list}, nil
}

func wirePolicy(v registry.PolicyVersion) api.PolicyDocument {
	return api.PolicyDocument{
		ProjectID: v.ProjectID, Version: v.Version, Document: v.Document, Author: v.Author, Comment: v.Comment,
		Origin: string(v.Origin), Weakens: v.Weakens, CreatedAt: v.CreatedAt,
	}
}

// actions are what the audit log calls the use of a permission, which custom
// rules may go by.
var actions = map[policy.Permission]string{
	policy.TaskSubmit: "task.submit", policy.AgentInvoke: "task.submit", policy.SkillExecute: "task.submit",
	policy.TaskRead: "task.read", policy.TaskCancel: "task.cancel",
	policy.ConfigRead: "config.read", policy.ConfigWrite: "policy.update",
}

func (s *Server) checkPermission(ctx context.Context, c policy.Caller, in *struct{ Body api.PermissionQuery }) (*struct{ Body api.Decision }, error) {
	q := in.Body
	r := policy.Request{
		Permission: policy.Permission(q.Permission), ProjectID: q.ProjectID, AgentID: q.AgentID, SkillID: q.SkillID, Labels: q.Labels,
	}
	if r.Permission == "" || r.Permission == policy.TaskSubmit && (q.SkillID != "" || len(q.Labels) > 0) {
		// It is about a task, which has an agent.
		r.Permission, r.AgentID = policy.TaskSubmit, cmp.Or(q.AgentID, task.DefaultAgent)
	}
	if r.ProjectID == "" {
		r.ProjectID = c.ProjectID
	}
	r.Action = actions[r.Permission]
	if r.ProjectID != c.ProjectID && !c.AllProjects {
		// By whose policy it would be decided is nothing to tell.
		return &struct{ Body api.Decision }{wireDecision(policy.Decision{Layer: policy.LayerProject, Reason: "the session is not of this project"})}, nil
	}
	d, err := s.policies.Decide(ctx, c, r)
	return &struct{ Body api.Decision }{wireDecision(d)}, err
}

func wireDecision(d policy.Decision) api.Decision {
	return api.Decision{Allowed: d.Allowed, Reason: d.Reason, Layer: string(d.Layer), Rule: d.Rule, PolicyVersion: d.PolicyVersion}
}
