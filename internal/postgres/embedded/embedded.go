// Package embedded runs a private PostgreSQL cluster as a child process: it
// finds the installed programs, makes the cluster, keeps it running and stops
// it with us.
//
// The cluster listens on a Unix socket in a private directory only, and lets
// in the operating system's own word for who connects (peer): there is no
// password to keep, and no port. Its data is as safe as any PostgreSQL's.
//
// The directory of a cluster holds
//
//	postgres/data   what PostgreSQL stores
//	postgres/run    the socket, where its path is short enough
//	postgres.log    what PostgreSQL says
//	postgres.lock   held while a process of ours serves the directory
//	postgres.*.conf who may connect, written at each start
//
// As root the server runs as the user postgres, or else nobody, since
// PostgreSQL refuses root; only postgres/ belongs to that user.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// User and Database are what every cluster has from the beginning. User may do
// anything.
const (
	User     = "coderclaw"
	Database = "coderclaw"
)

// Options says where and how to run a cluster.
type Options struct {
	// Dir holds the cluster; it is made if it does not exist.
	Dir string
	// BinDir holds initdb and postgres; if empty they are looked for.
	BinDir string
	// Install lets a missing PostgreSQL be installed with the system's package
	// manager, which takes root.
	Install bool
	// Settings are added to the server's, by name. A cluster that is made with
	// fsync off is not synced while it is made either.
	Settings map[string]string
	// Log hears of what takes long or goes wrong; slog.Default() if nil.
	Log *slog.Logger
}

// Cluster is a running PostgreSQL. Its methods may be called from several
// goroutines.
type Cluster struct {
	opts   Options
	layout *layout
	owner  owner
	bin    Installation
	lock   *os.File

	// ctx ends when Stop is called, patience when the server must end at once.
	ctx, patience      context.Context
	stop, losePatience context.CancelFunc
	// done is closed when the server has ended for good, with err saying why.
	done chan struct{}
	err  error
}

// Start runs the cluster in opts.Dir, making it first where there is none, and
// returns when it answers and has [Database]. What an earlier process left
// behind (a server without a supervisor, a stale pid file, a cluster half
// made) is put right. ctx bounds the start only.
//
// Errors are one line, meant for a person. A directory that another process
// serves is a Conflict fault.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	layout, err := newLayout(opts.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(layout)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, layout: layout, lock: lock, done: make(chan struct{})}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.patience, c.losePatience = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.start(ctx); err != nil {
		c.layout.cleanUp()
		lock.Close()
		return nil, err
	}
	return c, nil
}

// start does the work of Start under the lock.
func (c *Cluster) start(ctx context.Context) error {
	major, err := c.layout.majorVersion()
	if err != nil {
		return err
	}
	if c.bin, err = find(ctx, c.opts, major); err != nil {
		return err
	}
	if c.owner, err = clusterOwner(c.layout); err != nil {
		return err
	}
	if err := c.layout.prepare(c.owner); err != nil {
		return err
	}
	if err := stopOrphan(ctx, c.layout, c.opts.Log); err != nil {
		return err
	}
	if major == 0 {
		if err := c.create(ctx); err != nil {
			return err
		}
	}
	server, err := c.launch(ctx)
	if err != nil {
		return err
	}
	if err := c.ensureDatabase(ctx); err != nil {
		server.stop(c.patience)
		return err
	}
	go c.supervise(server)
	return nil
}

// URL returns how to connect to a database of the cluster.
func (c *Cluster) URL(database string) string { return urlAt(c.layout.socketDir, database) }

func urlAt(socketDir, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(User),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {socketDir}, "port": {port}}.Encode(),
	}
	return u.String()
}

// RunningURL returns how to connect to a database of the cluster in dir that
// another process keeps running.
func RunningURL(dir, database string) (string, error) {
	l, err := newLayout(dir)
	if err != nil {
		return "", err
	}
	// The fifth line names the directory of the socket.
	text, err := os.ReadFile(filepath.Join(l.data, "postmaster.pid"))
	if err != nil {
		return "", fmt.Errorf("find the running PostgreSQL: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 5 || lines[4] == "" {
		return "", errors.New("find the running PostgreSQL: it is only starting")
	}
	return urlAt(lines[4], database), nil
}

// Done is closed when the server has ended for good: after Stop, or because it
// could not be kept running. Err then says which.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Err returns why the server could not be kept running; nil while it runs and
// after Stop.
func (c *Cluster) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Stop ends the server and returns when it is gone. It disconnects clients and
// writes everything to disk, for at most 30 s or until ctx ends; after that it
// ends the server at once, which leaves crash recovery to the next start.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stop()
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	case <-timeout.C:
	}
	c.losePatience()
	<-c.done
	return c.err
}

func (c *Cluster) ensureDatabase(ctx context.Context) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, Database).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, `CREATE DATABASE `+Database)
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", Database, err)
	}
	return nil
}

// connect reaches the database that every PostgreSQL has.
func (c *Cluster) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil && ctx.Err() == nil {
		err = errors.New(lastLines([]byte(err.Error()))) // the driver takes several
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the private PostgreSQL: %w", err)
	}
	return conn, nil
}
