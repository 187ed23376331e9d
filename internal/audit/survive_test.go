package audit_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestServersSealOneLogTogether(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), newKey(t)
	file := filepath.Join(t.TempDir(), "checkpoints")
	a, b := openRig(t, url, key, file), openRig(t, url, key, file)
	b.file = filepath.Join(t.TempDir(), "others") // like a second machine
	b.restart(t)
	const writers, each = 6, 40
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for i := range each {
				err := postgres.InTx(t.Context(), a.pool, func(tx pgx.Tx) error {
					if err := audit.Append(t.Context(), tx, entry(w*each+i), entry(i)); err != nil {
						return err
					}
					if i%10 == 3 {
						return fault.New(fault.Conflict, "rolled back")
					}
					return nil
				})
				if err != nil && fault.CodeOf(err) != fault.Conflict {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	var sealers sync.WaitGroup
	for _, r := range []*rig{a, b} {
		sealers.Go(func() {
			for {
				if err := r.Seal(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if report := r.verify(t); !report.OK() {
					t.Errorf("a false alarm: %+v", report.Findings)
				}
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}
	work.Wait()
	close(written)
	sealers.Wait()
	const total = writers * (each - each/10) * 2
	a.seal(t, total)
	b.seal(t, total)
	a.clean(t, total)
	b.clean(t, total)
	if a.Stats().Tampered || b.Stats().Tampered {
		t.Error("a server believes that the log was tampered with")
	}
}

func TestLateCommitIsNotPassedBy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	early, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Rollback(context.WithoutCancel(t.Context()))
	if err := audit.Append(t.Context(), early, entry(1)); err != nil {
		t.Fatal(err)
	}
	r.append(t, entry(2))
	if err := r.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := r.clean(t, 0); report.Unsealed != 1 {
		t.Errorf("%d entries are unsealed", report.Unsealed)
	}
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.seal(t, 2)
	r.clean(t, 2)
}

func TestKilledSealerLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, entries(5)...)
	r.seal(t, 5)
	r.append(t, entries(30)...)

	// Its leaves wait for a lock, and there it dies.
	blocker, err := r.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Rollback(context.WithoutCancel(t.Context()))
	if _, err := blocker.Exec(t.Context(), `LOCK TABLE audit_leaves IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	sealed := make(chan error, 1)
	go func() { sealed <- r.Seal(t.Context()) }()
	killed := false
	for !killed {
		select {
		case err := <-sealed: // it found nothing that was settled yet
			if err != nil {
				t.Fatal(err)
			}
			go func() { sealed <- r.Seal(t.Context()) }()
		case <-time.After(5 * time.Millisecond):
		}
		err := r.owner.QueryRow(t.Context(), `SELECT coalesce(bool_or(pg_terminate_backend(l.pid)), false) FROM pg_locks l
			WHERE l.relation = 'audit_leaves'::regclass AND NOT l.granted
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&killed)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sealed; err == nil {
		t.Error("a killed sealer reports success")
	}
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.clean(t, 5)
	r.seal(t, 35)
	r.clean(t, 35)
}

func TestCheckpointThatDidNotReachTheFileFollows(t *testing.T) {
	t.Parallel()
	r := sealedRig(t, 30)
	kept, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"the last ones are missing": string(kept[:len(kept)/2]),
		"the last was cut short":    string(kept[:len(kept)-20]),
		"all are missing":           "",
	} {
		if err := os.WriteFile(r.file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r.restart(t)
		r.SealAll(t.Context())
		if err := r.Tampered(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if report := r.clean(t, 30); report.Covered != 30 {
			t.Errorf("%s: the file covers %d", name, report.Covered)
		}
	}
}

func TestSealingGoesOnWithoutItsFile(t *testing.T) {
	t.Parallel()
	r := sealedRig(t, 10)
	aside := r.file + ".1"
	next := func(size int64) {
		t.Helper()
		r.append(t, entries(10)...)
		r.seal(t, size)
	}
	if err := os.Rename(r.file, aside); err != nil {
		t.Fatal(err)
	}
	next(20)
	if info, err := os.Stat(r.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("after a move the file is %v, %v", info, err)
	}
	if report := r.clean(t, 20); report.Covered != 20 {
		t.Errorf("the new file covers %d", report.Covered)
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", r.file); err != nil {
		t.Fatal(err)
	}
	next(30)
	if s := r.Stats(); s.FileFailures == 0 || s.FileSize != 20 || s.Size != 30 || s.Tampered {
		t.Errorf("with a full disk the numbers are %+v", s)
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.SealAll(t.Context()) // tries again, though nothing is new
	if report := r.clean(t, 30); report.Covered != 30 || r.Stats().FileSize != 30 {
		t.Errorf("once there is room the file covers %d", report.Covered)
	}
}

func TestRestoreFromAnOldBackupIsNoticed(t *testing.T) {
	t.Parallel()
	r := sealedRig(t, 20)
	var old string
	if err := r.owner.QueryRow(t.Context(), `SELECT checkpoint FROM audit_seal`).Scan(&old); err != nil {
		t.Fatal(err)
	}
	r.append(t, entries(10)...)
	r.seal(t, 30)
	r.asOwner(t, `WITH e AS (DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_leaves WHERE seq >= 20)),
		l AS (DELETE FROM audit_leaves WHERE seq >= 20) UPDATE audit_seal SET size = 20, checkpoint = $1`, old)

	r.restart(t)
	r.append(t, entry(1)) // everything else goes on
	r.SealAll(t.Context())
	if err := r.Tampered(); err == nil || !strings.Contains(err.Error(), "had 30 entries, but the database has 20") || !r.Stats().Tampered {
		t.Errorf("Tampered = %v", err)
	}
	if !strings.Contains(r.said.String(), "level=ERROR") {
		t.Errorf("it is not said loudly: %s", r.said)
	}
	if report := r.verify(t); report.OK() || report.Size != 20 {
		t.Errorf("the report says %+v", report)
	}

	// The operator keeps the evidence, and goes on from what there is.
	if err := os.Rename(r.file, r.file+".evidence"); err != nil {
		t.Fatal(err)
	}
	r.restart(t)
	r.seal(t, 21)
	r.clean(t, 21)
	if err := r.Tampered(); err != nil {
		t.Error(err)
	}
}

func TestSealerDoesNotSignWhatWasChanged(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"a hash":             `UPDATE audit_leaves SET hashes = sha256('x') WHERE seq = 12`,
		"a missing leaf":     `DELETE FROM audit_leaves WHERE seq = 12`,
		"an additional leaf": `INSERT INTO audit_leaves VALUES (13, gen_random_uuid(), sha256('x'))`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.append(t, entries(13)...)
			r.seal(t, 13)
			r.asOwner(t, sql)
			r.append(t, entry(1))
			r.SealAll(t.Context())
			if r.Tampered() == nil {
				t.Error("the sealer did not notice")
			}
			c, err := r.Checkpoint(t.Context())
			if err != nil || c.Size != 13 {
				t.Errorf("the newest checkpoint is %+v, %v", c, err)
			}
		})
	}
}

// TestLogGoesOnInAnotherCluster copies the rows as a restored dump has them,
// and gives them transactions of another cluster's numbering.
func TestLogGoesOnInAnotherCluster(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ txid string }{
		"where transactions have lower numbers":  {"(txid::text::bigint + 1000000000)::text::xid8"},
		"where transactions have higher numbers": {"'100'::xid8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := newRig(t)
			// As if the dumped cluster numbered them so.
			number := func() {
				from.asOwner(t, `UPDATE audit_entries SET txid = `+tc.txid+` WHERE NOT EXISTS (SELECT FROM audit_leaves WHERE entry_id = id)`)
			}
			from.append(t, entries(20)...)
			number()
			from.seal(t, 20)
			from.append(t, entries(5)...) // not sealed when the dump is made
			number()
			from.asOwner(t, `UPDATE audit_seal SET cluster = 1`)

			to := openRig(t, pgtest.URL(t), from.key, from.file)
			copyLog(t, from, to)
			if report := to.clean(t, 20); report.Unsealed != 5 {
				t.Errorf("%d entries are unsealed", report.Unsealed)
			}
			to.append(t, entries(3)...)
			to.clean(t, 20)
			to.seal(t, 28)
			to.append(t, entries(4)...)
			to.seal(t, 32)
			if report := to.clean(t, 32); report.Unsealed != 0 {
				t.Errorf("%d entries are unsealed", report.Unsealed)
			}
			if err := to.Tampered(); err != nil {
				t.Error(err)
			}
		})
	}
}

