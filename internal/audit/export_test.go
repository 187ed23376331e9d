package audit

import (
	"context"
	"io"

	"github.com/jackc/pgx/v5"
)

// Seal seals everything that can be sealed now.
func (l *Log) Seal(ctx context.Context) error {
	for {
		left, err := l.seal(ctx)
		if err != nil || left != someMore {
			return err
		}
	}
}

// SealAll is what Run does when it looks.
func (l *Log) SealAll(ctx context.Context) { l.sealAll(ctx) }

// VerifyTx is Verify within a transaction.
func VerifyTx(ctx context.Context, tx pgx.Tx, o VerifyOptions) (*Report, error) {
	var r Report
	known, verifiers, err := r.readOutside(o)
	if err != nil {
		return nil, err
	}
	return &r, r.compare(ctx, tx, known, verifiers)
}

// ReadCheckpoints lists the notes of a checkpoint file.
func ReadCheckpoints(r io.Reader) (notes []string, damaged int, err error) {
	damaged, err = readCheckpoints(r, func(signed string) error {
		notes = append(notes, signed)
		return nil
	})
	return notes, damaged, err
}

const (
	DropAction = dropAction
	FloodLimit = floodLimit
	SealLock   = sealLock
)
