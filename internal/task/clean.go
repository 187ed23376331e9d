package task

import (
	"context"
	"errors"
	"time"
)

// cleanInterval is how often it is looked for what nobody needs any more.
const cleanInterval = 10 * time.Minute

// Clean removes what nobody needs any more, until ctx ends: tasks that ended
// longer ago than they are to be kept, and the contents of artifacts that are
// gone. Faults are logged and tried again.
func (s *Service) Clean(ctx context.Context) error {
	again := time.NewTicker(cleanInterval)
	defer again.Stop()
	for first := true; ; first = false {
		if err := errors.Join(s.retain(ctx, first), s.collect(ctx)); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cleaning interrupted", "error", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}
