package registry

import (
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// SetNow replaces the registry's clock.
func (r *Registry) SetNow(now func() time.Time) { r.now = now }

// SetPatience replaces how long the registry waits for a query.
func (r *Registry) SetPatience(d time.Duration) { r.patience = d }

// Unified compares texts by line.
var Unified = unified

// MaxStored is how many agents the API may define.
const MaxStored = maxStored

// PoolOf returns the database of a registry.
func PoolOf(r *Registry) *pgxpool.Pool { return r.pool }

// Forget makes the next reader read anew.
func (r *Registry) Forget() { r.forget() }