func copyLog(t *testing.T, from, to *rig) {
	t.Helper()
	to.asOwner(t, `DELETE FROM audit_seal`)
	for _, table := range []string{"audit_entries", "audit_leaves", "audit_seal"} {
		rows, err := from.owner.Query(t.Context(), `SELECT t::text FROM `+table+` t`)
		if err != nil {
			t.Fatal(err)
		}
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		to.asOwner(t, `INSERT INTO `+table+` SELECT (r::`+table+`).* FROM unnest($1::text[]) r`, texts)
	}
}

func TestRetentionLeavesTheLogVerifiable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := time.Date(2024, 5, 10, 12, 0, 0, 0, time.UTC)
	for _, month := range []string{"2024-05-01", "2024-06-01"} {
		if _, err := r.pool.Exec(t.Context(), `SELECT add_audit_partition($1)`, month); err != nil {
			t.Fatal(err)
		}
	}
	aged := func(n int, at time.Time) []audit.Entry {
		all := entries(n)
		for i := range all {
			all[i].CreatedAt = at
			copy(all[i].ID[:6], idAt(at))
		}
		return all
	}
	first := aged(12, old)
	r.append(t, first...)
	r.append(t, entries(5)...)
	r.append(t, aged(8, old.AddDate(0, 1, 0))...)
	if _, err := r.DropBefore(t.Context(), caller(1), old.AddDate(0, 3, 0)); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("unsealed entries were dropped: %v", err)
	}
	r.seal(t, 25)

	// A month that was changed is evidence.
	r.asOwner(t, `UPDATE audit_entries SET reason = 'x' WHERE id = $1`, first[3].ID)
	if _, err := r.DropBefore(t.Context(), caller(1), old.AddDate(0, 1, 0)); fault.CodeOf(err) != fault.Conflict || !strings.Contains(err.Error(), first[3].ID.String()) {
		t.Errorf("a changed entry was dropped: %v", err)
	}
	r.asOwner(t, `UPDATE audit_entries SET reason = $2 WHERE id = $1`, first[3].ID, first[3].Reason)

	dropped, err := r.DropBefore(t.Context(), caller(1), old.AddDate(0, 1, 0))
	if err != nil || len(dropped) != 1 || dropped[0].Month != "2024-05" || dropped[0].Entries != 12 {
		t.Fatalf("dropped %+v, %v", dropped, err)
	}
	r.clean(t, 25) // though what says so is not sealed yet
	r.seal(t, 26)
	report := r.clean(t, 26)
	if len(report.Dropped) != 1 || report.Dropped[0] != dropped[0] {
		t.Errorf("the report says %+v; want %+v", report.Dropped, dropped)
	}
	if got, _, err := r.Search(t.Context(), audit.Query{Action: audit.DropAction}, uuid.Max, 10); err != nil || len(got) != 1 || got[0].UserID != caller(1).UserID {
		t.Errorf("the log says %+v, %v", got, err)
	}
	if _, err := r.DropBefore(t.Context(), caller(2), time.Now()); err != nil {
		t.Fatal(err)
	}
	r.seal(t, 27)
	if report := r.clean(t, 27); len(report.Dropped) != 2 {
		t.Errorf("the report says %+v", report.Dropped)
	}

	// What was deleted otherwise is not excused by it.
	r.asOwner(t, `DELETE FROM audit_entries WHERE id = (SELECT entry_id FROM audit_leaves WHERE seq = 13)`)
	if report := r.verify(t); report.OK() {
		t.Error("a deletion hides behind retention")
	}
	r.asOwner(t, `UPDATE audit_leaves SET entry_id = $1 WHERE seq = 13`, withLast(first[0].ID))
	if report := r.verify(t); report.OK() {
		t.Error("a deletion hides among what was dropped")
	}
}

