package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// dropAction is that of the entry that says that a month was dropped.
	dropAction = "audit.drop"
	// monthLayout is how a month is named.
	monthLayout = "2006-01"
)

// DropBefore drops the entries of all whole months that ended before a time,
// which must lie 30 days back at least. Their leaves stay, so that the log is
// verifiable as before, and for each month an entry in the caller's name says
// how many are gone. It does not decide whether the caller may.
//
// A month with an entry that is not as it was sealed, or not sealed, is
// refused with the fault Conflict: dropping it would cover that up.
func (l *Log) DropBefore(ctx context.Context, c policy.Caller, before time.Time) ([]Dropped, error) {
	months, err := l.droppable(ctx, before)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list partitions of the audit log: %w", err))
	}
	var all []Dropped
	for _, month := range months {
		var d Dropped
		err := postgres.InTx(ctx, l.pool, func(tx pgx.Tx) (err error) {
			d, err = dropMonth(ctx, tx, c, month)
			return err
		})
		if err != nil {
			return all, Fault(fmt.Errorf("drop %s of the audit log: %w", month.Format(monthLayout), err))
		}
		if d.Month == "" {
			continue
		}
		all = append(all, d)
		l.Poke()
	}
	return all, nil
}

// droppable lists the months with a partition that ended before a time.
func (l *Log) droppable(ctx context.Context, before time.Time) ([]time.Time, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT month FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
			to_date(substring(c.relname FROM '^audit_entries_([0-9]{6})$'), 'YYYYMM') month
		WHERE i.inhparent = 'audit_entries'::regclass AND month IS NOT NULL
			AND (month + interval '1 month') AT TIME ZONE 'UTC' <= least($1, now() - interval '30 days')
		ORDER BY month`, before)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[time.Time])
}

// dropMonth returns nothing if another server was faster.
func dropMonth(ctx context.Context, tx pgx.Tx, c policy.Caller, month time.Time) (Dropped, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, sealLock); err != nil {
		return Dropped{}, err
	}
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, partitionOf(month)).Scan(&there); err != nil || !there {
		return Dropped{}, err
	}
	g := months{}.of(month.Format(monthLayout))
	if err := checkMonth(ctx, tx, month, g); err != nil {
		return Dropped{}, err
	}
	g.Digest = g.sum()
	details, err := json.Marshal(g.Dropped)
	if err != nil {
		return Dropped{}, err
	}
	if _, err := tx.Exec(ctx, `SELECT drop_audit_partition($1)`, month); err != nil {
		return Dropped{}, err
	}
	e := NewEntry(c, dropAction, "audit", g.Month, policy.Decision{Allowed: true, Reason: "retention"})
	e.Details = details
	g.By, g.EntryID = c.UserID, e.ID
	return g.Dropped, Append(ctx, tx, e)
}

// checkMonth compares the entries of a month with their leaves, and counts
// them.
func checkMonth(ctx context.Context, tx pgx.Tx, month time.Time, g *monthOfGaps) error {
	var entries int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM audit_entries WHERE tableoid = $1::regclass`, partitionOf(month)).Scan(&entries); err != nil {
		return fmt.Errorf("count entries: %w", err)
	}
	from, to := postgres.FirstID(month), postgres.FirstID(month.AddDate(0, 1, 0))
	var leaf []byte
	for seq := int64(-1); ; {
		rows, err := tx.Query(ctx, `SELECT l.seq, l.entry_id, l.hashes, `+rowColumns+`
			FROM audit_leaves l LEFT JOIN audit_entries e ON e.id = l.entry_id
			WHERE l.entry_id >= $1 AND l.entry_id < $2 AND l.seq > $3 ORDER BY l.seq LIMIT $4`, from, to, seq, leafBatch)
		if err != nil {
			return fmt.Errorf("read leaves: %w", err)
		}
		n := 0
		for ; rows.Next(); n++ {
			var id uuid.UUID
			var hashes []byte
			e, err := scanRow(rows, &seq, &id, &hashes)
			if err != nil {
				rows.Close()
				return fmt.Errorf("read leaves: %w", err)
			}
			if e != nil {
				leaf = appendLeaf(leaf[:0], e)
			}
			if h := tlog.RecordHash(leaf); e == nil || !bytes.Equal(h[:], hashes[:tlog.HashSize]) {
				rows.Close()
				return fault.New(fault.Conflict, "entry %s of the audit log is not as it was sealed: verify the log first", id)
			}
			g.count(seq, id)
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("read leaves: %w", err)
		}
		if n < leafBatch {
			break
		}
	}
	if g.Entries != entries {
		return fault.New(fault.Conflict, "of %d entries of the audit log %d are sealed", entries, g.Entries)
	}
	return nil
}

func partitionOf(month time.Time) string { return "audit_entries_" + month.Format("200601") }
