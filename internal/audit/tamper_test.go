package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
)

// mutation changes something that was sealed, by what only the owner of the
// database can do. n is the size of the log.
type mutation struct {
	name string
	do   func(rng *rand.Rand, n int64) (sql string, args []any)
}

// texts are the columns that any text can be put into.
var texts = []string{
	"user_id", "session_id", "device_id", "project_id", "action", "resource_type", "resource_id",
	"layer", "rule", "reason", "request_id", "address",
}

const at = `(SELECT entry_id FROM audit_leaves WHERE seq = $1)`

var mutations = []mutation{
	{"a text is edited", func(rng *rand.Rand, n int64) (string, []any) {
		c := texts[rng.IntN(len(texts))]
		return `UPDATE audit_entries SET ` + c + ` = ` + c + ` || $2 WHERE id = ` + at, []any{rng.Int64N(n), string(rune('!' + rng.IntN(90)))}
	}},
	{"a text is emptied", func(rng *rand.Rand, n int64) (string, []any) {
		c := []string{"user_id", "action", "reason", "rule", "address"}[rng.IntN(5)]
		return `UPDATE audit_entries SET ` + c + ` = '' WHERE id = ` + at, []any{rng.Int64N(n)}
	}},
	{"a result is turned", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET result = CASE result WHEN 'denied' THEN 'allowed' ELSE 'denied' END WHERE id = ` + at, []any{rng.Int64N(n)}
	}},
	{"details are edited", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET details = CASE WHEN details IS NULL THEN '{}'::json END WHERE id = ` + at, []any{rng.Int64N(n)}
	}},
	{"a time is moved", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET created_at = created_at - $2 * interval '1 microsecond' WHERE id = ` + at, []any{rng.Int64N(n), 1 + rng.IntN(1e9)}
	}},
	{"a number is changed", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET policy_version = policy_version + $2 WHERE id = ` + at, []any{rng.Int64N(n), 1 + rng.IntN(5)}
	}},
	{"a transaction is changed", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET txid = (txid::text::bigint - $2)::text::xid8 WHERE id = ` + at, []any{rng.Int64N(n), 1 + rng.IntN(5)}
	}},
	{"an id is changed", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_entries SET id = $2 WHERE id = ` + at, []any{rng.Int64N(n), uuid.Must(uuid.NewV7())}
	}},
	{"an id is changed with its leaf", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (UPDATE audit_entries SET id = $2 WHERE id = ` + at + `)
			UPDATE audit_leaves SET entry_id = $2 WHERE seq = $1`, []any{rng.Int64N(n), uuid.Must(uuid.NewV7())}
	}},
	{"an entry is deleted", func(rng *rand.Rand, n int64) (string, []any) {
		return `DELETE FROM audit_entries WHERE id = ` + at, []any{rng.Int64N(n)}
	}},
	{"a leaf is deleted", func(rng *rand.Rand, n int64) (string, []any) {
		return `DELETE FROM audit_leaves WHERE seq = $1`, []any{rng.Int64N(n)}
	}},
	{"an entry and its leaf are deleted", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (DELETE FROM audit_entries WHERE id = ` + at + `) DELETE FROM audit_leaves WHERE seq = $1`, []any{rng.Int64N(n)}
	}},
	{"an entry is deleted and the others close up", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (DELETE FROM audit_entries WHERE id = ` + at + `), l AS (DELETE FROM audit_leaves WHERE seq = $1)
			UPDATE audit_leaves SET seq = seq - 1 WHERE seq > $1`, []any{rng.Int64N(n)}
	}},
	{"a hash is changed", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_leaves SET hashes = set_byte(hashes, $2 % octet_length(hashes), get_byte(hashes, $2 % octet_length(hashes)) # $3)
			WHERE seq = $1`, []any{rng.Int64N(n), rng.IntN(320), 1 + rng.IntN(255)}
	}},
	{"two entries change places", func(rng *rand.Rand, n int64) (string, []any) {
		a, b := two(rng, n)
		return `UPDATE audit_leaves SET entry_id = (SELECT entry_id FROM audit_leaves WHERE seq = $1 + $2 - l.seq) FROM
			(SELECT seq FROM audit_leaves WHERE seq IN ($1, $2)) l WHERE audit_leaves.seq = l.seq`, []any{a, b}
	}},
	{"two leaves change places", func(rng *rand.Rand, n int64) (string, []any) {
		a, b := two(rng, n)
		return `UPDATE audit_leaves SET seq = $1 + $2 - seq WHERE seq IN ($1, $2)`, []any{a, b}
	}},
	{"two entries change contents", func(rng *rand.Rand, n int64) (string, []any) {
		a, b := two(rng, n)
		return `WITH pair AS (SELECT l.seq, e.* FROM audit_leaves l JOIN audit_entries e ON e.id = l.entry_id WHERE l.seq IN ($1, $2))
			UPDATE audit_entries e SET request_id = other.request_id, resource_id = other.resource_id
			FROM pair this, pair other WHERE e.id = this.id AND other.seq = $1 + $2 - this.seq`, []any{a, b}
	}},
	{"an entry is put in without a leaf", func(rng *rand.Rand, n int64) (string, []any) {
		return `INSERT INTO audit_entries (id, created_at, txid, user_id, action, result)
			SELECT $2, created_at, txid, user_id, action, 'allowed' FROM audit_entries WHERE id = ` + at,
			[]any{rng.Int64N(n), forgedID(rng)}
	}},
	{"an entry is put in ahead of its transaction", func(rng *rand.Rand, n int64) (string, []any) {
		return `INSERT INTO audit_entries (id, created_at, txid, user_id, action, result)
			SELECT $2, created_at, '1000000000000', user_id, action, 'allowed' FROM audit_entries WHERE id = ` + at, []any{rng.Int64N(n), forgedID(rng)}
	}},
	{"an entry is put in with a leaf at the end", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (INSERT INTO audit_entries (id, created_at, user_id, action, result) SELECT $2, created_at, user_id, action, 'allowed'
				FROM audit_entries WHERE id = ` + at + `)
			INSERT INTO audit_leaves SELECT max(seq) + 1, $2, sha256('x') FROM audit_leaves`, []any{rng.Int64N(n), forgedID(rng)}
	}},
	{"an entry is put in with a leaf before the first", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (INSERT INTO audit_entries (id, created_at, user_id, action, result) SELECT $2, created_at, user_id, action, 'allowed'
				FROM audit_entries WHERE id = ` + at + `)
			INSERT INTO audit_leaves VALUES ($3, $2, sha256('x'))`, []any{rng.Int64N(n), forgedID(rng), -1 - rng.Int64N(1<<40)}
	}},
	{"an entry is put in between, and the others make room", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (INSERT INTO audit_entries (id, created_at, user_id, action, result) SELECT $2, created_at, user_id, action, 'allowed'
				FROM audit_entries WHERE id = ` + at + `), l AS (UPDATE audit_leaves SET seq = seq + 1 WHERE seq >= $1)
			INSERT INTO audit_leaves VALUES ($1, $2, sha256('x'))`, []any{rng.Int64N(n), forgedID(rng)}
	}},
	{"the last leaves are cut off", func(rng *rand.Rand, n int64) (string, []any) {
		return `DELETE FROM audit_leaves WHERE seq >= $1`, []any{rng.Int64N(n)}
	}},
	{"the end is cut off", func(rng *rand.Rand, n int64) (string, []any) {
		return `WITH e AS (DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_leaves WHERE seq >= $1))
			DELETE FROM audit_leaves WHERE seq >= $1`, []any{rng.Int64N(n)}
	}},
	{"the size is changed", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_seal SET size = $1`, []any{rng.Int64N(n)}
	}},
	{"the checkpoint is edited", func(rng *rand.Rand, n int64) (string, []any) {
		return `UPDATE audit_seal SET checkpoint = overlay(checkpoint PLACING $2 FROM $1)`, []any{1 + rng.IntN(150), "~~"}
	}},
	{"everything is deleted", func(*rand.Rand, int64) (string, []any) {
		return `WITH e AS (DELETE FROM audit_entries), l AS (DELETE FROM audit_leaves) UPDATE audit_seal SET size = 0, checkpoint = ''`, nil
	}},
}

