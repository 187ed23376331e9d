package pgtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/migrations"
)

const (
	// templateLock is the advisory lock under which the template is made.
	templateLock = 0x636c6177_74656d70

	testPrefix     = "claw_test_"
	templatePrefix = "claw_template_"
)

// server is the PostgreSQL that this process makes its databases on.
type server struct {
	admin    *pgx.ConnConfig
	url      func(database string) string
	strategy string // how to copy, in CREATE DATABASE

	// token marks this process's databases. alive holds the advisory lock of
	// that number, by which others know that they are in use.
	token uint32
	alive *pgx.Conn
	made  atomic.Int64

	migrate  sync.Once
	template string
	err      error
}

// shared returns the one server of this process.
var shared = sync.OnceValues(func() (*server, error) {
	ctx := context.Background()
	address := os.Getenv("CODERCLAW_TEST_DATABASE_URL")
	if address == "" {
		var err error
		if address, err = joinCluster(ctx); err != nil {
			return nil, err
		}
	}
	return newServer(ctx, address)
})

func newServer(ctx context.Context, address string) (*server, error) {
	admin, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	s := &server{
		admin: admin,
		url:   func(database string) string { return withDatabase(address, database) },
		token: rand.Uint32(),
	}
	if s.alive, err = s.connect(ctx); err != nil {
		return nil, err
	}
	if _, err := s.alive.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(s.token)); err != nil {
		return nil, err
	}
	var version int
	if err := s.alive.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return nil, err
	}
	if version >= 15_00_00 {
		// Twice as fast here as the default, and what older versions do.
		s.strategy = " STRATEGY file_copy"
	}
	return s, s.sweep(ctx)
}

// withDatabase returns address with another database's name.
func withDatabase(address, database string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" {
		return address + " dbname=" + database
	}
	u.Path = "/" + database
	return u.String()
}

func (s *server) newName() string {
	return fmt.Sprintf("%s%08x_%d", testPrefix, s.token, s.made.Add(1))
}

// sweep drops the databases of processes that are gone.
func (s *server) sweep(ctx context.Context) error {
	rows, err := s.alive.Query(ctx, `SELECT datname FROM pg_database WHERE starts_with(datname, $1)`, testPrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		var token uint32
		_, err := fmt.Sscanf(strings.TrimPrefix(name, testPrefix), "%08x_", &token)
		if err != nil || token == s.token { // nobody is refused a lock of his own
			continue
		}
		var gone bool
		if err := s.alive.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(token)).Scan(&gone); err != nil {
			return err
		}
		if !gone {
			continue
		}
		if _, err := s.alive.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			return err
		}
		if _, err := s.alive.Exec(ctx, `SELECT pg_advisory_unlock($1)`, int64(token)); err != nil {
			return err
		}
	}
	return nil
}

// migrated returns the name of the template that has the schema. The first
// process that needs it makes it.
func (s *server) migrated(context.Context) (string, error) {
	s.migrate.Do(func() { s.template, s.err = s.makeTemplate(context.Background(), migrations.FS) })
	return s.template, s.err
}

// makeTemplate makes the template for the given migrations, unless it exists.
func (s *server) makeTemplate(ctx context.Context, fsys fs.FS) (string, error) {
	sum, err := hash(fsys)
	if err != nil {
		return "", err
	}
	name := templatePrefix + sum
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(templateLock)); err != nil {
		return "", err
	}
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists)
	if err != nil || exists {
		return name, err
	}

	// It gets its name when it is whole.
	draft := name + "_draft"
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+draft+" WITH (FORCE)"); err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+draft+" TEMPLATE template0"); err != nil {
		return "", err
	}
	if err := postgres.Migrate(ctx, s.url(draft), fsys); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+draft+" RENAME TO "+name)
	return name, err
}

// hash returns a short digest of all files in fsys.
func hash(fsys fs.FS) (string, error) {
	digest := sha256.New()
	err := fs.WalkDir(fsys, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(fsys, path)
		fmt.Fprintf(digest, "%q %d\n%s", path, len(content), content)
		return err
	})
	return fmt.Sprintf("%x", digest.Sum(nil)[:8]), err
}
