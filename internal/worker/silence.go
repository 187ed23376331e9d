package worker

import (
	"sync"
	"time"
)

// silence ends an attempt whose agent says nothing for too long. Nil never does.
type silence struct {
	length time.Duration
	timer  *time.Timer

	mu        sync.Mutex
	suspended int
}

// newSilence returns nil for no seconds.
func newSilence(seconds int, end func()) *silence {
	if seconds == 0 {
		return nil
	}
	length := time.Duration(seconds) * time.Second
	return &silence{length: length, timer: time.AfterFunc(length, end)}
}

// broken is called when the agent says something.
func (s *silence) broken() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspended == 0 {
		s.timer.Reset(s.length)
	}
}

// suspend is called while the agent itself waits, until resume is called.
func (s *silence) suspend() (resume func()) {
	if s == nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended++
	s.timer.Stop()
	return func() {
		s.mu.Lock()
		s.suspended--
		s.mu.Unlock()
		s.broken()
	}
}

func (s *silence) stop() {
	if s != nil {
		s.timer.Stop()
	}
}