func two(rng *rand.Rand, n int64) (a, b int64) {
	a = rng.Int64N(n)
	return a, (a + 1 + rng.Int64N(n-1)) % n
}

func forgedID(rng *rand.Rand) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	id[15] ^= byte(rng.IntN(256))
	return id
}

// sealedRig has a log of n entries and a checkpoint of every tenth.
func sealedRig(t *testing.T, n int) *rig {
	t.Helper()
	r := newRig(t)
	for i := 0; i < n; i += 10 {
		r.append(t, entries(min(10, n-i))...)
		r.seal(t, int64(min(i+10, n)))
	}
	r.clean(t, int64(n))
	return r
}

func TestEveryChangeOfWhatWasSealedIsFound(t *testing.T) {
	t.Parallel()
	const rounds, databases = 600, 2
	for first := range databases {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			findEveryChange(t, first, rounds, databases)
		})
	}
}

// findEveryChange runs the rounds from first on by step.
func findEveryChange(t *testing.T, first, rounds, step int) {
	const size = 150
	r := sealedRig(t, size)
	// The attacker does not stop at constraints.
	r.asOwner(t, `ALTER TABLE audit_leaves DROP CONSTRAINT audit_leaves_pkey, DROP CONSTRAINT audit_leaves_entry_key`)
	kept, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	notes, _, err := audit.ReadCheckpoints(bytes.NewReader(kept))
	if err != nil {
		t.Fatal(err)
	}
	// Old checkpoints, which the attacker has kept, are genuine.
	all := append(slices.Clip(mutations), mutation{"the log is taken back to an old checkpoint", func(rng *rand.Rand, _ int64) (string, []any) {
		old := notes[rng.IntN(len(notes)-1)]
		c, err := audit.OpenCheckpoint(old, r.verifier(t))
		if err != nil {
			t.Fatal(err)
		}
		return `WITH e AS (DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_leaves WHERE seq >= $1)),
			l AS (DELETE FROM audit_leaves WHERE seq >= $1) UPDATE audit_seal SET size = $1, checkpoint = $2`, []any{c.Size, old}
	}})
	for round := first; round < rounds; round += step {
		m := all[round%len(all)]
		sql, args := m.do(rand.New(rand.NewPCG(uint64(round), 1)), size)
		err := undone(t.Context(), r, func(tx pgx.Tx) error {
			if err := pastTriggers(t.Context(), tx, sql, args...); err != nil {
				return err
			}
			report, err := audit.VerifyTx(t.Context(), tx, audit.VerifyOptions{Verifiers: []string{r.key.Public()}, Checkpoints: bytes.NewReader(kept)})
			if err == nil && report.OK() {
				t.Errorf("round %d: %s: not found; arguments %v", round, m.name, args)
			}
			return err
		})
		if err != nil {
			t.Fatalf("round %d: %s: %v", round, m.name, err)
		}
	}
	r.clean(t, size)
}

