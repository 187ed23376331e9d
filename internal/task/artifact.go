package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Artifact is a file that a task left behind.
type Artifact struct {
	TaskID      uuid.UUID
	Name        string
	Size        int64 // bytes
	SHA256      []byte
	ContentType string
	CreatedAt   time.Time
	CreatedBy   string
	// ContentID and Store say where the bytes are. They never change: an artifact
	// that is replaced has another content.
	ContentID uuid.UUID
	Store     string
}

const artifactColumns = `a.task_id, a.name, a.size, a.sha256, a.content_type, a.created_at, a.created_by, a.content_id, a.store`

var toArtifact = pgx.RowToStructByName[Artifact]

// Contents keeps the bytes of artifacts, each content under an id of its own.
type Contents interface {
	// Name tells it from other stores, and stays the same.
	Name() string
	// Write keeps what r yields until its end. After an error there may be a
	// part of it, for Remove.
	Write(ctx context.Context, id uuid.UUID, r io.Reader) error
	// Open returns what is kept from an offset on, which is before its end.
	Open(ctx context.Context, id uuid.UUID, offset int64) (io.ReadCloser, error)
	// Remove removes what is kept under an id, which may be nothing.
	Remove(ctx context.Context, id uuid.UUID) error
}

// TransferTimeout is how long an artifact may take to be sent or received. What
// nobody refers to any more is kept for longer than that.
const TransferTimeout = time.Hour

// Artifacts returns the artifacts of a task, by name. It returns NotFound if c
// does not see the task.
func (s *Service) Artifacts(ctx context.Context, c policy.Caller, taskID uuid.UUID) (all []Artifact, err error) {
	err = s.read(ctx, c, `SELECT `+artifactColumns+` FROM artifacts a JOIN tasks t ON t.id = a.task_id AND `+confined+`
		WHERE a.task_id = @id`, pgx.NamedArgs{"id": taskID}, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, toArtifact)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list artifacts of task %s: %w", taskID, err)
	}
	if len(all) == 0 {
		if _, err := s.Get(ctx, c, taskID); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b Artifact) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Artifact returns an artifact of a task, or NotFound if c does not see the task
// or it has none of this name.
func (s *Service) Artifact(ctx context.Context, c policy.Caller, taskID uuid.UUID, name string) (a Artifact, err error) {
	err = s.read(ctx, c, `SELECT `+artifactColumns+` FROM artifacts a JOIN tasks t ON t.id = a.task_id AND `+confined+`
		WHERE a.task_id = @id AND a.name = @name`, pgx.NamedArgs{"id": taskID, "name": name}, func(rows pgx.Rows) (err error) {
		a, err = pgx.CollectExactlyOneRow(rows, toArtifact)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if _, err := s.Get(ctx, c, taskID); err != nil {
			return Artifact{}, err
		}
		return Artifact{}, noArtifact(taskID, name)
	case err != nil:
		return Artifact{}, fmt.Errorf("read artifact %q of task %s: %w", name, taskID, err)
	}
	return a, nil
}

func noArtifact(taskID uuid.UUID, name string) error {
	return fault.New(fault.NotFound, "task %s has no artifact %q", taskID, name)
}

// ReadArtifact returns the bytes of an artifact, as it was when it was asked
// for, even if it is replaced or deleted meanwhile. They can be read for as long
// as ctx lasts, at most TransferTimeout. It returns Unavailable if they lie in a
// store that this server does not know.
func (s *Service) ReadArtifact(ctx context.Context, a Artifact) (*ArtifactReader, error) {
	store, err := s.storeNamed(a.Store)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, TransferTimeout)
	return &ArtifactReader{size: a.Size, cancel: cancel, open: func(offset int64) (io.ReadCloser, error) {
		return store.Open(ctx, a.ContentID, offset)
	}}, nil
}

func (s *Service) storeNamed(name string) (Contents, error) {
	i := slices.IndexFunc(s.contents, func(c Contents) bool { return c.Name() == name })
	if i < 0 {
		return nil, fault.New(fault.Unavailable, "this lies in the store %q, for which this server is not configured", name)
	}
	return s.contents[i], nil
}

// ArtifactReader reads an artifact from any place on. It is to be closed.
type ArtifactReader struct {
	open   func(offset int64) (io.ReadCloser, error)
	cancel context.CancelFunc
	size   int64
	at     int64
	from   io.ReadCloser // at the place at; nil: not opened yet
	err    error
}

// Read reads on. An end that comes too early is io.ErrUnexpectedEOF.
func (r *ArtifactReader) Read(p []byte) (n int, err error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.from == nil {
		if r.from, err = r.open(r.at); err != nil {
			r.err = err
			return 0, err
		}
	}
	n, err = r.from.Read(p[:min(int64(len(p)), r.size-r.at)])
	r.at += int64(n)
	switch {
	case r.at >= r.size:
		err = nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		r.err = err
	}
	return n, err
}

// Seek is as in io.Seeker.
func (r *ArtifactReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return r.at, errors.New("seek before the beginning of an artifact")
	}
	if offset != r.at && r.from != nil {
		err := r.from.Close()
		if r.from = nil; err != nil {
			return r.at, err
		}
	}
	r.at = offset
	return offset, nil
}

// Err is what reading failed with, if it did.
func (r *ArtifactReader) Err() error { return r.err }

// Close ends the reading.
func (r *ArtifactReader) Close() error {
	defer r.cancel()
	if r.from == nil {
		return nil
	}
	return r.from.Close()
}

// mayPut returns nil if the caller may give the task an artifact now: by the
// right of a lease, or because it is the submitter of a manual task. lock, a
// locking clause, keeps that so until the transaction ends. project is the
// task's.
func (s *Service) mayPut(ctx context.Context, db rowQuerier, c policy.Caller, taskID uuid.UUID, lease *uuid.UUID, lock string) (project string, err error) {
	var st Status
	var dispatch Dispatch
	var userID string
	var lastSeq int64
	var held bool
	err = db.QueryRow(ctx, `SELECT t.status, t.dispatch, t.user_id, t.project_id, t.last_seq, coalesce(t.lease_token = $2
		AND ($3 = '' OR EXISTS (SELECT FROM workers w WHERE w.id = t.worker_id AND w.owner = $3)), false)
		FROM tasks t WHERE t.id = $1 `+lock, taskID, lease, ownerOf(c)).Scan(&st, &dispatch, &userID, &project, &lastSeq, &held)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && lease == nil && !c.Sees(project, userID):
		return "", noTask(taskID)
	case err != nil:
		return "", postgres.Fault(fmt.Errorf("read task %s: %w", taskID, err))
	case lease != nil && !held:
		return "", fault.New(fault.LeaseLost, "the lease of task %s is held no more", taskID)
	case lease == nil && dispatch == Auto:
		return "", s.refuse(ctx, c, actionPutArtifact, taskID, "it is dispatched to workers: only the holder of its lease gives it artifacts")
	case lease == nil && userID != c.UserID:
		return "", s.refuse(ctx, c, actionPutArtifact, taskID, "only whoever submitted it gives it artifacts")
	case st.Terminal():
		return "", fault.New(fault.InvalidTransition, "task %s is %s, which is final", taskID, st)
	case lastSeq >= MaxEvents:
		return "", fault.New(fault.TooMany, "task %s has %d events, the most that a task can have", taskID, MaxEvents)
	}
	return project, nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
