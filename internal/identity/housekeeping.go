package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/stream"
)

const (
	// watchFor is how long after the last question about an open stream the
	// server goes on looking for changes whose signal was lost.
	watchFor     = time.Minute
	noteInterval = time.Minute
	tidyInterval = 10 * time.Minute
	// endedFor is how long sessions and keys are listed after their time.
	endedFor = 30 * 24 * time.Hour
)

// Run does what time asks for until ctx ends: it notes what was used when,
// removes what has expired, changes signing keys, and, while Valid is asked at
// least once a minute, tells this process of changes of access within a second
// even if their signal was lost. Faults of the database are logged and tried
// again.
func (s *Service) Run(ctx context.Context) error {
	watch, note, tidy := time.NewTicker(generationAge), time.NewTicker(noteInterval), time.NewTicker(tidyInterval)
	defer watch.Stop()
	defer note.Stop()
	defer tidy.Stop()
	var known int64
	err := s.keys.rotate(ctx)
	for {
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "housekeeping of identity interrupted", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.C:
			known, err = s.lookForChanges(ctx, known)
		case <-note.C:
			err = s.noteUse(ctx)
		case <-tidy.C:
			err = errors.Join(s.keys.rotate(ctx), s.tidy(ctx))
		}
	}
}

// lookForChanges signals within this process that access has changed since it
// was as known.
func (s *Service) lookForChanges(ctx context.Context, known int64) (int64, error) {
	if s.now().Sub(time.Unix(0, s.watched.Load())) > watchFor {
		return 0, nil
	}
	n, err := s.generation.current(ctx)
	if err != nil {
		return known, err
	}
	if n != known { // also when the watch begins: who has asked meanwhile may not have seen it
		s.bus.Deliver(stream.Signal{Topic: stream.AccessChanged})
	}
	return n, nil
}

// seen collects which sessions were used when, to be written now and then.
type seen struct {
	mu sync.Mutex
	at map[uuid.UUID]time.Time
}

func (n *seen) mark(session uuid.UUID, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[uuid.UUID]time.Time{}
	}
	if _, known := n.at[session]; known || len(n.at) < maxSessions {
		n.at[session] = now
	}
}

func (n *seen) take() (sessions []uuid.UUID, times []time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, at := range n.at {
		sessions, times = append(sessions, id), append(times, at)
	}
	n.at = nil
	return sessions, times
}

// noteUse writes when sessions, and their devices and keys, were last used.
func (s *Service) noteUse(ctx context.Context) error {
	sessions, times := s.seen.take()
	if len(sessions) == 0 {
		return nil
	}
	err := postgres.Retry(ctx, func() error {
		_, err := s.pool.Exec(ctx, `
			WITH used AS (
				UPDATE sessions s SET last_seen_at = greatest(last_seen_at, u.at)
				FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) WHERE s.id = u.id
				RETURNING s.device_id, s.key_id, u.at
			), devices AS (
				UPDATE devices d SET last_seen_at = greatest(last_seen_at, u.at)
				FROM (SELECT device_id, max(at) AS at FROM used GROUP BY device_id) u WHERE d.id = u.device_id
			)
			UPDATE api_keys k SET last_used_at = greatest(last_used_at, u.at)
			FROM (SELECT key_id, max(at) AS at FROM used GROUP BY key_id) u WHERE k.id = u.key_id`, sessions, times)
		return err
	})
	if err != nil {
		return fmt.Errorf("note what was used: %w", err)
	}
	return nil
}

// tidy removes what is of no more use.
func (s *Service) tidy(ctx context.Context) error {
	now := s.now()
	var faults []error
	for _, remove := range []struct {
		sql    string
		before time.Time
	}{
		{`DELETE FROM used_tokens WHERE expires_at <= $1`, now},
		{`DELETE FROM stream_tickets WHERE expires_at <= $1`, now},
		{`DELETE FROM device_challenges WHERE expires_at <= $1`, now},
		{`DELETE FROM enrolment_codes WHERE expires_at <= $1`, now},
		{`DELETE FROM logins WHERE expires_at <= $1`, now},
		{`DELETE FROM refresh_tokens r USING sessions s WHERE s.id = r.session_id AND s.expires_at <= $1`, now},
		{`DELETE FROM sessions WHERE expires_at <= $1`, now.Add(-endedFor)},
		{`DELETE FROM api_keys WHERE expires_at <= $1`, now.Add(-endedFor)},
	} {
		if _, err := s.pool.Exec(ctx, remove.sql, remove.before); err != nil {
			faults = append(faults, postgres.Fault(fmt.Errorf("remove what has expired: %w", err)))
		}
	}
	return errors.Join(faults...)
}