// undone runs fn in a transaction that leaves nothing.
func undone(ctx context.Context, r *rig, fn func(tx pgx.Tx) error) error {
	undo := errors.New("undo")
	err := pgx.BeginFunc(ctx, r.owner, func(tx pgx.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return undo
	})
	if errors.Is(err, undo) {
		return nil
	}
	return err
}

func TestFindingsNameTheEntry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	all := entries(20)
	for _, e := range all {
		r.append(t, e)
	}
	r.seal(t, 20)
	for _, tc := range []struct {
		sql  string
		want audit.Kind
		id   uuid.UUID
		seq  int64
	}{
		{`UPDATE audit_entries SET reason = 'none' WHERE id = $1`, audit.Changed, all[3].ID, 3},
		{`DELETE FROM audit_entries WHERE id = $1`, audit.Deleted, all[19].ID, 19},
		{`UPDATE audit_leaves SET hashes = hashes || hashes WHERE entry_id = $1`, audit.BadHash, all[8].ID, 8},
	} {
		err := undone(t.Context(), r, func(tx pgx.Tx) error {
			if err := pastTriggers(t.Context(), tx, tc.sql, tc.id); err != nil {
				return err
			}
			report, err := audit.VerifyTx(t.Context(), tx, audit.VerifyOptions{Verifiers: []string{r.key.Public()}})
			if err != nil {
				return err
			}
			if len(report.Findings) != 1 || report.Findings[0].Kind != tc.want || report.Findings[0].EntryID != tc.id || report.Findings[0].Seq != tc.seq {
				t.Errorf("%s: findings %+v; want %s of %s at %d", tc.sql, report.Findings, tc.want, tc.id, tc.seq)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestForgedCheckpointsAreFound(t *testing.T) {
	t.Parallel()
	r := sealedRig(t, 20)
	other := newRig(t)
	other.append(t, entries(20)...)
	other.seal(t, 20)
	kept, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(other.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file  string
		found bool
	}{
		"those of another key":        {string(theirs), true},
		"one with another size":       {strings.Replace(string(kept), "\n20\n", "\n21\n", 1), true},
		"the genuine ones, reordered": {string(kept[len(kept)/2:]) + string(kept[:len(kept)/2]), false},
		"one that was cut short":      {string(kept) + "claw.example.com/audit\n30\nAAAA", false},
		"none":                        {"", false},
	} {
		report, err := audit.Verify(t.Context(), r.pool, audit.VerifyOptions{Verifiers: []string{r.key.Public()}, Checkpoints: strings.NewReader(tc.file)})
		if err != nil {
			t.Fatal(err)
		}
		if report.OK() == tc.found {
			t.Errorf("%s: findings %+v", name, report.Findings)
		}
	}
}

func TestNobodyChangesTheLogByOrdinaryMeans(t *testing.T) {
	t.Parallel()
	r := sealedRig(t, 10)
	month := "audit_entries_" + strings.ReplaceAll(entry(0).CreatedAt.Format("2006-01"), "-", "")
	for _, sql := range []string{
		`UPDATE {table} SET {column} = DEFAULT`, `DELETE FROM {table}`, `TRUNCATE {table}`,
	} {
		for _, table := range []struct{ name, column string }{
			{"audit_entries", "reason"}, {month, "reason"}, {"audit_entries_default", "reason"}, {"audit_leaves", "seq"},
		} {
			statement := strings.NewReplacer("{table}", table.name, "{column}", table.column).Replace(sql)
			if _, err := r.pool.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("as the server, %s: %v", statement, err)
			}
			if _, err := r.owner.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "only appended to") {
				t.Errorf("as the owner, %s: %v", statement, err)
			}
		}
	}
	for _, sql := range []string{
		`INSERT INTO audit_entries (id, created_at, txid, user_id, action, result) VALUES (gen_random_uuid(), now(), '3', '', '', 'denied')`,
		`INSERT INTO ` + month + ` (id, created_at, user_id, action, result) VALUES (gen_random_uuid(), now(), '', '', 'denied')`,
		`SELECT drop_audit_partition(current_date)`,
		`DROP TABLE audit_entries`,
		`ALTER TABLE audit_entries DISABLE TRIGGER ALL`,
		`SET session_replication_role = replica`,
		`DELETE FROM audit_seal`,
	} {
		if _, err := r.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the server may %s", sql)
		}
	}
	r.clean(t, 10)
}
