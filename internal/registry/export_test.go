package registry

import "time"

// SetNow replaces the registry's clock.
func (r *Registry) SetNow(now func() time.Time) { r.now = now }

// SetPatience replaces how long the registry waits for a query.
func (r *Registry) SetPatience(d time.Duration) { r.patience = d }

// MaxStored is how many agents the API may define.
const MaxStored = maxStored
