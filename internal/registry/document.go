package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// PolicyVersion is one version of the policy document of a project or, without
// one, of the organisation.
type PolicyVersion struct {
	ProjectID string
	Version   int64 // 1, 2, 3, …
	CreatedAt time.Time
	Author    string // who put it: a principal, or "file"
	Comment   string
	Origin    Origin
	Document  string // the text; empty in lists
	// Weakens says what it allows beyond the version before. It is known of a
	// change that has just been made only.
	Weakens []string
}

// Origin is how a version came about.
type Origin string

// The origins.
const (
	OriginFile     Origin = "file"     // the operator's security.yaml
	OriginAPI      Origin = "api"      // someone put it
	OriginRollback Origin = "rollback" // someone restored the text of an older one
)

// PolicyDiff says how one version differs from another.
type PolicyDiff struct {
	From, To int64
	Diff     string   // unified, by line; empty: they are the same
	Weakens  []string // what To allows beyond From
}

// MaxPolicyVersions is the most that one page of versions holds.
const MaxPolicyVersions = 500

// PolicyVersions lists the versions of a project's document, or with "" of the
// organisation's, from the newest: up to limit of those that are older than
// before, or of all if before is 0.
//
// Faults: Forbidden unless the caller holds config:read in the project; for the
// organisation's document it must be confined to none. NotFound if it is
// confined to another project.
func (r *Registry) PolicyVersions(ctx context.Context, c policy.Caller, projectID string, before int64, limit int) ([]PolicyVersion, error) {
	if err := r.permitReading(ctx, c, projectID); err != nil {
		return nil, err
	}
	rows, err := r.pool.Query(ctx, `
		SELECT project_id, version, created_at, author, comment, origin, '' AS document FROM policy_documents
		WHERE project_id = $1 AND ($2::bigint = 0 OR version < $2) ORDER BY version DESC LIMIT $3`,
		projectID, before, min(limit, MaxPolicyVersions))
	var versions []PolicyVersion
	if err == nil {
		versions, err = pgx.CollectRows(rows, toPolicyVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("list policy versions: %w", postgres.Fault(err))
	}
	return versions, nil
}

// PolicyAt returns one version; 0 asks for the one in force.
//
// Faults: as PolicyVersions', and NotFound if there is no such version.
func (r *Registry) PolicyAt(ctx context.Context, c policy.Caller, projectID string, version int64) (PolicyVersion, error) {
	if err := r.permitReading(ctx, c, projectID); err != nil {
		return PolicyVersion{}, err
	}
	return r.versionAt(ctx, projectID, version)
}

// Organization returns the organisation's document in force, for the server
// itself: nobody is asked whether it may. NotFound if there is none.
func (r *Registry) Organization(ctx context.Context) (PolicyVersion, error) {
	return r.versionAt(ctx, "", 0)
}

// DiffPolicies compares two versions. From 0 stands for no document at all, and
// to 0 for the version in force.
//
// Faults: as PolicyAt's.
func (r *Registry) DiffPolicies(ctx context.Context, c policy.Caller, projectID string, from, to int64) (PolicyDiff, error) {
	if err := r.permitReading(ctx, c, projectID); err != nil {
		return PolicyDiff{}, err
	}
	newer, err := r.versionAt(ctx, projectID, to)
	if err != nil {
		return PolicyDiff{}, err
	}
	older := PolicyVersion{ProjectID: projectID}
	if from != 0 {
		if older, err = r.versionAt(ctx, projectID, from); err != nil {
			return PolicyDiff{}, err
		}
	}
	d := PolicyDiff{From: from, To: newer.Version}
	name := func(v PolicyVersion) string {
		return fmt.Sprintf("%s\tversion %d", parsed{projectID: projectID}.file(), v.Version)
	}
	d.Diff = unified(name(older), name(newer), older.Document, newer.Document)
	if d.Diff != "" {
		d.Weakens = weakens(older.parse(), newer.parse())
	}
	return d, nil
}

// permitReading demands what it takes to read a project's document.
func (r *Registry) permitReading(ctx context.Context, c policy.Caller, projectID string) error {
	if projectID != "" && !projectForm.MatchString(projectID) {
		return noPolicy(projectID)
	}
	s, err := r.current(ctx)
	if err != nil {
		return err
	}
	p, need, err := r.ruling(ctx, s, projectID, policy.ConfigRead)
	if err != nil {
		return err
	}
	_, err = r.permit(ctx, onPolicy(c, "policy.read", projectID), p, need)
	return err
}

// ruling returns by which policy it is decided about a project's document, and
// what that takes: by the one in force, and the permission as it is given. If
// that cannot be used because of the project's own document, those who hold
// admin:all by the organisation's can look and mend it; the organisation's own
// is mended by the operator's file.
func (r *Registry) ruling(ctx context.Context, s *snapshot, projectID string, need policy.Permission) (*policy.Policy, policy.Permission, error) {
	p, err := r.inForce(ctx, s, projectID)
	if err == nil && p.IsClosed() && projectID != "" {
		p, err = r.inForce(ctx, s, "")
		need = policy.AdminAll
	}
	return p, need, err
}

// onPolicy is an act about the document of a project or the organisation.
func onPolicy(c policy.Caller, action, projectID string) act {
	a := act{caller: c, action: action, resourceType: "policy", resourceID: projectID, projectID: projectID}
	if projectID == "" {
		a.resourceID = "organization"
	}
	return a
}

// versionAt reads a version; 0 is the one in force.
func (r *Registry) versionAt(ctx context.Context, projectID string, version int64) (PolicyVersion, error) {
	rows, err := r.pool.Query(ctx, `
		SELECT project_id, version, created_at, author, comment, origin, document FROM policy_documents
		WHERE project_id = $1 AND version = coalesce(nullif($2::bigint, 0), (SELECT version FROM policies WHERE project_id = $1))`,
		projectID, version)
	var v PolicyVersion
	if err == nil {
		v, err = pgx.CollectExactlyOneRow(rows, toPolicyVersion)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return v, noPolicy(projectID)
	}
	if err != nil {
		return v, fmt.Errorf("read a policy version: %w", postgres.Fault(err))
	}
	return v, nil
}

type policyRow struct {
	ProjectID string
	Version   int64
	CreatedAt time.Time
	Author    string
	Comment   string
	Origin    Origin
	Document  string
}

func toPolicyVersion(row pgx.CollectableRow) (PolicyVersion, error) {
	p, err := pgx.RowToStructByName[policyRow](row)
	return PolicyVersion{
		ProjectID: p.ProjectID, Version: p.Version, CreatedAt: p.CreatedAt, Author: p.Author,
		Comment: p.Comment, Origin: p.Origin, Document: p.Document,
	}, err
}

func (v PolicyVersion) parse() parsed {
	if v.Version == 0 {
		return parsed{projectID: v.ProjectID}
	}
	return parse(v.ProjectID, v.Version, v.Document)
}

// weakens says what a version allows beyond another.
func weakens(from, to parsed) []string {
	for _, d := range []parsed{from, to} {
		if d.err != nil {
			return []string{fmt.Sprintf("version %d cannot be read, so that nothing compares with it", d.version)}
		}
	}
	return policy.Weakens(from.document, to.document)
}
