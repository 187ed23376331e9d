package task

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// collectBatch is how many contents one server removes at a time, and
	// collectAgain after how long another may try those that it did not.
	collectBatch = 20
	collectAgain = 10 * time.Minute
)

// content is one that is to be removed.
type content struct {
	ID    uuid.UUID
	Store string
}

// collect removes the contents that nobody needs any more: of artifacts that
// were replaced or deleted, and of uploads that broke off.
func (s *Service) collect(ctx context.Context) error {
	for {
		var batch []content
		err := postgres.Retry(ctx, func() error {
			// A store can be slow: no transaction waits for it.
			rows, err := s.pool.Query(ctx, `UPDATE artifact_contents SET collect_after = now() + $2::interval WHERE id IN (
				SELECT id FROM artifact_contents WHERE collect_after <= now() ORDER BY collect_after LIMIT $1 FOR UPDATE SKIP LOCKED
			) RETURNING id, store`, collectBatch, collectAgain)
			if err != nil {
				return err
			}
			batch, err = pgx.CollectRows(rows, pgx.RowToStructByName[content])
			return err
		})
		if err != nil {
			return fmt.Errorf("look for contents to collect: %w", err)
		}
		for _, c := range batch {
			if err := s.remove(ctx, c); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "the content of an artifact is left for later", "content", c.ID, "store", c.Store, "error", err)
			}
		}
		if len(batch) < collectBatch {
			return nil
		}
	}
}

func (s *Service) remove(ctx context.Context, c content) error {
	store, err := s.storeNamed(c.Store)
	if err != nil {
		return err
	}
	if err := store.Remove(ctx, c.ID); err != nil {
		return err
	}
	_, err = s.pool.Exec(ctx, `DELETE FROM artifact_contents WHERE id = $1`, c.ID)
	return postgres.Fault(err)
}
