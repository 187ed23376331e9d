package task

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"mime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	actionPutArtifact    = "artifact.put"
	actionDeleteArtifact = "artifact.delete"
)

// abandonTimeout bounds the last words about an upload that failed, which its
// own context may have ended.
const abandonTimeout = 5 * time.Second

// NewArtifact is an artifact to be kept.
type NewArtifact struct {
	TaskID uuid.UUID
	Lease  *uuid.UUID // by whose right; nil: the submitter's
	Name   string
	// ContentType is a media type (RFC 9110, section 8.3.1). Default:
	// application/octet-stream.
	ContentType string
	Size        int64  // as announced; negative: unknown
	SHA256      []byte // what the bytes must hash to; nil: anything
	If          ArtifactCondition
}

// ArtifactCondition lets a change happen only to what its author has seen. The
// zero value lets it happen to whatever is there.
type ArtifactCondition struct {
	Absent bool
	SHA256 []byte // of the artifact that must be there; nil: any
}

func (i ArtifactCondition) check(taskID uuid.UUID, name string, there []byte) error {
	switch {
	case i.Absent && there != nil:
		return fault.New(fault.Conflict, "task %s has an artifact %q already", taskID, name)
	case i.SHA256 != nil && there == nil:
		return fault.New(fault.Conflict, "task %s has no artifact %q", taskID, name)
	case i.SHA256 != nil && !bytes.Equal(i.SHA256, there):
		return fault.New(fault.Conflict, "the artifact %q of task %s was replaced meanwhile", name, taskID)
	}
	return nil
}

func (n *NewArtifact) check() error {
	var found []fault.Field
	if !validArtifactName(n.Name) {
		found = append(found, fault.Field{Path: "path.name", Message: fmt.Sprintf("must be a file name: 1 to %d printable characters, no slashes", MaxArtifactNameChars)})
	}
	if n.ContentType == "" {
		n.ContentType = "application/octet-stream"
	}
	if kind, _, err := mime.ParseMediaType(n.ContentType); err != nil || !strings.Contains(kind, "/") || len(n.ContentType) > MaxContentTypeBytes || strings.ContainsFunc(n.ContentType, unicode.IsControl) {
		found = append(found, fault.Field{Path: "header.Content-Type", Message: fmt.Sprintf("must be a media type of at most %d bytes", MaxContentTypeBytes)})
	}
	return fault.InvalidFields(found)
}

