package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/source"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/fault"
)

// Status is where a database stands among the migrations.
type Status struct {
	Version uint // the last migration applied, 0 if none
	Latest  uint // the last migration there is
	Dirty   bool // whether Version was left half applied
	Pending int  // how many migrations are still to be applied
}

// Migrate applies the migrations in fsys that the database at url lacks. Of
// several callers at once one does so while the others wait; ctx bounds the
// wait and, except inside a file with CONCURRENTLY, the work.
//
// A file takes effect together with its version number or not at all; only
// one with CONCURRENTLY can leave a database dirty. Conflict is the fault for
// a database that is dirty or newer than fsys. An error in a file names it.
func Migrate(ctx context.Context, url string, fsys fs.FS) error {
	return migrating(ctx, url, fsys, func(m *migrate.Migrate, _ *migrations, _ Status) error {
		return m.Up()
	})
}

// MigrateDown undoes the last steps migrations, or all if steps is negative.
// Undoing more than were applied is no error. Otherwise as [Migrate].
func MigrateDown(ctx context.Context, url string, fsys fs.FS, steps int) error {
	return migrating(ctx, url, fsys, func(m *migrate.Migrate, all *migrations, at Status) error {
		applied := len(all.versions) - at.Pending
		if steps < 0 || steps > applied {
			steps = applied
		}
		if steps == 0 {
			return nil
		}
		return m.Steps(-steps)
	})
}

// MigrateForce records version as the one the database is at, not dirty,
// without running anything: the last step of a repair by hand. Version 0 means
// that no migration is applied.
func MigrateForce(ctx context.Context, url string, fsys fs.FS, version uint) error {
	all, err := readMigrations(fsys)
	if err != nil {
		return err
	}
	if version != 0 && all.names[version] == (pair{}) {
		return fault.New(fault.Invalid, "there is no migration %d; the last is %d", version, all.latest())
	}
	s, err := openSession(ctx, url, all)
	if err != nil {
		return err
	}
	defer s.close()
	return Fault(s.record(ctx, int(version), false))
}

// MigrationStatus tells where the database at url stands. It changes nothing.
func MigrationStatus(ctx context.Context, url string, fsys fs.FS) (Status, error) {
	all, err := readMigrations(fsys)
	if err != nil {
		return Status{}, err
	}
	config, err := connConfig(url)
	if err != nil {
		return Status{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return Status{}, Fault(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	at, err := all.status(ctx, conn)
	return at, Fault(err)
}

// Latest returns the last version that fsys leads to.
func Latest(fsys fs.FS) (uint, error) {
	all, err := readMigrations(fsys)
	if err != nil {
		return 0, err
	}
	return all.latest(), nil
}

// CheckSchema returns an Unavailable fault unless the database is reachable,
// not dirty and at version latest or newer. Newer is well: while the next
// release rolls out, this one goes on serving on its schema.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool, latest uint) error {
	version, dirty, err := schemaVersion(ctx, pool)
	switch {
	case err != nil:
		return Fault(err)
	case dirty:
		return fault.New(fault.Unavailable, "the database schema is dirty at version %d", version)
	case version < latest:
		return fault.New(fault.Unavailable, "the database schema is at version %d of %d", version, latest)
	}
	return nil
}

// migrating runs step on a database that is fit for it, alone.
func migrating(ctx context.Context, url string, fsys fs.FS,
	step func(*migrate.Migrate, *migrations, Status) error) error {
	all, err := readMigrations(fsys)
	if err != nil {
		return err
	}
	s, err := openSession(ctx, url, all)
	if err != nil {
		return err
	}
	defer s.close()

	at, err := all.status(ctx, s.conn)
	if err != nil {
		return Fault(err)
	}
	if err := at.fit(); err != nil {
		return err
	}
	m, err := migrate.NewWithInstance("iofs", all.source, "postgres", s)
	if err != nil {
		return err
	}
	defer func() { _, _ = m.Close() }() // the migrations are read from memory, over a connection that stays
	if err := step(m, all, at); !errors.Is(err, migrate.ErrNoChange) {
		return Fault(err)
	}
	return nil
}

// fit returns a fault unless migrations may run on a database in this state.
func (s Status) fit() error {
	switch {
	case s.Dirty:
		return fault.New(fault.Conflict, "the database schema is dirty: migration %d stopped halfway; "+
			"put right by hand what it left, then force the version that the schema now has", s.Version)
	case s.Version > s.Latest:
		return fault.New(fault.Conflict, "the database schema is at version %d, newer than this program's %d: "+
			"use the newer program", s.Version, s.Latest)
	}
	return nil
}

// migrations are the files of one schema.
type migrations struct {
	source   source.Driver
	versions []uint // ascending
	names    map[uint]pair
}

// pair holds the names of the two files of a version.
type pair struct{ up, down string }

// readMigrations lists fsys. Every version needs both its files:
// golang-migrate takes a missing one for an empty one.
func readMigrations(fsys fs.FS) (*migrations, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	all := &migrations{names: map[uint]pair{}}
	for _, entry := range entries { // sorted by name, so by version
		file, err := source.Parse(entry.Name())
		if err != nil {
			continue
		}
		names := all.names[file.Version]
		if names == (pair{}) {
			all.versions = append(all.versions, file.Version)
		}
		if file.Direction == source.Up {
			names.up = entry.Name()
		} else {
			names.down = entry.Name()
		}
		all.names[file.Version] = names
	}
	for version, names := range all.names {
		if names.up == "" || names.down == "" {
			return nil, fmt.Errorf("migration %d has no counterpart to %s%s", version, names.up, names.down)
		}
	}
	if len(all.versions) == 0 {
		return nil, errors.New("list migrations: there are none")
	}
	if all.source, err = iofs.New(fsys, "."); err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	return all, nil
}

func (m *migrations) latest() uint { return m.versions[len(m.versions)-1] }

func (m *migrations) status(ctx context.Context, db querier) (Status, error) {
	version, dirty, err := schemaVersion(ctx, db)
	if err != nil {
		return Status{}, err
	}
	s := Status{Version: version, Latest: m.latest(), Dirty: dirty}
	for _, v := range m.versions {
		if v > version {
			s.Pending++
		}
	}
	return s, nil
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// schemaVersion reads the version table; where there is none, no migration has
// been applied.
func schemaVersion(ctx context.Context, db querier) (version uint, dirty bool, err error) {
	// golang-migrate writes -1 for what was left dirty on the way to none.
	err = db.QueryRow(ctx, `SELECT greatest(version, 0), dirty FROM schema_migrations LIMIT 1`).Scan(&version, &dirty)
	var pgErr *pgconn.PgError
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &pgErr) && pgErr.Code == "42P01" {
		return 0, false, nil
	}
	return version, dirty, err
}
