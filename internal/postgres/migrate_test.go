package postgres_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/migrations"
)

var (
	one = with(nil, map[string]string{
		"000001_runs.up.sql":   `CREATE TABLE runs (n serial); INSERT INTO runs DEFAULT VALUES;`,
		"000001_runs.down.sql": `DROP TABLE runs;`,
	})
	two = with(one, map[string]string{
		"000002_more.up.sql":   `CREATE TABLE more (id int); INSERT INTO runs DEFAULT VALUES;`,
		"000002_more.down.sql": `DROP TABLE more;`,
	})
	indexed = with(two, map[string]string{
		"000003_index.up.sql":   "-- alone in its file\nCREATE INDEX CONCURRENTLY more_id_idx ON more (id);",
		"000003_index.down.sql": `DROP INDEX CONCURRENTLY more_id_idx;`,
	})
)

func TestMigrationsRunOnceHoweverManyStart(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]fs.FS{"in transactions": two, "with one that runs concurrently": indexed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := pgtest.EmptyURL(t)
			var starters sync.WaitGroup
			for range 8 {
				starters.Go(func() {
					if err := postgres.Migrate(t.Context(), address, all); err != nil {
						t.Error(err)
					}
				})
			}
			starters.Wait()
			if runs := count(t, address, `SELECT count(*) FROM runs`); runs != 2 {
				t.Errorf("%d migrations ran; want 2", runs)
			}
			if invalid := count(t, address, `SELECT count(*) FROM pg_index WHERE NOT indisvalid`); invalid != 0 {
				t.Errorf("%d indexes are invalid", invalid)
			}
		})
	}
}

func TestStatusFollowsTheMigrations(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	check := func(want postgres.Status) {
		t.Helper()
		got, err := postgres.MigrationStatus(t.Context(), address, two)
		if err != nil || got != want {
			t.Errorf("status %+v, %v; want %+v", got, err, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(postgres.Status{Version: 0, Latest: 2, Pending: 2})
	if tables := count(t, address, `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`); tables != 0 {
		t.Errorf("asking for the status made %d tables", tables)
	}
	must(postgres.Migrate(t.Context(), address, one))
	check(postgres.Status{Version: 1, Latest: 2, Pending: 1})
	must(postgres.Migrate(t.Context(), address, two))
	check(postgres.Status{Version: 2, Latest: 2})
	must(postgres.Migrate(t.Context(), address, two))
	must(postgres.MigrateDown(t.Context(), address, two, 1))
	check(postgres.Status{Version: 1, Latest: 2, Pending: 1})
	must(postgres.MigrateDown(t.Context(), address, two, 5))
	check(postgres.Status{Version: 0, Latest: 2, Pending: 2})
	must(postgres.MigrateDown(t.Context(), address, two, -1))
	must(postgres.MigrateForce(t.Context(), address, two, 2))
	check(postgres.Status{Version: 2, Latest: 2})
	must(postgres.MigrateForce(t.Context(), address, two, 0))
	check(postgres.Status{Version: 0, Latest: 2, Pending: 2})
	if err := postgres.MigrateForce(t.Context(), address, two, 3); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("forcing a version that there is not: %v", err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, says string }{
		{"CREATE TABLE half ();\nINSERT INTO runs VALUES ('x');", `line 2: ERROR: invalid input syntax for type integer: "x"`},
		{"CREATE TABLE half ();\nCREATE VIEW v AS SELECT * FROM none;", `line 2: ERROR: relation "none" does not exist`},
		{"ALTER TABLE runs ADD UNIQUE (n); INSERT INTO runs VALUES (1);", "Key (n)=(1) already exists"},
	} {
		t.Run(tc.says, func(t *testing.T) {
			t.Parallel()
			address := pgtest.EmptyURL(t)
			broken := with(one, map[string]string{"000002_broken.up.sql": tc.file, "000002_broken.down.sql": ""})
			err := postgres.Migrate(t.Context(), address, broken)
			if err == nil || !strings.HasPrefix(err.Error(), "migration 000002_broken.up.sql: ") || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Migrate = %v; want it to name the file and say %q", err, tc.says)
			}
			want := postgres.Status{Version: 1, Latest: 2, Pending: 1}
			if got, err := postgres.MigrationStatus(t.Context(), address, broken); err != nil || got != want {
				t.Errorf("status %+v, %v; want %+v", got, err, want)
			}
			if err := postgres.Migrate(t.Context(), address, two); err != nil {
				t.Errorf("migrate once it is put right: %v", err)
			}
		})
	}
}

func TestMigrationMayNotCommit(t *testing.T) {
	t.Parallel()
	committing := with(one, map[string]string{"000002_commit.up.sql": "COMMIT;", "000002_commit.down.sql": ""})
	err := postgres.Migrate(t.Context(), pgtest.EmptyURL(t), committing)
	if err == nil || !strings.Contains(err.Error(), "must not end the transaction") {
		t.Errorf("Migrate = %v", err)
	}
}

func TestDirtyDatabaseIsLeftToAPerson(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	failing := with(two, map[string]string{
		"000003_index.up.sql":   `CREATE INDEX CONCURRENTLY none_idx ON none (id);`,
		"000003_index.down.sql": ``,
	})
	if err := postgres.Migrate(t.Context(), address, failing); err == nil || !strings.Contains(err.Error(), "000003_index.up.sql") {
		t.Errorf("Migrate = %v; want it to name the file", err)
	}
	err := postgres.Migrate(t.Context(), address, indexed)
	if fault.CodeOf(err) != fault.Conflict || !strings.Contains(err.Error(), "dirty: migration 3") || !strings.Contains(err.Error(), "force") {
		t.Errorf("Migrate = %v; want the conflict, the version and the remedy", err)
	}
	if err := postgres.MigrateDown(t.Context(), address, indexed, 1); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("MigrateDown = %v; want the conflict", err)
	}
	pool := open(t, address)
	if err := postgres.CheckSchema(t.Context(), pool, 3); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("CheckSchema = %v; want the fault unavailable", err)
	}

	if err := postgres.MigrateForce(t.Context(), address, indexed, 2); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), address, indexed); err != nil {
		t.Errorf("migrate after the repair: %v", err)
	}
}

