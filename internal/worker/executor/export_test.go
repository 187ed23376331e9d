package executor

import "time"

// Bound narrows what an agent may do.
func (a *ACP) Bound(message, messages int, begin, silence time.Duration) {
	a.limits.message, a.limits.messages, a.limits.begin, a.limits.silence = message, messages, begin, silence
}