func TestServersThatDropTheSameMonthDropItOnce(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), newKey(t)
	file := filepath.Join(t.TempDir(), "checkpoints")
	a, b := openRig(t, url, key, file), openRig(t, url, key, file)
	old := time.Date(2024, 5, 10, 12, 0, 0, 0, time.UTC)
	if _, err := a.pool.Exec(t.Context(), `SELECT add_audit_partition($1)`, old); err != nil {
		t.Fatal(err)
	}
	e := entry(1)
	e.CreatedAt = old
	copy(e.ID[:6], idAt(old))
	a.append(t, e)
	a.seal(t, 1)

	var servers sync.WaitGroup
	dropped := make(chan audit.Dropped, 4)
	err := pgx.BeginFunc(t.Context(), a.owner, func(tx pgx.Tx) error {
		// Until both have seen the month and wait for their turn.
		if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, audit.SealLock); err != nil {
			return err
		}
		for n, r := range []*rig{a, b} {
			servers.Go(func() {
				all, err := r.DropBefore(t.Context(), caller(n), time.Now())
				if err != nil {
					t.Error(err)
				}
				for _, d := range all {
					dropped <- d
				}
			})
		}
		for waiting := 0; waiting < 2; {
			err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks
				WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting)
			if err != nil {
				return err
			}
		}
		return nil
	})
	servers.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(dropped); n != 1 {
		t.Errorf("the month was dropped %d times", n)
	}
	a.seal(t, 2)
	a.clean(t, 2)
}

func idAt(at time.Time) []byte {
	ms := at.UnixMilli()
	return []byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)}
}

func withLast(id uuid.UUID) uuid.UUID {
	id[15]++
	return id
}
