package audit

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// sealLock is the advisory lock under which the log grows and shrinks.
	sealLock = 0x61756474 // "audt"
	// maxSeal bounds how many entries one transaction seals, but for those of
	// the last transaction among them.
	maxSeal = 2000
)

// remains is what a seal left unsealed.
type remains int

const (
	nothing   remains = iota
	someMore          // more than go into one transaction
	someLater         // what a running transaction may still come before
)

// head is where the log ends, as one snapshot shows it.
type head struct {
	size       int64
	leaves     int64 // one more than the last one's number
	checkpoint string
	// last is the transaction of the last sealed entry that is still there.
	// All entries of it, and of those before, are sealed.
	last uint64
	// renumbered says that last stands in another numbering of transactions
	// than the present: the database was restored from a dump.
	renumbered bool
	cluster    int64 // the present one
}

func readHead(ctx context.Context, tx pgx.Tx) (h head, err error) {
	var last *uint64
	var moved, ahead bool
	err = tx.QueryRow(ctx, `
		WITH last AS (
			SELECT e.txid FROM audit_leaves l JOIN audit_entries e ON e.id = l.entry_id ORDER BY l.seq DESC LIMIT 1
		)
		SELECT s.size, s.checkpoint, coalesce((SELECT max(seq) FROM audit_leaves), -1), c.system_identifier,
			s.cluster <> c.system_identifier, (SELECT txid FROM last),
			coalesce((SELECT txid FROM last) >= pg_snapshot_xmax(pg_current_snapshot()), true)
		FROM audit_seal s, pg_control_system() c`).
		Scan(&h.size, &h.checkpoint, &h.leaves, &h.cluster, &moved, &last, &ahead)
	if err != nil {
		return h, fmt.Errorf("read the head of the audit log: %w", err)
	}
	if last != nil {
		h.last = *last
	}
	h.leaves++ // from 0
	h.renumbered = moved || ahead
	return h, nil
}

