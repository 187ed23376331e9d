package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// userVariable makes the test binary a program that uses the shared cluster
// until its input ends.
const userVariable = "PGTEST_TEST_USER"

func TestMain(m *testing.M) {
	if os.Getenv(userVariable) != "" {
		url, err := joinCluster(context.Background())
		fmt.Println(url, err)
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m) // what leaks here would in every other package
}

func TestClusterIsSharedAndEndsWithItsLastUser(t *testing.T) {
	t.Parallel()
	place := newPlace(t)
	first, second := newUser(t, place), newUser(t, place)
	if a, b := first.url(t), second.url(t); a != b {
		t.Errorf("two users at once have the clusters %s and %s", a, b)
	}
	dir := clusterDir(t, second.address)
	first.process.Process.Kill()
	first.process.Wait()
	query(t, second.address)

	second.input.Close()
	second.process.Wait()
	eventually(t, "the cluster and its data are gone", func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
	query(t, newUser(t, place).url(t))
}

func TestKilledKeeperIsReplaced(t *testing.T) {
	t.Parallel()
	place := newPlace(t)
	first := newUser(t, place)
	dir := clusterDir(t, first.url(t))
	text, err := os.ReadFile(filepath.Join(dir, "postgres.lock"))
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	query(t, newUser(t, place).url(t))
}

// newPlace returns a directory for the processes to meet in, apart from other
// tests'.
func newPlace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		eventually(t, "all keepers are gone", func() bool {
			locks, _ := filepath.Glob(filepath.Join(dir, "*", "keeper"))
			for _, path := range locks {
				lock, err := meeting{filepath.Dir(path)}.lock("keeper", syscall.LOCK_EX|syscall.LOCK_NB)
				if err != nil {
					return false
				}
				lock.Close()
			}
			return true
		})
	})
	return dir
}

// user is another process that uses the cluster of a place.
type user struct {
	process *exec.Cmd
	input   io.Closer
	output  *bufio.Reader
	address string
}

func newUser(t *testing.T, place string) *user {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), userVariable+"=1", "TMPDIR="+place, "CI=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		cmd.Wait()
	})
	return &user{process: cmd, input: input, output: bufio.NewReader(output)}
}

// url waits until the process has joined the cluster.
func (u *user) url(t *testing.T) string {
	t.Helper()
	line, err := u.output.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address, ok := strings.CutSuffix(line, " <nil>\n")
	if !ok {
		t.Fatalf("a user of the cluster says: %s", line)
	}
	u.address = address
	return address
}

// clusterDir returns where the cluster keeps everything.
func clusterDir(t *testing.T, address string) string {
	t.Helper()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(config.Host))
}

func query(t *testing.T, address string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `SELECT 1`); err != nil {
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