// validArtifactName reports whether the name is safe as that of a file, wherever
// it is saved.
func validArtifactName(name string) bool {
	return utf8.ValidString(name) && name != "" && name != "." && name != ".." && utf8.RuneCountInString(name) <= MaxArtifactNameChars &&
		strings.TrimSpace(name) == name && !strings.ContainsAny(name, `/\`) &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// PutArtifact keeps what content yields until its end as an artifact of a task,
// in place of one that may be there. Nobody sees any of it before all of it, the
// task's event and the audit entry are kept; of two at once the later one wins
// wholly.
//
// It returns NotFound, Forbidden, LeaseLost and InvalidTransition as Update
// does, Invalid for a name or a hash that is wrong, TooLarge beyond the limits
// on bytes, TooMany beyond that on artifacts, and Conflict if the condition is
// not met. What it can refuse at once it refuses before it reads any content.
func (s *Service) PutArtifact(ctx context.Context, c policy.Caller, n NewArtifact, content io.Reader) (a Artifact, created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, TransferTimeout)
	defer cancel()
	if err := n.check(); err != nil {
		return a, false, err
	}
	if _, err := s.mayPut(ctx, s.pool, c, n.TaskID, n.Lease, ""); err != nil {
		return a, false, err
	}
	if _, err := s.roomFor(ctx, s.pool, n, n.Size); err != nil {
		return a, false, err
	}
	store := s.contents[0]
	a = Artifact{TaskID: n.TaskID, Name: n.Name, ContentType: n.ContentType, CreatedBy: c.UserID, ContentID: uuid.New(), Store: store.Name()}
	_, err = s.pool.Exec(ctx, `INSERT INTO artifact_contents (id, store, collect_after) VALUES ($1, $2, now() + $3::interval)`,
		a.ContentID, a.Store, 2*TransferTimeout)
	if err != nil {
		return a, false, postgres.Fault(fmt.Errorf("begin content %s: %w", a.ContentID, err))
	}
	in := &intake{from: content, hash: sha256.New(), limit: s.maxArtifact}
	err = store.Write(ctx, a.ContentID, in)
	switch {
	case in.err != nil:
		err = in.err // it says more than what the store makes of it
	case err != nil:
		err = postgres.Fault(fmt.Errorf("write artifact %q of task %s: %w", n.Name, n.TaskID, err))
	default:
		a.Size, a.SHA256 = in.size, in.hash.Sum(nil)
		created, err = s.finishArtifact(ctx, c, n, &a)
	}
	if err != nil {
		s.abandon(ctx, a.ContentID)
		return Artifact{}, false, err
	}
	s.announceChanged(n.TaskID)
	return a, created, nil
}

// intake counts and hashes what is uploaded, and ends it at the limit.
type intake struct {
	from  io.Reader
	hash  hash.Hash
	size  int64
	limit int64
	err   error
}

func (i *intake) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.from.Read(p)
	i.hash.Write(p[:n]) // never fails
	i.size += int64(n)
	switch {
	case i.size > i.limit:
		i.err = tooLarge(i.limit)
	case err != nil && err != io.EOF: // a wrapped one is another's end
		i.err = fmt.Errorf("read content: %w", err)
	default:
		return n, err
	}
	return n, i.err
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "an artifact has at most %d bytes", limit)
}

// roomFor returns the hash and the content of the artifact in whose place
// another one of that size may stand.
func (s *Service) roomFor(ctx context.Context, db rowQuerier, n NewArtifact, size int64) (replaced *uuid.UUID, err error) {
	if size > s.maxArtifact {
		return nil, tooLarge(s.maxArtifact)
	}
	var there []byte
	var others int
	var bytes int64
	err = db.QueryRow(ctx, `SELECT (array_agg(sha256) FILTER (WHERE name = $2))[1], (array_agg(content_id) FILTER (WHERE name = $2))[1],
		count(*) FILTER (WHERE name <> $2), coalesce(sum(size) FILTER (WHERE name <> $2), 0)
		FROM artifacts WHERE task_id = $1`, n.TaskID, n.Name).Scan(&there, &replaced, &others, &bytes)
	switch {
	case err != nil:
		return nil, postgres.Fault(fmt.Errorf("read artifacts of task %s: %w", n.TaskID, err))
	case others >= MaxArtifacts:
		return nil, fault.New(fault.TooMany, "task %s has %d artifacts, the most that a task can have", n.TaskID, MaxArtifacts)
	case bytes+size > s.maxArtifacts:
		return nil, fault.New(fault.TooLarge, "the artifacts of a task have at most %d bytes together", s.maxArtifacts)
	}
	return replaced, n.If.check(n.TaskID, n.Name, there)
}

// finishArtifact makes an artifact of a content that is kept.
func (s *Service) finishArtifact(ctx context.Context, c policy.Caller, n NewArtifact, a *Artifact) (created bool, err error) {
	if n.SHA256 != nil && !bytes.Equal(n.SHA256, a.SHA256) {
		return false, fault.InvalidFields([]fault.Field{{Path: "header.Content-Digest", Message: "is not that of the content, which is sha-256 " + hex.EncodeToString(a.SHA256)}})
	}
	data, err := json.Marshal(map[string]any{"name": a.Name, "size": a.Size, "sha256": hex.EncodeToString(a.SHA256), "contentType": a.ContentType})
	if err != nil {
		return false, fmt.Errorf("encode artifact: %w", err)
	}
	d := policy.Decision{Allowed: true, Layer: policy.LayerPermission, Reason: "submitted by the caller"}
	if n.Lease != nil {
		d.Reason = "leased to a worker of the caller's"
	}
	entry := audit.NewEntry(c, actionPutArtifact, resourceType, n.TaskID.String(), d)
	entry.Details = data
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		project, err := s.mayPut(ctx, tx, c, n.TaskID, n.Lease, "FOR UPDATE OF t")
		if err != nil {
			return err
		}
		replaced, err := s.roomFor(ctx, tx, n, a.Size)
		if err != nil {
			return err
		}
		created, entry.ProjectID = replaced == nil, project
		b := &pgx.Batch{}
		b.Queue(`UPDATE artifact_contents SET collect_after = NULL WHERE id = $1`, a.ContentID)
		b.Queue(`INSERT INTO artifacts (task_id, name, size, sha256, content_type, created_at, created_by, content_id, store)
			VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7, $8)
			ON CONFLICT (task_id, name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, content_type = excluded.content_type,
				created_at = excluded.created_at, created_by = excluded.created_by, content_id = excluded.content_id, store = excluded.store
			RETURNING created_at`, a.TaskID, a.Name, a.Size, a.SHA256, a.ContentType, a.CreatedBy, a.ContentID, a.Store).
			QueryRow(func(row pgx.Row) error { return row.Scan(&a.CreatedAt) })
		queueRelease(b, replaced)
		queueArtifactEvent(b, a.TaskID, a.Name, data)
		audit.Queue(b, entry)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return false, audit.Fault(fmt.Errorf("keep artifact %q of task %s: %w", n.Name, n.TaskID, err))
	}
	return created, nil
}

// queueRelease has a content collected once nobody can be reading it any more.
func queueRelease(b *pgx.Batch, content *uuid.UUID) {
	b.Queue(`UPDATE artifact_contents SET collect_after = now() + $2::interval WHERE id = $1`, content, 2*TransferTimeout)
}

// queueArtifactEvent tells of an artifact in the history of an open task, whose
// row the transaction holds. That of a task that has ended is closed.
func queueArtifactEvent(b *pgx.Batch, taskID uuid.UUID, name string, data json.RawMessage) {
	b.Queue(`WITH t AS (
			UPDATE tasks SET updated_at = clock_timestamp(), last_seq = last_seq + 1, last_txid = greatest(last_txid, pg_current_xact_id())
			WHERE id = $1 AND completed_at IS NULL RETURNING id, last_seq, last_txid, updated_at, status
		)
		INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message, data)
		SELECT id, last_seq, last_txid, updated_at, 'artifact', status, $2, $3::text::json FROM t`, taskID, name, string(data))
}

// abandon has what there is of an upload that failed collected soon.
func (s *Service) abandon(ctx context.Context, content uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	// Unless it has become an artifact, in a commit whose answer was lost.
	_, err := s.pool.Exec(ctx, `UPDATE artifact_contents SET collect_after = now() WHERE id = $1 AND collect_after IS NOT NULL`, content)
	if err != nil {
		s.log.WarnContext(ctx, "an upload that failed is collected late", "content", content, "error", err)
	}
}

// DeleteArtifact removes an artifact of a task, for whoever submitted the task
// and for administrators. It returns NotFound if c does not see it, Forbidden if
// it is not c's to delete, and Conflict if the condition is not met. Whoever is
// reading it reads on.
func (s *Service) DeleteArtifact(ctx context.Context, c policy.Caller, taskID uuid.UUID, name string, cond ArtifactCondition) error {
	t, err := s.Get(ctx, c, taskID)
	if err != nil {
		return err
	}
	d := policy.Decision{Allowed: true, Layer: policy.LayerPermission, Reason: "submitted by the caller"}
	entry := audit.NewEntry(c, actionDeleteArtifact, resourceType, taskID.String(), d)
	if t.UserID != c.UserID {
		r := policy.Request{Permission: policy.AdminAll, Action: actionDeleteArtifact, ProjectID: t.ProjectID, Labels: t.Labels}
		if entry, err = s.allow(ctx, c, r, taskID.String()); err != nil {
			return err
		}
	}
	entry.ProjectID = t.ProjectID
	data, err := json.Marshal(map[string]any{"name": name, "deleted": true})
	if err != nil {
		return fmt.Errorf("encode artifact: %w", err)
	}
	entry.Details = data
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// The task's row goes before those of its artifacts, as everywhere.
		if _, err := tx.Exec(ctx, `SELECT FROM tasks WHERE id = $1 FOR UPDATE`, taskID); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `DELETE FROM artifacts a WHERE task_id = $1 AND name = $2 RETURNING `+artifactColumns, taskID, name)
		if err != nil {
			return err
		}
		gone, err := pgx.CollectRows(rows, toArtifact)
		switch {
		case err != nil:
			return err
		case len(gone) == 0:
			return noArtifact(taskID, name)
		}
		if err := cond.check(taskID, name, gone[0].SHA256); err != nil {
			return err
		}
		b := &pgx.Batch{}
		queueRelease(b, &gone[0].ContentID)
		queueArtifactEvent(b, taskID, name, data)
		audit.Queue(b, entry)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return audit.Fault(fmt.Errorf("delete artifact %q of task %s: %w", name, taskID, err))
	}
	s.announceChanged(taskID)
	return nil
}