// seal gives the entries that are settled their place in the log, signs a
// checkpoint, and hands it out. The error is an inconsistency if the database
// contradicts what this server knows.
func (l *Log) seal(ctx context.Context) (left remains, err error) {
	if err := l.recall(); err != nil {
		return nothing, err
	}
	var signed *Checkpoint
	var sealed int
	var behind time.Time
	err = postgres.InTx(ctx, l.pool, func(tx pgx.Tx) error {
		left, signed, sealed, behind = someLater, nil, 0, time.Now()
		var alone bool
		// The planner goes by what the tables were when it last looked, which may
		// be empty: it would read all there is, and sort a whole backlog for each
		// part of it. There is an index for everything here.
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)
			FROM set_config('enable_sort', 'off', true) a, set_config('enable_seqscan', 'off', true) b`, sealLock).Scan(&alone); err != nil || !alone {
			return err // another server is at it; look again soon
		}
		h, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		f, root, err := l.check(ctx, tx, h)
		if err != nil {
			return err
		}
		var entries []*row
		if entries, left, err = unsealed(ctx, tx, h); err != nil {
			return err
		}
		if left == nothing {
			behind = time.Time{}
		}
		if sealed = len(entries); sealed > 0 {
			if root, err = appendLeaves(ctx, tx, f, h.size, entries); err != nil {
				return err
			}
		}
		known := l.known()
		if sealed == 0 && (known != nil && known.Size >= h.size || h.size == 0) {
			return nil
		}
		// Without anything new too, a checkpoint follows what another server
		// has sealed, so that every server's file tells of it.
		c, err := l.key.sign(h.size+int64(sealed), root)
		if err != nil {
			return err
		}
		signed = &c
		if sealed == 0 {
			return nil
		}
		cluster := h.cluster
		if h.renumbered && left == someMore {
			cluster = 0 // until all from before are sealed
		}
		_, err = tx.Exec(ctx, `UPDATE audit_seal SET size = $1, cluster = $2, checkpoint = $3`, c.Size, cluster, c.Note)
		return err
	})
	if err != nil {
		return nothing, fmt.Errorf("seal the audit log: %w", err)
	}
	l.noteSealed(sealed, behind, signed)
	l.handOut(ctx)
	return left, nil
}

// unsealed returns entries that have no place in the log yet, in order, as far
// as no transaction can still put one before them. It takes those of one
// transaction together.
func unsealed(ctx context.Context, tx pgx.Tx, h head) (entries []*row, left remains, err error) {
	// One statement has one snapshot: the horizon is that of the rows it sees.
	const beforeNow = `e.txid < pg_snapshot_xmax(pg_current_snapshot())`
	where, order, args := `e.txid > $1 AND `+beforeNow, ``, []any{h.last}
	if h.renumbered {
		// What was written before the restore comes first. The order of numbers
		// then holds for all that follows.
		where, order, args = `NOT EXISTS (SELECT FROM audit_leaves l WHERE l.entry_id = e.id)`, beforeNow+`, `, nil
	}
	rows, err := tx.Query(ctx, `SELECT e.txid >= pg_snapshot_xmin(pg_current_snapshot()) AND `+beforeNow+`, `+rowColumns+` FROM (
			SELECT * FROM audit_entries e WHERE `+where+`
			ORDER BY `+order+`e.txid FETCH FIRST `+strconv.Itoa(maxSeal)+` ROWS WITH TIES
		) e ORDER BY `+order+`e.txid, e.id`, args...)
	if err != nil {
		return nil, nothing, fmt.Errorf("read unsealed entries: %w", err)
	}
	defer rows.Close()
	left = nothing
	for rows.Next() {
		var unsettled bool
		r, err := scanRow(rows, &unsettled)
		if err != nil {
			return nil, nothing, fmt.Errorf("read unsealed entries: %w", err)
		}
		if unsettled {
			left = someLater
			break
		}
		entries = append(entries, r)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, nothing, fmt.Errorf("read unsealed entries: %w", err)
	}
	if left == nothing && rows.CommandTag().RowsAffected() >= maxSeal {
		left = someMore
	}
	return entries, left, nil
}

// appendLeaves adds the entries to a tree of that size and returns its root.
func appendLeaves(ctx context.Context, tx pgx.Tx, f *frontier, size int64, entries []*row) (root tlog.Hash, err error) {
	leaves := make([][]any, len(entries))
	var leaf []byte
	for i, r := range entries {
		leaf = appendLeaf(leaf[:0], r)
		hashes, err := f.add(size+int64(i), tlog.RecordHash(leaf))
		if err != nil {
			return root, err
		}
		leaves[i] = []any{size + int64(i), r.ID, joined(hashes)}
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"audit_leaves"}, []string{"seq", "entry_id", "hashes"}, pgx.CopyFromRows(leaves))
	if err != nil {
		return root, fmt.Errorf("store leaves: %w", err)
	}
	return tlog.TreeHash(size+int64(len(entries)), f)
}

// check compares the database with what this server knows of the log. It
// returns the tree's frontier and root, or an inconsistency.
func (l *Log) check(ctx context.Context, tx pgx.Tx, h head) (*frontier, tlog.Hash, error) {
	var none tlog.Hash
	if h.leaves != h.size {
		return nil, none, inconsistent("the database has %d leaves, but %d are sealed", h.leaves, h.size)
	}
	stored := storedTree{ctx, tx}
	f, err := stored.frontier(h.size)
	if err != nil {
		return nil, none, err
	}
	root, err := tlog.TreeHash(h.size, f)
	if err != nil {
		return nil, none, fmt.Errorf("hash the tree: %w", err)
	}
	switch known := l.known(); {
	case known == nil || known.Size == 0:
	case known.Size > h.size:
		return nil, none, inconsistent("the log had %d entries, but the database has %d", known.Size, h.size)
	case known.Size == h.size:
		if known.Root != root {
			return nil, none, inconsistent("the root of %d entries is %s, but was %s", h.size, root, known.Root)
		}
	default:
		proof, err := tlog.ProveTree(h.size, known.Size, stored)
		if err != nil {
			return nil, none, fmt.Errorf("compare with checkpoint %d: %w", known.Size, err)
		}
		if tlog.CheckTree(proof, h.size, root, known.Size, known.Root) != nil {
			return nil, none, inconsistent("the log of %d entries does not begin with those of checkpoint %d", h.size, known.Size)
		}
	}
	return f, root, nil
}

// recall finds out at first what this server has signed before.
func (l *Log) recall() error {
	if l.known() != nil || l.file.path == "" {
		return nil
	}
	c, err := l.file.newest(l.verifier())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.anchor = &c
	l.file.size = c.Size
	l.numbers.fileSize.Store(c.Size)
	return nil
}

// known returns what this server knows the log to be, or nil.
func (l *Log) known() *Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.anchor
}

func (l *Log) noteSealed(sealed int, behind time.Time, signed *Checkpoint) {
	l.numbers.sealed.Add(int64(sealed))
	l.mu.Lock()
	defer l.mu.Unlock()
	if signed != nil {
		l.anchor = signed
		l.state.size = signed.Size
	}
	if sealed > 0 {
		l.state.sealedAt = time.Now()
	}
	switch {
	case behind.IsZero():
		l.state.behindSince = time.Time{}
	case sealed > 0 || l.state.behindSince.IsZero():
		l.state.behindSince = behind
	}
}

// handOut gives the newest checkpoint to the file and the witness. Neither
// holds up the log.
func (l *Log) handOut(ctx context.Context) {
	c := l.known()
	if c == nil || c.Size == 0 {
		return
	}
	if l.file.path != "" {
		switch err := l.file.append(*c); {
		case err == nil:
			l.numbers.fileSize.Store(c.Size)
		default:
			l.numbers.fileFailures.Add(1)
			l.log.ErrorContext(ctx, "a checkpoint of the audit log was not written; will try again", "error", err)
		}
	}
	if l.witness.url != "" && l.numbers.postedSize.Load() < c.Size {
		select {
		case <-l.offers: // a newer one takes its place
		default:
		}
		l.offers <- *c
	}
}
