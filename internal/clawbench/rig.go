package clawbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

// rig is what is measured: a server and the database under it.
type rig struct {
	target
	address  string
	client   *api.Client
	operator *api.Client // an administrator's
	workers  *worker     // nil until one is registered
	dir      string      // "" for a server that was there before
	database string      // "" where only the server's address is known
	own      *process    // nil for a server that was there before
	log      string      // of a private PostgreSQL; "" for one that was there before
	meter    *meter
	undo     []func(context.Context) error
}

// setUp starts what the flags do not name. settings are those of a private
// PostgreSQL that are not its own.
func (b *bench) setUp(ctx context.Context, settings map[string]string) (r *rig, err error) {
	r = &rig{database: b.database}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.takeDown(context.WithoutCancel(ctx)))
		}
	}()
	address := b.url
	if address == "" {
		if err := r.makeDir(b.dir); err != nil {
			return r, err
		}
		if r.database == "" {
			b.say("starting a private PostgreSQL in %s", r.dir)
			if err := r.startPostgres(ctx, b.connections(), settings); err != nil {
				return r, err
			}
		}
		if address, err = r.startServer(ctx, b.profile); err != nil {
			return r, err
		}
	}
	return r, r.connect(ctx, address)
}

// beside sets up another server, on a database of its own beside r's, which r's
// takeDown takes down as well.
func (r *rig) beside(ctx context.Context, name string) (other *rig, err error) {
	if r.own == nil {
		return nil, errors.New("only a server that clawbench starts can have another one beside it")
	}
	database, err := r.makeDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	other = &rig{dir: filepath.Join(r.dir, name), database: database}
	r.undo = append(r.undo, func(ctx context.Context) error { return other.takeDown(ctx) })
	if err := os.Mkdir(other.dir, 0o700); err != nil {
		return nil, err
	}
	address, err := other.startServer(ctx, "")
	if err != nil {
		return nil, err
	}
	return other, other.connect(ctx, address)
}

func (r *rig) startServer(ctx context.Context, profile string) (address string, err error) {
	if r.own, err = startServer(r.dir, r.database, profile); err != nil {
		return "", err
	}
	r.undo = append(r.undo, r.own.stop)
	return r.own.address(ctx)
}

// connect finds the server at an address, and begins to meter what it uses.
func (r *rig) connect(ctx context.Context, address string) (err error) {
	r.address = address
	token := os.Getenv("CODERCLAW_TOKEN")
	if r.target, err = parseTarget(address, token); err != nil {
		return err
	}
	if r.client, err = newClient(address, token); err != nil {
		return err
	}
	if r.own != nil && token == "" {
		token = ownToken
	}
	if r.operator, err = newClient(address, token); err != nil {
		return err
	}
	if _, err := r.client.Status(ctx); err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	if r.meter, err = newMeter(ctx, r); err != nil {
		return err
	}
	r.undo = append(r.undo, func(ctx context.Context) error {
		r.meter.close(ctx)
		return nil
	})
	return nil
}

// makeDatabase makes a database beside r's, which r's takeDown removes, and
// returns its URL.
func (r *rig) makeDatabase(ctx context.Context, name string) (string, error) {
	u, err := url.Parse(r.database)
	if err != nil {
		return "", fmt.Errorf("read the database's URL: %w", err)
	}
	name = fmt.Sprintf("%s_%d", name, os.Getpid()) // a PostgreSQL that was there before may be shared
	if err := r.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", err
	}
	r.undo = append(r.undo, func(ctx context.Context) error {
		return r.exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	})
	u.Path = "/" + name
	return u.String(), nil
}

func newClient(address, token string) (*api.Client, error) {
	return api.NewClient(address, api.WithToken(token), api.WithUserAgent("clawbench"))
}

// query runs a statement on the server's database, on a connection of its own.
func (r *rig) query(ctx context.Context, run func(*pgx.Conn) error) error {
	if r.database == "" {
		return errors.New("the server's database is needed for this: --database-url")
	}
	conn, err := pgx.Connect(ctx, r.database)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(ctx)
	return run(conn)
}

func (r *rig) exec(ctx context.Context, statement string, args ...any) error {
	return r.query(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, statement, args...); err != nil {
			return fmt.Errorf("%.80s: %w", strings.Join(strings.Fields(statement), " "), err)
		}
		return nil
	})
}

// takeDown undoes what setUp did, last things first.
func (r *rig) takeDown(ctx context.Context) error {
	var errs []error
	for i := range r.undo {
		errs = append(errs, r.undo[len(r.undo)-1-i](ctx))
	}
	return errors.Join(errs...)
}

// makeDir makes a directory of our own in parent, which PostgreSQL's user can
// enter.
func (r *rig) makeDir(parent string) error {
	mode := os.FileMode(0o700)
	var err error
	switch {
	case os.Geteuid() == 0:
		mode = 0o711
		if parent == "" {
			parent = "/var/tmp" // on disk, and not root's own as its cache is
		}
	case parent == "":
		if parent, err = os.UserCacheDir(); err != nil {
			return fmt.Errorf("find a cache directory, or use --dir: %w", err)
		}
	}
	if err := os.MkdirAll(parent, mode); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "clawbench-")
	if err != nil {
		return err
	}
	r.undo = append(r.undo, func(context.Context) error { return os.RemoveAll(dir) })
	r.dir = dir
	return os.Chmod(dir, mode)
}

func (r *rig) startPostgres(ctx context.Context, connections int, settings map[string]string) error {
	dir := filepath.Join(r.dir, "postgres")
	// All settings but this are PostgreSQL's own: pgbench connects once per
	// client, beside the server.
	all := map[string]string{"max_connections": strconv.Itoa(connections)}
	maps.Copy(all, settings)
	cluster, err := embedded.Start(ctx, embedded.Options{
		Dir: dir, BinDir: os.Getenv("CODERCLAW_POSTGRES_BIN"), Settings: all, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	r.undo = append(r.undo, cluster.Stop)
	r.database, r.log = cluster.URL(embedded.Database), filepath.Join(dir, "postgres.log")
	return nil
}

// explain adds to an error what the server said, if that is why.
func (r *rig) explain(err error) error {
	if r.own == nil || !r.own.ended() {
		return err
	}
	return fmt.Errorf("%w; the server ended: %s", err, r.own.lastWords())
}

// describe says what the figures depend on.
func (r *rig) describe(ctx context.Context) string {
	machine := fmt.Sprintf("%d processors", runtime.NumCPU())
	if r.database == "" {
		return machine + " here"
	}
	var version string
	if err := r.meter.database.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&version); err != nil {
		return machine // it was measured; what it is called is not worth failing for
	}
	return machine + ", PostgreSQL " + version
}
