package executor

import "time"

// Bound narrows what an agent may do.
func (a *ACP) Bound(message, messages int, begin, silence time.Duration) {
	a.limits.message, a.limits.messages, a.limits.begin, a.limits.silence = message, messages, begin, silence
}

// Inner is the executor that runs an agent, whether in a checkout or not.
func Inner(e Executor) Executor {
	if in, ok := e.(*inCheckout); ok {
		return in.Executor
	}
	return e
}

// Measure sets how often the disk is looked at.
func (s *Set) Measure(every time.Duration) { s.checkouts.measure = every }

// Silence sets how long an agent may say nothing.
func (e *HTTP) Silence(d time.Duration) { e.silence = d }
