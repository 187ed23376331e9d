package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"
)

// storedTree reads the hashes that stand in audit_leaves.
type storedTree struct {
	ctx context.Context
	tx  pgx.Tx
}

// ReadHashes implements tlog.HashReader. The hash of a subtree stands with the
// leaf that completed it.
func (t storedTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	seqs, offsets := make([]int64, len(indexes)), make([]int, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		seqs[i], offsets[i] = (n+1)<<level-1, level*tlog.HashSize
	}
	rows, err := t.tx.Query(t.ctx, `SELECT l.hashes FROM unnest($1::bigint[]) WITH ORDINALITY AS w (seq, place)
		LEFT JOIN audit_leaves l USING (seq) ORDER BY w.place`, seqs)
	if err != nil {
		return nil, fmt.Errorf("read hashes: %w", err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read hashes: %w", err)
	}
	hashes := make([]tlog.Hash, len(indexes))
	for i, b := range stored {
		if len(b) < offsets[i]+tlog.HashSize {
			return nil, inconsistent("the hashes of leaf %d are missing", seqs[i])
		}
		copy(hashes[i][:], b[offsets[i]:])
	}
	return hashes, nil
}

// frontier returns that of the tree of the given size.
func (t storedTree) frontier(size int64) (*frontier, error) {
	var f frontier
	var indexes []int64
	var levels []int
	for level := 0; size>>level > 0; level++ {
		if size>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, size>>level-1))
			levels = append(levels, level)
		}
	}
	if len(indexes) == 0 {
		return &f, nil
	}
	hashes, err := t.ReadHashes(indexes)
	for i, h := range hashes {
		f[levels[i]] = h
	}
	return &f, err
}

// inconsistency says how the log contradicts itself or a checkpoint.
type inconsistency string

func (e inconsistency) Error() string { return string(e) }

func inconsistent(format string, args ...any) error {
	return inconsistency(fmt.Sprintf(format, args...))
}