func TestNewerDatabaseIsRefusedAtStartAndServedOn(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	pool := open(t, address)
	if err := postgres.CheckSchema(t.Context(), pool, 1); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("CheckSchema before any migration = %v; want the fault unavailable", err)
	}
	if err := postgres.Migrate(t.Context(), address, two); err != nil {
		t.Fatal(err)
	}
	err := postgres.Migrate(t.Context(), address, one)
	if fault.CodeOf(err) != fault.Conflict || !strings.Contains(err.Error(), "at version 2, newer than this program's 1") {
		t.Errorf("Migrate = %v; want the conflict and both versions", err)
	}
	for latest, want := range map[uint]fault.Code{1: "", 2: "", 3: fault.Unavailable} {
		if err := postgres.CheckSchema(t.Context(), pool, latest); fault.CodeOf(err) != want {
			t.Errorf("CheckSchema for %d = %v; want %q", latest, err, want)
		}
	}
}

func TestMigrateGivesUpWaitingWithItsCaller(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	slow := with(one, map[string]string{"000002_slow.up.sql": "SELECT pg_sleep(60);", "000002_slow.down.sql": ""})
	pool := open(t, address)
	start := func() (stop context.CancelFunc, ended chan error) {
		ctx, stop := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- postgres.Migrate(ctx, address, slow) }()
		return stop, ended
	}
	sees := func(query string) {
		t.Helper()
		for seen := false; !seen; {
			err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND starts_with(query, $1))`, query).Scan(&seen)
			if err != nil {
				t.Fatal(err)
			}
		}
	}

	stopFirst, firstEnded := start()
	sees("SELECT pg_sleep")
	stopSecond, secondEnded := start()
	sees("SELECT pg_try_advisory_lock")
	stopSecond()
	if err := <-secondEnded; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waits ends with %v", err)
	}
	stopFirst()
	if err := <-firstEnded; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that works ends with %v", err)
	}
	want := postgres.Status{Version: 1, Latest: 2, Pending: 1}
	if got, err := postgres.MigrationStatus(t.Context(), address, slow); err != nil || got != want {
		t.Errorf("status %+v, %v; want %+v", got, err, want)
	}
}

func TestMigrationWithoutItsCounterpartIsRefused(t *testing.T) {
	t.Parallel()
	lonely := with(one, map[string]string{"000002_more.up.sql": "SELECT 1;"})
	if err := postgres.Migrate(t.Context(), "", lonely); err == nil || !strings.Contains(err.Error(), "no counterpart to 000002_more.up.sql") {
		t.Errorf("Migrate = %v", err)
	}
}

// What a migration makes, its counterpart removes, and nothing else.
func TestSchemaGoesDownAndUpAgain(t *testing.T) {
	t.Parallel()
	address := pgtest.EmptyURL(t)
	empty := schema(t, address)
	if err := postgres.Migrate(t.Context(), address, migrations.FS); err != nil {
		t.Fatal(err)
	}
	up := schema(t, address)
	if err := postgres.MigrateDown(t.Context(), address, migrations.FS, -1); err != nil {
		t.Fatal(err)
	}
	if down := schema(t, address); down != empty {
		t.Errorf("after all went down there is left:\n%s", down)
	}
	if err := postgres.Migrate(t.Context(), address, migrations.FS); err != nil {
		t.Fatal(err)
	}
	if again := schema(t, address); again != up {
		t.Errorf("up again the schema is\n%s\nwant\n%s", again, up)
	}
}

// schema describes everything in the database but the version table.
func schema(t *testing.T, address string) string {
	t.Helper()
	rows, err := open(t, address).Query(t.Context(), `
		SELECT format('%s %s.%s %s', c.relname, a.attnum, a.attname,
		              format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
		              || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line
		  FROM pg_class c
		  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		 WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema_migrations%'
		UNION ALL
		SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
		 WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'schema_migrations%'
		UNION ALL
		SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
		 WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE 'schema_migrations%'
		UNION ALL
		SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		UNION ALL
		SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL
		SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typname NOT LIKE '%schema_migrations'
		ORDER BY line`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func with(base fstest.MapFS, more map[string]string) fstest.MapFS {
	all := fstest.MapFS{}
	maps.Copy(all, base)
	for name, content := range more {
		all[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return all
}

func open(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func count(t *testing.T, address, sql string) (n int) {
	t.Helper()
	if err := open(t, address).QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
