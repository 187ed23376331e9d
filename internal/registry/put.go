package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

const (
	maxComment = 1_000 // characters
	// maxProjects bounds how many projects can have a document of their own, and
	// so what a snapshot costs.
	maxProjects = 10_000
	// maxListed bounds how many weaknesses an audit entry or a reason tells of.
	maxListed = 50
)

var projectForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}$`)

// proposal is a document that a caller wants to be in force.
type proposal struct {
	act
	text     string
	comment  string
	origin   Origin
	restores int64  // the version that has the same text, in a rollback
	expected *int64 // the version that it is to replace; nil: whichever there is
}

// PutPolicy puts a document in force, of a project or, with "", of the
// organisation, and returns its version. A document that is in force already
// stays as it is. With expected only the version of that number is replaced, 0
// being none; of several writers at once one wins, and the others conflict.
//
// Faults: Forbidden unless the caller holds config:write in the project (and,
// for the organisation's document, is confined to none), also admin:all for
// what weakens the document or touches its identity section, and whatever it
// newly grants; NotFound if the caller is confined to another project; Invalid
// with a field for every fault in the text, whose path is
// body.document:line:column; Conflict, also for a document under which the
// caller could not go on to change it or, with a session, open the next one,
// or which leaves projects with documents that cannot be used; TooMany;
// AuditUnavailable.
func (r *Registry) PutPolicy(ctx context.Context, c policy.Caller, projectID string, document []byte, expected *int64, comment string) (PolicyVersion, error) {
	return r.propose(ctx, proposal{
		act: onPolicy(c, "policy.update", projectID), text: string(document), comment: comment, origin: OriginAPI, expected: expected,
	})
}

// Rollback puts the text of an older version in force, as a new version.
//
// Faults: as PutPolicy's, and NotFound if there is no such version.
func (r *Registry) Rollback(ctx context.Context, c policy.Caller, projectID string, version int64, comment string) (PolicyVersion, error) {
	return r.propose(ctx, proposal{
		act: onPolicy(c, "policy.rollback", projectID), comment: comment, origin: OriginRollback, restores: version,
	})
}

func (r *Registry) propose(ctx context.Context, p proposal) (PolicyVersion, error) {
	// It is to be decided by what is in force now.
	r.forget()
	s, err := r.current(ctx)
	if err != nil {
		return PolicyVersion{}, err
	}
	ruling, need, err := r.ruling(ctx, s, p.projectID, policy.ConfigWrite)
	if err != nil {
		return PolicyVersion{}, err
	}
	if p.act, err = r.permit(ctx, p.act, ruling, need); err != nil {
		return PolicyVersion{}, err
	}
	if err := p.check(); err != nil {
		return PolicyVersion{}, err
	}
	if p.restores != 0 {
		old, err := r.versionAt(ctx, p.projectID, p.restores)
		if err != nil {
			return PolicyVersion{}, err
		}
		p.text = old.Document
	}
	base := s.versions[p.projectID]
	from, err := r.document(ctx, p.projectID, base)
	if err != nil {
		return PolicyVersion{}, err
	}
	if base != 0 && from.text == p.text {
		return r.versionAt(ctx, p.projectID, base)
	}
	if p.expected != nil && *p.expected != base {
		return PolicyVersion{}, replaced(p.projectID, base)
	}
	to, err := r.usable(ctx, s, p)
	if err != nil {
		return PolicyVersion{}, err
	}
	weaker := weakens(from, to.parsed)
	if p.act, err = r.permitText(ctx, p.act, ruling, from, to.parsed, weaker); err != nil {
		return PolicyVersion{}, err
	}
	if reason := locksOut(to.policy, p.act); reason != "" {
		return PolicyVersion{}, fault.New(fault.Conflict, "under this document you could not change it back: %s", reason)
	}
	return r.succeed(ctx, s, p, weaker)
}

func (p *proposal) check() error {
	var fields []fault.Field
	refuse := refusal(func(_ any, path, message string) {
		fields = append(fields, fault.Field{Path: path, Message: message})
	})
	if p.projectID != "" && !projectForm.MatchString(p.projectID) {
		refuse(nil, "path.id", "must be an id: at most 128 letters, digits and . _ : @ / + -")
	}
	refuse.text(&p.comment, "body.comment", 0, maxComment)
	if p.origin == OriginRollback && p.restores < 1 {
		refuse(nil, "body.version", "must be 1 or more")
	}
	return fault.InvalidFields(fields)
}

// candidate is a document with the policy that it would make.
type candidate struct {
	parsed
	policy *policy.Policy
}

// inBody is what faults in a document that came by a request are found under.
const inBody = "body.document"

// usable reads a proposal. The error is Invalid, or Conflict for an
// organisation's document without which those of projects make no sense.
func (r *Registry) usable(ctx context.Context, s *snapshot, p proposal) (candidate, error) {
	to := candidate{parsed: parsed{projectID: p.projectID, version: s.versions[p.projectID] + 1, text: p.text}}
	var err error
	if to.document, err = policy.ParseDocument([]byte(p.text), inBody, kindOf(p.projectID)); err != nil {
		return to, invalidDocument(err)
	}
	if p.projectID != "" {
		org, err := r.document(ctx, "", s.versions[""])
		if err != nil {
			return to, err
		}
		to.policy, err = r.compile(org.document, to.document, org.version)
		return to, invalidDocument(err)
	}
	if to.policy, err = r.compile(to.document, nil, to.version); err != nil {
		return to, invalidDocument(err)
	}
	return to, r.leavesUsable(ctx, s, to)
}

// leavesUsable refuses a document of the organisation if it takes away what
// documents of projects refer to.
func (r *Registry) leavesUsable(ctx context.Context, s *snapshot, to candidate) error {
	var broken []string
	for projectID, version := range s.versions {
		if projectID == "" {
			continue
		}
		now, err := r.inForce(ctx, s, projectID)
		if err != nil {
			return err
		}
		if now.IsClosed() {
			continue // it is no worse then
		}
		own, err := r.document(ctx, projectID, version)
		if err != nil {
			return err
		}
		if _, err := r.compile(to.document, own.document, to.version); err != nil {
			broken = append(broken, fmt.Sprintf("project %s: %s", projectID, err))
		}
	}
	if len(broken) == 0 {
		return nil
	}
	slices.Sort(broken)
	return fault.New(fault.Conflict, "documents of projects could not be used any more: %s", some(broken))
}

// invalidDocument turns the error of a document into an Invalid fault.
func invalidDocument(err error) error {
	if err == nil {
		return nil
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	fields := make([]fault.Field, len(errs))
	for i, e := range errs {
		fields[i] = fault.Field{Path: inBody, Message: e.Error()}
		if at, message, ok := strings.Cut(e.Error(), ": "); ok && strings.HasPrefix(at, inBody+":") {
			fields[i] = fault.Field{Path: at, Message: message}
		}
	}
	return fault.InvalidFields(fields)
}

// permitText demands what the text of a document takes beyond the right to put
// one.
func (r *Registry) permitText(ctx context.Context, a act, ruling *policy.Policy, from, to parsed, weaker []string) (act, error) {
	if more := policy.Exceeds(ruling.Permissions(a.caller), from.document, to.document); len(more) > 0 {
		a.decision = policy.Decision{
			Layer: policy.LayerPermission, PolicyVersion: a.decision.PolicyVersion,
			Reason: fmt.Sprintf("nobody can give away what they do not hold: %s", some(more)),
		}
		return a, r.deny(ctx, a)
	}
	var because string
	switch {
	case len(weaker) > 0:
		because = "the document weakens the policy: " + some(weaker)
	case !reflect.DeepEqual(identityOf(from), identityOf(to)):
		because = "the document changes whose credentials are accepted"
	default:
		return a, nil
	}
	a.decision = ruling.Decide(a.caller, policy.Request{Permission: policy.AdminAll, Action: a.action, ProjectID: a.projectID})
	if a.decision.Allowed {
		return a, nil
	}
	a.decision.Reason += "; " + because
	return a, r.deny(ctx, a)
}

func identityOf(d parsed) policy.Identity {
	if d.document == nil {
		return policy.Identity{}
	}
	return d.document.Identity
}

// locksOut says why the caller could not act again under a policy; empty: it
// could. Whoever can act can take back what went wrong.
func locksOut(after *policy.Policy, a act) string {
	requests := []policy.Request{{Permission: policy.ConfigWrite, Action: a.action, ProjectID: a.projectID}}
	if a.caller.SessionID != "" {
		requests = append(requests, policy.Request{
			Permission: policy.Authenticated, Action: "session.create", ProjectID: a.projectID, Opening: true,
		})
	}
	for _, q := range requests {
		if d := after.Decide(a.caller, q); !d.Allowed {
			return d.Reason
		}
	}
	provider, _, named := strings.Cut(a.caller.UserID, ":")
	if kind := policy.Provider(provider); named && slices.Contains(providers, kind) && !after.Accepts(kind) {
		return fmt.Sprintf("identity provider %s would be off", kind)
	}
	return ""
}

var providers = []policy.Provider{policy.OIDC, policy.GitHub, policy.Google, policy.Local}

// succeed makes a proposal the next version, if what it was decided by is still
// in force.
func (r *Registry) succeed(ctx context.Context, s *snapshot, p proposal, weaker []string) (PolicyVersion, error) {
	v := PolicyVersion{
		ProjectID: p.projectID, Author: p.caller.UserID, Comment: p.comment, Origin: p.origin, Document: p.text, Weakens: weaker,
	}
	err := r.commit(ctx, p.act, func(tx pgx.Tx, e *audit.Entry) error {
		if err := lock(ctx, tx, policies); err != nil {
			return err
		}
		now, err := versionsIn(ctx, tx, "", p.projectID)
		if err != nil {
			return err
		}
		for _, id := range []string{p.projectID, ""} {
			if now[id] != s.versions[id] {
				return replaced(id, now[id])
			}
		}
		v.Version = now[p.projectID] + 1
		e.Details = versionDetails{v.Version, p.restores, weaker[:min(len(weaker), maxListed)]}.json()
		return insert(ctx, tx, &v)
	})
	if err != nil {
		return PolicyVersion{}, err
	}
	return v, nil
}

// insert stores v and puts it in force. It fills in when.
func insert(ctx context.Context, tx pgx.Tx, v *PolicyVersion) error {
	err := tx.QueryRow(ctx, `
		INSERT INTO policy_documents (project_id, version, author, comment, origin, document, hash)
		VALUES ($1, $2, $3, $4, $5, $6::text, sha256(convert_to($6::text, 'UTF8'))) RETURNING created_at`,
		v.ProjectID, v.Version, v.Author, v.Comment, v.Origin, v.Document).Scan(&v.CreatedAt)
	if err != nil {
		return fmt.Errorf("store version %d of a policy: %w", v.Version, err)
	}
	var projects int
	err = tx.QueryRow(ctx, `
		WITH put AS (
			INSERT INTO policies (project_id, version) VALUES ($1, $2)
			ON CONFLICT ON CONSTRAINT policies_pkey DO UPDATE SET version = excluded.version)
		SELECT count(*) FROM policies WHERE project_id NOT IN ('', $1)`, v.ProjectID, v.Version).Scan(&projects)
	if err != nil {
		return fmt.Errorf("put version %d of a policy in force: %w", v.Version, err)
	}
	if projects >= maxProjects && v.Version == 1 && v.ProjectID != "" {
		return fault.New(fault.TooMany, "%d projects have policy documents, and no more can have one", maxProjects)
	}
	return nil
}

// versionDetails is what the audit log tells of a new version.
type versionDetails struct {
	Version  int64    `json:"version"`
	Restores int64    `json:"restores,omitempty"`
	Weakens  []string `json:"weakens,omitempty"`
}

func (d versionDetails) json() json.RawMessage {
	text, err := json.Marshal(d)
	if err != nil {
		panic(err) // numbers and texts have a form
	}
	return text
}

func replaced(projectID string, version int64) error {
	whose := "the organisation's policy"
	if projectID != "" {
		whose = "the policy of project " + projectID
	}
	if version == 0 {
		return fault.New(fault.Conflict, "%s has no version yet", whose)
	}
	return fault.New(fault.Conflict, "%s has been changed: version %d is in force now", whose, version)
}

// some lists what there is, but not too much of it.
func some(items []string) string {
	const most = 5
	if n := len(items) - most; n > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(items[:most], "; "), n)
	}
	return strings.Join(items, "; ")
}
