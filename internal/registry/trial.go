package registry

import (
	"context"

	"github.com/coderclaw/runtime/internal/policy"
)

// Trial decides as if a document were in force.
type Trial struct {
	registry  *Registry
	snapshot  *snapshot
	candidate parsed
	policies  map[string]*policy.Policy // by project
}

// Try returns how it would be decided if a document were in force, of a project
// or, with "", of the organisation. Nothing is changed.
//
// Faults: Forbidden and NotFound as PutPolicy's, for a caller who could not put
// any document there; Invalid.
func (r *Registry) Try(ctx context.Context, c policy.Caller, projectID string, document []byte) (*Trial, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	p := proposal{act: onPolicy(c, "policy.simulate", projectID), text: string(document)}
	ruling, need, err := r.ruling(ctx, s, projectID, policy.ConfigWrite)
	if err != nil {
		return nil, err
	}
	if _, err := r.permit(ctx, p.act, ruling, need); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	to, err := r.usable(ctx, s, p)
	if err != nil {
		return nil, err
	}
	// Once more, for decisions to call it what it would be called in force.
	candidate := parse(projectID, to.version, to.text)
	return &Trial{registry: r, snapshot: s, candidate: candidate, policies: map[string]*policy.Policy{}}, nil
}

// Decide is as the Registry's, but under the document that is tried. It may not
// be called concurrently.
func (t *Trial) Decide(ctx context.Context, c policy.Caller, q policy.Request) (policy.Decision, error) {
	p, ok := t.policies[q.ProjectID]
	if !ok {
		var err error
		if p, err = t.policy(ctx, q.ProjectID); err != nil {
			return policy.Decision{}, err
		}
		t.policies[q.ProjectID] = p
	}
	return t.snapshot.decide(p, c, q), nil
}

func (t *Trial) policy(ctx context.Context, projectID string) (*policy.Policy, error) {
	if t.candidate.projectID != "" && t.candidate.projectID != projectID {
		return t.registry.inForce(ctx, t.snapshot, projectID)
	}
	org, err := t.registry.document(ctx, "", t.snapshot.versions[""])
	if err != nil {
		return nil, err
	}
	own := parsed{projectID: projectID}
	if w := t.snapshot.workspace; projectID == "" && w != nil {
		own.document, own.err = policy.ParseDocument([]byte(w.text), projectFile, policy.Project)
	}
	if projectID != "" {
		if own, err = t.registry.document(ctx, projectID, t.snapshot.versions[projectID]); err != nil {
			return nil, err
		}
	}
	if t.candidate.projectID == "" {
		org = t.candidate
	} else {
		own = t.candidate
	}
	return t.registry.assemble(org, own), nil
}
