package task

import (
	"context"
	"time"
)

// cleanInterval is how often it is looked for what nobody needs any more.
const cleanInterval = 10 * time.Minute

// Clean removes what nobody needs any more, until ctx ends: the contents of
// artifacts that are gone. Faults are logged and tried again.
func (s *Service) Clean(ctx context.Context) error {
	again := time.NewTicker(cleanInterval)
	defer again.Stop()
	for {
		if err := s.clean(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cleaning interrupted", "error", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) clean(ctx context.Context) error { return s.collect(ctx) }
