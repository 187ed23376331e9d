package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Proof shows that an entry is in the log of which a checkpoint was signed.
type Proof struct {
	EntryID uuid.UUID `json:"entryId"`
	// Leaf is what was hashed: the entry as JSON in the canonical form of RFC
	// 8785.
	Leaf       string           `json:"leaf"`
	Index      int64            `json:"index"`    // its place in the log, from 0
	TreeSize   int64            `json:"treeSize"` // that of the checkpoint
	Hashes     tlog.RecordProof `json:"hashes"`   // RFC 6962's audit path, from the leaf, in base64
	Checkpoint string           `json:"checkpoint"`
}

// Check returns an error unless the leaf is in the log whose checkpoint one of
// the verifiers' keys has signed.
func (p Proof) Check(verifiers ...note.Verifier) error {
	c, err := OpenCheckpoint(p.Checkpoint, verifiers...)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Index, tlog.RecordHash([]byte(p.Leaf))); err != nil {
		return fmt.Errorf("entry %s at %d of %d: %w", p.EntryID, p.Index, c.Size, err)
	}
	return nil
}

// Consistency shows that the log of one size begins with that of another.
type Consistency struct {
	From       int64          `json:"from"`
	To         int64          `json:"to"`
	Hashes     tlog.TreeProof `json:"hashes"`     // as in RFC 6962, section 2.1.2, in base64
	Checkpoint string         `json:"checkpoint"` // of the size To, if that is the newest
}

// Checkpoint returns the newest one, or NotFound while there is none.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) {
	var signed string
	if err := l.pool.QueryRow(ctx, `SELECT checkpoint FROM audit_seal`).Scan(&signed); err != nil {
		return Checkpoint{}, postgres.Fault(fmt.Errorf("read the newest checkpoint: %w", err))
	}
	return parseSigned(signed)
}

// parseSigned reads a checkpoint of the database, whoever signed it: that is
// for the client to check.
func parseSigned(signed string) (Checkpoint, error) {
	if signed == "" {
		return Checkpoint{}, fault.New(fault.NotFound, "nothing of the audit log is sealed yet")
	}
	c, err := parseCheckpoint(signed)
	c.Note = signed
	return c, err
}

// Proof returns the proof of an entry that the query selects, by the newest
// checkpoint. It returns NotFound if there is no such entry, and Conflict if
// it is not sealed yet, which takes about a second.
func (l *Log) Proof(ctx context.Context, q Query, id uuid.UUID) (p Proof, err error) {
	err = l.snapshot(ctx, func(tx pgx.Tx) error {
		where, args := q.where()
		args["id"] = id
		rows, err := tx.Query(ctx, `SELECT (SELECT l.seq FROM audit_leaves l WHERE l.entry_id = e.id), `+rowColumns+`
			FROM audit_entries e WHERE e.id = @id AND `+where, args)
		if err != nil {
			return err
		}
		var seq *int64
		r, err := pgx.CollectExactlyOneRow(rows, func(pgx.CollectableRow) (*row, error) { return scanRow(rows, &seq) })
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.NotFound, "no audit entry %s", id)
		}
		if err != nil {
			return err
		}
		if seq == nil {
			return fault.New(fault.Conflict, "entry %s is not sealed yet; try again in a second", id)
		}
		c, err := newest(ctx, tx)
		if err != nil {
			return err
		}
		p = Proof{EntryID: id, Leaf: string(appendLeaf(nil, r)), Index: *seq, TreeSize: c.Size, Checkpoint: c.Note}
		p.Hashes, err = tlog.ProveRecord(c.Size, p.Index, storedTree{ctx, tx})
		return err
	})
	if err != nil {
		return Proof{}, postgres.Fault(fmt.Errorf("prove audit entry %s: %w", id, err))
	}
	return p, nil
}

// Consistency returns the proof that the log of the size to, or of the newest
// checkpoint if to is 0, begins with the log of the size from. Invalid is the
// fault for sizes that the log never had, or not in that order.
func (l *Log) Consistency(ctx context.Context, from, to int64) (p Consistency, err error) {
	err = l.snapshot(ctx, func(tx pgx.Tx) error {
		c, err := newest(ctx, tx)
		if err != nil {
			return err
		}
		p = Consistency{From: from, To: to}
		if to == 0 || to == c.Size {
			p.To, p.Checkpoint = c.Size, c.Note
		}
		if from < 1 || from > p.To || p.To > c.Size {
			return fault.New(fault.Invalid, "from must be 1 or more and not beyond to, nor to beyond %d", c.Size)
		}
		p.Hashes, err = tlog.ProveTree(p.To, p.From, storedTree{ctx, tx})
		return err
	})
	if err != nil {
		return Consistency{}, postgres.Fault(fmt.Errorf("prove consistency from %d to %d: %w", from, to, err))
	}
	return p, nil
}

func newest(ctx context.Context, tx pgx.Tx) (Checkpoint, error) {
	var signed string
	if err := tx.QueryRow(ctx, `SELECT checkpoint FROM audit_seal`).Scan(&signed); err != nil {
		return Checkpoint{}, err
	}
	return parseSigned(signed)
}

// snapshot runs fn in a transaction that sees the database as it is now.
func (l *Log) snapshot(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}
