package pgtest

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	t.Parallel()
	var names []string
	t.Run("a test", func(t *testing.T) {
		for range 2 {
			began := time.Now()
			pool := DB(t)
			t.Logf("a database took %v", time.Since(began))
			var name, zone string
			var agents int
			err := pool.QueryRow(t.Context(), `SELECT current_database(), current_setting('TimeZone'), count(*) FROM agents`).
				Scan(&name, &zone, &agents)
			if err != nil || agents != 0 || zone != "UTC" {
				t.Fatalf("%d agents, time zone %s, %v; want none, UTC", agents, zone, err)
			}
			if _, err := pool.Exec(t.Context(), `INSERT INTO agents (id, definition) VALUES ('mine', '{}')`); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	})
	for _, name := range names {
		if exists(t, name) {
			t.Errorf("%s outlived its test", name)
		}
	}
}

func TestDatabaseIsDroppedWhoeverIsConnected(t *testing.T) {
	t.Parallel()
	var conn *pgx.Conn
	t.Run("a test", func(t *testing.T) {
		var err error
		if conn, err = pgx.Connect(t.Context(), EmptyURL(t)); err != nil {
			t.Fatal(err)
		}
	})
	defer conn.Close(t.Context())
	if name := conn.Config().Database; exists(t, name) {
		t.Errorf("%s outlived its test", name)
	}
}

func TestDatabasesOfDeadProcessesAreSwept(t *testing.T) {
	t.Parallel()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	other := func() *server {
		o, err := newServer(t.Context(), s.url("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.alive.Close(context.Background()) })
		return o
	}
	dead, living := other(), other()
	left, kept := dead.newName(), living.newName()
	for _, name := range []string{left, kept} {
		if err := s.exec(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := dead.alive.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for exists(t, left) { // the server may be a moment late to notice the end
		if err := living.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !exists(t, kept) {
		t.Errorf("%s was swept, whose process lives", kept)
	}
	if err := s.exec(t.Context(), "DROP DATABASE "+kept); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenMigrationsMakeNoTemplate(t *testing.T) {
	t.Parallel()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	broken := fstest.MapFS{
		"000001_broken.up.sql":   {Data: []byte("CREATE TABLE (;")},
		"000001_broken.down.sql": {Data: []byte("")},
	}
	for range 2 { // the first leaves nothing that the second takes for whole
		_, err := s.makeTemplate(t.Context(), broken)
		if err == nil || !strings.Contains(err.Error(), "000001_broken.up.sql") {
			t.Errorf("makeTemplate = %v; want it to name the file", err)
		}
	}
	EmptyURL(t)
}

func exists(t *testing.T, database string) (found bool) {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	err = conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, database).Scan(&found)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func BenchmarkURL(b *testing.B) {
	for b.Loop() {
		URL(b)
	}
}
