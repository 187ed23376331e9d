package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/coderclaw/runtime/internal/policy"
)

// workspace is the policy that lies in the repository which agents work on. It
// narrows what is done with tasks that belong to no project.
type workspace struct {
	text   string
	org    int64 // the version of the organisation's document that it narrows
	policy *policy.Policy
}

// inWorkspace reports whether a request is about what happens in the workspace.
func inWorkspace(q policy.Request) bool {
	switch q.Permission {
	case policy.TaskSubmit, policy.TaskRead, policy.TaskCancel, policy.AgentInvoke, policy.SkillExecute:
		return q.ProjectID == ""
	}
	return false
}

// readWorkspace returns the policy in the workspace, nil if there is none. What
// was is what it was when it was last read, or nil.
func (r *Registry) readWorkspace(ctx context.Context, was *workspace, org int64) (*workspace, error) {
	if r.workspace == "" {
		return nil, nil
	}
	text, err := readFile(r.workspace)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil: // there is one, and what it says is not known
		return &workspace{org: org, policy: closedWorkspace(err, org)}, nil
	case was != nil && was.text == string(text) && was.org == org:
		return was, nil
	}
	orgDocument, err := r.document(ctx, "", org)
	if err != nil {
		return nil, err
	}
	own := parsed{text: string(text)}
	own.document, own.err = policy.ParseDocument(text, projectFile, policy.Project)
	w := &workspace{text: own.text, org: org}
	if own.err == nil && orgDocument.err == nil {
		_, own.err = r.compile(orgDocument.document, own.document, org)
	}
	if own.err != nil {
		w.policy = closedWorkspace(own.err, org)
	} else {
		w.policy = r.assemble(orgDocument, own)
	}
	return w, nil
}

func closedWorkspace(err error, org int64) *policy.Policy {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return policy.Closed(policy.LayerProject, projectFile, fmt.Sprintf("the policy in the workspace cannot be used: %s", first), org)
}

// CheckWorkspace is called at start. The error holds all that is wrong with the
// policy in the workspace, if there is one, as file:line:column: message.
func (r *Registry) CheckWorkspace(ctx context.Context) error {
	text, err := readFile(r.workspace)
	if r.workspace == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = policy.ParseDocument(text, r.workspace, policy.Project)
	}
	if err != nil {
		return err
	}
	s, err := r.current(ctx)
	if err == nil && s.workspace != nil && s.workspace.policy.IsClosed() {
		err = errors.New(s.workspace.policy.Decide(policy.Caller{UserID: "file"}, policy.Request{Permission: policy.TaskRead}).Reason)
	}
	return err
}
