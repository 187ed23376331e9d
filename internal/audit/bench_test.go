package audit_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/postgres"
)

// BenchmarkAppend is what entries cost a transaction, beside its own cost,
// which the case of none shows.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{0, 1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			all := entries(n)
			for b.Loop() {
				b.StopTimer()
				for i := range all {
					all[i] = entry(i)
				}
				b.StartTimer()
				err := postgres.InTx(b.Context(), r.pool, func(tx pgx.Tx) error {
					if n == 0 {
						_, err := tx.Exec(b.Context(), `SELECT 1`)
						return err
					}
					return audit.Append(b.Context(), tx, all...)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSeal and BenchmarkVerify tell entries a second.
func BenchmarkSeal(b *testing.B) {
	const size = 20_000
	for b.Loop() {
		b.StopTimer()
		r := filled(b, size)
		b.StartTimer()
		r.seal(b, size)
	}
	b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkVerify(b *testing.B) {
	const size = 100_000
	r := filled(b, size)
	r.seal(b, size)
	for b.Loop() {
		r.clean(b, size)
	}
	b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "entries/s")
}

func filled(b *testing.B, size int) *rig {
	b.Helper()
	r := newRig(b)
	for i := 0; i < size; i += 1000 {
		r.append(b, entries(1000)...)
	}
	if _, err := r.owner.Exec(context.WithoutCancel(b.Context()), `ANALYZE audit_entries`); err != nil {
		b.Fatal(err)
	}
	return r
}
