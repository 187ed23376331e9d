package clawbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

// rig is what is measured: a server and the database under it.
type rig struct {
	target
	client   *api.Client
	database string   // "" where only the server's address is known
	own      *process // nil for a server that was there before
	undo     []func(context.Context) error
}

// setUp starts what the flags do not name.
func (b *bench) setUp(ctx context.Context) (r *rig, err error) {
	r = &rig{database: b.database}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.takeDown(context.WithoutCancel(ctx)))
		}
	}()
	address := b.url
	if address == "" {
		dir, err := r.makeDir(b.dir)
		if err != nil {
			return r, err
		}
		if r.database == "" {
			b.say("starting a private PostgreSQL in %s", dir)
			if err := r.startPostgres(ctx, dir, b.clients); err != nil {
				return r, err
			}
		}
		r.own, err = startProcess(dir, r.database, b.profile)
		if err != nil {
			return r, err
		}
		r.undo = append(r.undo, r.own.stop)
		if address, err = r.own.address(ctx); err != nil {
			return r, err
		}
	}
	token := os.Getenv("CODERCLAW_TOKEN")
	if r.target, err = parseTarget(address, token); err != nil {
		return r, err
	}
	r.client, err = api.NewClient(address, api.WithToken(token), api.WithUserAgent("clawbench"))
	if err != nil {
		return r, err
	}
	if _, err := r.client.Status(ctx); err != nil {
		return r, fmt.Errorf("the server does not answer: %w", err)
	}
	return r, nil
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
func (r *rig) makeDir(parent string) (string, error) {
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
			return "", fmt.Errorf("find a cache directory, or use --dir: %w", err)
		}
	}
	if err := os.MkdirAll(parent, mode); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "clawbench-")
	if err != nil {
		return "", err
	}
	r.undo = append(r.undo, func(context.Context) error { return os.RemoveAll(dir) })
	return dir, os.Chmod(dir, mode)
}

func (r *rig) startPostgres(ctx context.Context, dir string, clients int) error {
	cluster, err := embedded.Start(ctx, embedded.Options{
		Dir: filepath.Join(dir, "postgres"), BinDir: os.Getenv("CODERCLAW_POSTGRES_BIN"),
		// All settings but this are PostgreSQL's own: pgbench connects once per
		// client, beside the server.
		Settings: map[string]string{"max_connections": strconv.Itoa(100 + clients)},
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	r.undo = append(r.undo, cluster.Stop)
	r.database = cluster.URL(embedded.Database)
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
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var version string
	conn, err := pgx.Connect(ctx, r.database)
	if err == nil {
		defer conn.Close(ctx)
		err = conn.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&version)
	}
	if err != nil {
		return machine // it was measured; what it is called is not worth failing for
	}
	return machine + ", PostgreSQL " + version
}
