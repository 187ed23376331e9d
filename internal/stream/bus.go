// Package stream tells the parts of one or many servers that something
// happened, and fans a log out to all who follow it.
//
// It keeps no state of its own worth saving: a signal says "look again", the
// truth is in the log it points to. A signal that is lost costs time, never
// data.
package stream

import (
	"slices"
	"sync"
)

// Topic is what a Signal is about.
type Topic string

// The topics.
const (
	// TaskChanged: events were appended to the task with the signal's ID.
	TaskChanged Topic = "task"
	// WorkReady: a task can be claimed; with an ID, only by the worker of that name,
	// or it is to hear of something else.
	WorkReady Topic = "work"
	// WorkResumable: a task can be claimed that only the worker which left it is
	// given. No ID.
	WorkResumable Topic = "resumable"
	// LeaseLost: the worker with the signal's ID holds a lease less.
	LeaseLost Topic = "lease"
	// TasksParked: limits hold tasks back, which want to be looked at when others
	// end. No ID.
	TasksParked Topic = "parked"
	// WorkersChanged: workers have come or gone, or can run something else. No ID.
	WorkersChanged Topic = "workers"
	// WebhooksChanged: webhooks were made or changed, so that there may be somebody
	// to tell now. No ID.
	WebhooksChanged Topic = "webhooks"
	// AccessChanged: what callers may do has changed: a session, a user, a
	// device, a role binding, a key or a policy. The ID is a session's, or empty
	// for any of it.
	AccessChanged Topic = "access"
	// Audited: an entry of the audit log was committed here, which no other
	// signal tells of. No ID.
	Audited Topic = "audited"
	// Resync: signals may have been missed; look at everything again. No ID.
	Resync Topic = "resync"
)

// Signal says that something may have changed.
type Signal struct {
	Topic Topic
	ID    string
}

// Memory is a bus within one process. The zero value is ready for use.
type Memory struct {
	mu          sync.RWMutex
	subscribers []*func(Signal)
}

// Publish hands the signals to every subscriber before it returns.
func (m *Memory) Publish(signals ...Signal) { m.Deliver(signals...) }

// Deliver is Publish within this process.
func (m *Memory) Deliver(signals ...Signal) {
	m.mu.RLock()
	subscribers := m.subscribers
	m.mu.RUnlock()
	for _, s := range signals {
		for _, f := range subscribers {
			(*f)(s)
		}
	}
}

// Subscribe calls f for each signal from now on, until cancel is called. f is
// called from many goroutines and must not block.
func (m *Memory) Subscribe(f func(Signal)) (cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &f
	m.subscribers = append(slices.Clip(m.subscribers), p) // Publish reads the old slice without the lock
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.subscribers = slices.DeleteFunc(slices.Clone(m.subscribers), func(q *func(Signal)) bool { return q == p })
	}
}
