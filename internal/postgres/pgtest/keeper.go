package pgtest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

const (
	linger   = 30 * time.Second // how long an unused cluster waits for the next tests
	lookTime = 250 * time.Millisecond

	// memory is where the cluster goes if so many bytes are free there.
	memory     = "/dev/shm"
	roomEnough = 1 << 30
)

// settings trade what a test database does not need, its survival, for speed.
var settings = map[string]string{
	"fsync":              "off",
	"synchronous_commit": "off",
	"full_page_writes":   "off",
	"max_connections":    "300",
	"wal_level":          "minimal",
	"max_wal_senders":    "0",
	"max_wal_size":       "256MB",
	"timezone":           "Canada/Newfoundland",
	// Nothing outside the data, for a kill to leave behind.
	"dynamic_shared_memory_type": "mmap",
}

// A test binary that is started with the variable set is the keeper, before
// anything of the test itself runs.
func init() {
	dir, ok := os.LookupEnv(keeperVariable)
	if !ok {
		return
	}
	if err := keep(meeting{dir}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// keep runs the cluster until nobody needs it, and leaves no data behind.
func keep(m meeting) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var unused *os.File
	defer func() { unused.Close() }() // last: who comes meanwhile waits until all is gone
	lock, err := m.lock("keeper", syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return err
	}
	defer lock.Close()

	// Another TMPDIR means another keeper.
	dir := filepath.Join(roomiest(), fmt.Sprintf("%s-%08x", filepath.Base(m.dir), crc32.ChecksumIEEE([]byte(m.dir))))
	if err := ownDir(dir, 0o711); err != nil {
		return err
	}
	cluster, err := embedded.Start(ctx, embedded.Options{
		Dir:      dir,
		BinDir:   os.Getenv("CODERCLAW_POSTGRES_BIN"),
		Settings: settings,
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer func() { _ = cluster.Stop(context.Background()) }() // its data are thrown away
	if err := m.publish(cluster.URL("postgres")); err != nil {
		return err
	}
	defer os.Remove(m.path("url"))
	unused, err = m.waitUnused(ctx, cluster)
	return err
}

// publish lets the others know the URL, all of it at once.
func (m meeting) publish(url string) error {
	draft := m.path("url.draft")
	if err := os.WriteFile(draft, []byte(url), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, m.path("url"))
}

// waitUnused returns when the cluster has been unused for long enough, with
// the lock that keeps it so; or with an error when the cluster has ended or
// the keeper is told to.
func (m meeting) waitUnused(ctx context.Context, cluster *embedded.Cluster) (*os.File, error) {
	wait := linger
	if os.Getenv("CI") != "" {
		wait = 0
	}
	look := time.NewTicker(lookTime)
	defer look.Stop()
	for lastUse := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-cluster.Done():
			return nil, cluster.Err()
		case <-look.C:
		}
		lock, err := m.lock("users", syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			lastUse = time.Now()
			continue
		case err != nil:
			return nil, err
		case m.goRuns():
			lastUse = time.Now()
		case time.Since(lastUse) >= wait:
			return lock, nil
		}
		lock.Close()
	}
}

// roomiest returns the directory to keep the cluster in.
func roomiest() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && uint64(fs.Bavail)*uint64(fs.Bsize) >= roomEnough {
		return memory
	}
	return os.TempDir()
}
