package registry

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Decide says whether the caller may do what is asked, by the policies in force
// in the request's project; where tasks belong to none, that in the workspace. Of the agent and the skill that the request names
// it fills in what their definitions say. A skill that is disabled, or that
// nobody defined, may not be used.
//
// The error is of a database that does not answer.
func (r *Registry) Decide(ctx context.Context, c policy.Caller, q policy.Request) (policy.Decision, error) {
	s, err := r.current(ctx)
	if err != nil {
		return policy.Decision{}, err
	}
	if s.workspace != nil && inWorkspace(q) {
		return s.decide(s.workspace.policy, c, q), nil
	}
	p, err := r.inForce(ctx, s, q.ProjectID)
	if err != nil {
		return policy.Decision{}, err
	}
	return s.decide(p, c, q), nil
}

// decide asks a policy about what is defined as of the snapshot.
func (s *snapshot) decide(p *policy.Policy, c policy.Caller, q policy.Request) policy.Decision {
	q.AgentSkills = s.agents.byID[q.AgentID].Skills
	sk, defined := s.skills.byID[q.SkillID]
	q.SkillDangerous, q.SkillPermissions = sk.Dangerous, s.needs[q.SkillID]
	d := p.Decide(c, q)
	if d.Allowed && q.SkillID != "" && !sk.Enabled {
		d.Allowed, d.Layer, d.Rule = false, policy.LayerSkill, ""
		d.Reason = fmt.Sprintf("skill %s is disabled", q.SkillID)
		if !defined {
			d.Reason = fmt.Sprintf("there is no skill %.128q", q.SkillID)
		}
	}
	return d
}

// Policy returns the policy in force in a project; "" asks for that of the
// organisation alone, as does a project without a document. If a document
// cannot be used the policy is closed: it denies everything, and says why.
//
// The error is of a database that does not answer.
func (r *Registry) Policy(ctx context.Context, projectID string) (*policy.Policy, error) {
	s, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return r.inForce(ctx, s, projectID)
}

// parsed is a version of a document as it was read. Version 0 is none at all.
type parsed struct {
	projectID string
	version   int64
	text      string
	document  *policy.Document // nil if there is none, or err
	err       error            // why it cannot be used
}

// compiled is the policy of two versions, that of the organisation's document
// and that of the project's own.
type compiled struct {
	org, own int64
	policy   *policy.Policy
}

// kept is what is kept by project. Of more projects than maxKept, some are read
// or compiled again when they are asked for.
type kept[T any] map[string]T

const maxKept = 1_000

func (k kept[T]) put(projectID string, v T) {
	if _, ok := k[projectID]; !ok && len(k) >= maxKept {
		for some := range k {
			delete(k, some)
			break
		}
	}
	k[projectID] = v
}

// inForce returns the policy of a project as of a snapshot. Versions never
// change, so that what was compiled of the same ones still holds.
func (r *Registry) inForce(ctx context.Context, s *snapshot, projectID string) (*policy.Policy, error) {
	org, own := s.versions[""], s.versions[projectID]
	if own == 0 || projectID == "" {
		projectID, own = "", 0
	}
	r.mu.Lock()
	c, ok := r.ready[projectID]
	r.mu.Unlock()
	if ok && c.org == org && c.own == own {
		return c.policy, nil
	}
	return shared(ctx, r, fmt.Sprintf("policy %d %d %s", org, own, projectID), func(ctx context.Context) (*policy.Policy, error) {
		orgDocument, err := r.document(ctx, "", org)
		if err != nil {
			return nil, err
		}
		ownDocument, err := r.document(ctx, projectID, own)
		if err != nil {
			return nil, err
		}
		p := r.assemble(orgDocument, ownDocument)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ready.put(projectID, compiled{org, own, p})
		return p, nil
	})
}

// document returns a version of a project's document.
func (r *Registry) document(ctx context.Context, projectID string, version int64) (parsed, error) {
	if version == 0 {
		return parsed{projectID: projectID}, nil
	}
	r.mu.Lock()
	d, ok := r.read[projectID]
	r.mu.Unlock()
	if ok && d.version == version {
		return d, nil
	}
	var text string
	err := r.pool.QueryRow(ctx, `SELECT document FROM policy_documents WHERE project_id = $1 AND version = $2`, projectID, version).Scan(&text)
	if err != nil {
		return d, fmt.Errorf("read version %d of the policy of %q: %w", version, projectID, postgres.Fault(err))
	}
	d = parse(projectID, version, text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read.put(projectID, d)
	return d, nil
}

// What decisions call the documents: by the names of the files that they are
// written in.
const (
	orgFile     = "security.yaml"
	projectFile = ".coderClaw/security.yaml"
)

func parse(projectID string, version int64, text string) parsed {
	d := parsed{projectID: projectID, version: version, text: text}
	d.document, d.err = policy.ParseDocument([]byte(text), d.file(), kindOf(projectID))
	return d
}

func (d parsed) file() string {
	if d.projectID == "" {
		return orgFile
	}
	return projectFile
}

func kindOf(projectID string) policy.Kind {
	if projectID == "" {
		return policy.Organization
	}
	return policy.Project
}

// assemble makes a policy of the organisation's document and a project's. It is
// closed if one of them cannot be used: what a document that is not understood
// would have denied is not known.
func (r *Registry) assemble(org, own parsed) *policy.Policy {
	closed := func(layer policy.Layer, d parsed, whose string, err error) *policy.Policy {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return policy.Closed(layer, d.file(), fmt.Sprintf("version %d of %s policy cannot be used: %s", d.version, whose, first), org.version)
	}
	if org.err == nil {
		_, org.err = r.compile(org.document, nil, org.version)
	}
	if org.err != nil {
		return closed(policy.LayerOrganization, org, "the organisation's", org.err)
	}
	if own.err != nil {
		return closed(policy.LayerProject, own, "this project's", own.err)
	}
	p, err := r.compile(org.document, own.document, org.version)
	if err != nil {
		return closed(policy.LayerProject, own, "this project's", err)
	}
	return p
}

func (r *Registry) compile(org, own *policy.Document, orgVersion int64) (*policy.Policy, error) {
	o := r.options
	o.Version = orgVersion
	return policy.Compile(org, own, o)
}

// versionsIn reads which versions are in force of the documents of some
// projects.
func versionsIn(ctx context.Context, tx pgx.Tx, projectIDs ...string) (map[string]int64, error) {
	versions := map[string]int64{}
	rows, err := tx.Query(ctx, `SELECT project_id, version FROM policies WHERE project_id = ANY ($1)`, projectIDs)
	if err == nil {
		err = each(func(row versionRow) { versions[row.ProjectID] = row.Version })(rows)
	}
	if err != nil {
		return nil, fmt.Errorf("read which policies are in force: %w", err)
	}
	return versions, nil
}

func noPolicy(projectID string) error {
	if projectID == "" {
		return fault.New(fault.NotFound, "the organisation has no such policy document")
	}
	return fault.New(fault.NotFound, "project %.128q has no such policy document", projectID)
}
