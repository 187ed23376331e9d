package embedded_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

func TestDataOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := start(t, dir)
	exec(t, c, `CREATE TABLE kept AS SELECT 42 AS answer`)
	stop(t, c)
	select {
	case <-c.Done():
	default:
		t.Error("Stop returned before the server was gone")
	}

	c = start(t, dir)
	if got := query(t, c, `SELECT answer FROM kept`); got != 42 {
		t.Errorf("read %d; want 42", got)
	}
	if got := query(t, c, `SELECT count(*) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes') AND setting = 'on'`); got != 3 {
		t.Errorf("%d of 3 settings for durability are on", got)
	}
	if got := query(t, c, `SELECT count(*) WHERE lower('ÄÉ') = 'äé' AND current_setting('listen_addresses') = ''`); got != 1 {
		t.Error("the cluster does not know letters, or listens on TCP")
	}
}

func TestServerThatIsKilledIsStartedAgain(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := start(t, dir)
	exec(t, c, `CREATE TABLE kept AS SELECT 42 AS answer`)
	old := serverPID(t, dir)
	kill(t, old)

	eventually(t, "another server answers", func() bool {
		conn, err := pgx.Connect(t.Context(), c.URL(embedded.Database))
		if err != nil {
			return false
		}
		return conn.Close(t.Context()) == nil && serverPID(t, dir) != old
	})
	if got := query(t, c, `SELECT answer FROM kept`); got != 42 {
		t.Errorf("read %d; want 42", got)
	}
}

func TestServerThatCannotBeKeptRunningIsGivenUp(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := start(t, dir)
	pid := serverPID(t, dir)
	if err := os.Remove(filepath.Join(dir, "postgres/data/global/pg_control")); err != nil {
		t.Fatal(err)
	}
	kill(t, pid)
	<-c.Done()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("Err() = %v; want what PostgreSQL said about pg_control", err)
	}
}

func TestSecondStartOnADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	start(t, dir)
	_, err := embedded.Start(t.Context(), options(dir))
	want := "data directory " + dir + " is in use by process " + strconv.Itoa(os.Getpid())
	if fault.CodeOf(err) != fault.Conflict || err.Error() != want {
		t.Errorf("Start = %v; want the conflict %q", err, want)
	}
}

func TestStopWithoutPatienceLeavesARecoverableCluster(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := start(t, dir)
	exec(t, c, `CREATE TABLE kept AS SELECT 42 AS answer`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	c = start(t, dir)
	if got := query(t, c, `SELECT answer FROM kept`); got != 42 {
		t.Errorf("read %d; want 42", got)
	}
}

func TestRemainsOfACrashAreNoHindrance(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	stop(t, start(t, dir))
	halfMade := filepath.Join(dir, "postgres/init-1")
	if err := os.MkdirAll(filepath.Join(halfMade, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(dir, "postgres/data/postmaster.pid")
	for name, pid := range map[string]int{
		"of no process":      1<<22 + 1,
		"of another process": os.Getpid(),
	} {
		t.Run("a pid file "+name, func(t *testing.T) {
			content := strconv.Itoa(pid) + "\n" + filepath.Dir(pidFile) + "\n1\n5432\n/none\n\n\nready\n"
			if err := os.WriteFile(pidFile, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			giveToServer(t, pidFile, dir)
			stop(t, start(t, dir))
		})
	}
	if _, err := os.Stat(halfMade); !os.IsNotExist(err) {
		t.Errorf("a cluster half made is still there: %v", err)
	}
}

func TestSocketOfALongDirectoryIsElsewhere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(newDir(t), strings.Repeat("long", 30))
	c := start(t, dir)
	query(t, c, `SELECT 1`)
	config, err := pgx.ParseConfig(c.URL(embedded.Database))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(config.Host, dir) {
		t.Errorf("the socket is in %s", config.Host)
	}
	stop(t, c)
	if _, err := os.Stat(config.Host); !os.IsNotExist(err) {
		t.Errorf("the socket's directory is left behind: %v", err)
	}
}

func TestDirectoryOutOfReachIsNamed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs PostgreSQL as another user")
	}
	private := filepath.Join(newDir(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), options(filepath.Join(private, "data")))
	if err == nil {
		t.Fatal("started in a directory that PostgreSQL's user cannot reach")
	}
	for _, want := range []string{"may not enter " + private, "CODERCLAW_DATA_DIR"} {
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Start = %q; want one line with %q", err, want)
		}
	}
}

func TestSettingThatIsWrongIsReported(t *testing.T) {
	t.Parallel()
	opts := options(newDir(t))
	opts.Settings["shared_buffers"] = "nonsense"
	_, err := embedded.Start(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Start = %v; want one line that names shared_buffers", err)
	}
}

// newDir returns a directory that PostgreSQL's user can reach, unlike those of
// t.TempDir.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "embedded")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func options(dir string) embedded.Options {
	return embedded.Options{
		Dir: dir,
		// Nothing outside dir, for a kill to leave behind.
		Settings: map[string]string{"dynamic_shared_memory_type": "mmap"},
		Log:      slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, dir string) *embedded.Cluster {
	t.Helper()
	c, err := embedded.Start(t.Context(), options(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(context.Background()) })
	return c
}

func stop(t *testing.T, c *embedded.Cluster) {
	t.Helper()
	if err := c.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, c *embedded.Cluster, sql string) {
	t.Helper()
	conn := connect(t, c)
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, c *embedded.Cluster, sql string) (n int) {
	t.Helper()
	conn := connect(t, c)
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func connect(t *testing.T, c *embedded.Cluster) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL(embedded.Database))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// serverPID returns the process that the pid file names.
func serverPID(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postgres/data/postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// giveToServer makes path belong to whom the cluster in dir belongs to.
func giveToServer(t *testing.T, path, dir string) {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "postgres"), &stat); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, int(stat.Uid), int(stat.Gid)); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come about: %s", what)
		}
	}
}
