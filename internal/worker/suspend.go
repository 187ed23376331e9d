package worker

import (
	"maps"
	"slices"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// maxState is the most, in bytes, that an attempt may leave to go on from.
const maxState = 16 << 10

// usualPatience is how long an agent that does nothing but wait for people keeps
// its slot: stopping it and going on later costs more than a prompt answer.
const usualPatience = 30 * time.Second

// hold keeps the slot of an attempt that waits for people, for a while. All of it
// is guarded by sink.asks.
type hold struct {
	patience time.Duration
	suspend  func() // ends the attempt so that it goes on later
	// open are the questions that are known to be asked, and of which the agent
	// has not heard the outcome.
	open  map[string]struct{}
	state func() string // nil: the attempt cannot go on later
	timer *time.Timer   // nil: no question was open yet
}

// Resumable implements executor.Sink.
func (s *sink) Resumable(state func() string) {
	s.asks.Lock()
	defer s.asks.Unlock()
	s.state = state
}

// waits says that the agent waits for the outcome of a question.
func (s *sink) waits(id string) {
	s.asks.Lock()
	defer s.asks.Unlock()
	if s.open == nil {
		s.open = map[string]struct{}{}
	}
	s.open[id] = struct{}{}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.patience, s.tire)
	}
	s.timer.Reset(s.patience)
}

// hears says that the agent hears the outcome. s.asks is held.
func (s *sink) hears(id string) {
	if delete(s.open, id); len(s.open) == 0 && s.timer != nil {
		s.timer.Stop()
	}
}

// busy says that the agent does something besides waiting, if it waits.
func (s *sink) busy() {
	s.asks.Lock()
	defer s.asks.Unlock()
	if len(s.open) > 0 {
		s.timer.Reset(s.patience)
	}
}

// tire suspends the attempt if the agent did nothing but wait for long enough, and
// looks again later if that cannot be now.
func (s *sink) tire() {
	s.asks.Lock()
	defer s.asks.Unlock()
	switch {
	case len(s.open) == 0 || s.heard.Err() != nil:
	case s.onlyWaits() && s.left() != nil:
		s.suspend()
	default:
		s.timer.Reset(s.patience)
	}
}

// onlyWaits reports whether nothing else is asked than what the agent is known to
// wait for: it is being asked, or people are asked about a budget, and the agent is
// held in the middle of its work. s.asks is held.
func (s *sink) onlyWaits() bool { return s.asking == len(s.open) }

// left is what the attempt could go on from, or nil. s.asks is held.
func (s *sink) left() *api.Suspension {
	if len(s.open) == 0 || s.state == nil {
		return nil
	}
	state := s.state()
	if state == "" || len(state) > maxState {
		return nil
	}
	return &api.Suspension{State: state, Questions: slices.Sorted(maps.Keys(s.open))}
}

// stop returns why an attempt ends whose worker is to stop: one that waits for
// people can go on later.
func (s *sink) stop() error {
	s.asks.Lock()
	defer s.asks.Unlock()
	if s.onlyWaits() && s.left() != nil {
		return executor.ErrSuspended
	}
	return errStopped
}

// suspension is what a suspended attempt leaves. Its executor has returned.
func (s *sink) suspension() *api.Suspension {
	s.asks.Lock()
	defer s.asks.Unlock()
	return s.left()
}

// close ends what the hold has going.
func (s *sink) close() {
	s.asks.Lock()
	defer s.asks.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}
