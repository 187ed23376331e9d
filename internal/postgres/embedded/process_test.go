package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

// superviseVariable makes the test binary a program that runs the cluster in
// that directory until it is killed.
const superviseVariable = "EMBEDDED_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(superviseVariable); ok {
		_, err := embedded.Start(context.Background(), embedded.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		fmt.Println("started", err)
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestClusterOfAKilledSupervisorIsTakenOver(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	supervisor := supervise(t, dir)
	if err := supervisor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	supervisor.Wait()
	query(t, start(t, dir), `SELECT 1`)
}

func TestServerEndsWithItsSupervisor(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs a signal on the parent's death")
	}
	dir := newDir(t)
	supervisor := supervise(t, dir)
	pid := serverPID(t, dir)
	if err := supervisor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	supervisor.Wait()
	eventually(t, "the server is gone", func() bool {
		_, err := os.Stat(filepath.Join(dir, "postgres/data/postmaster.pid"))
		return os.IsNotExist(err) && !runs(pid)
	})
}

// A server that nobody supervises, as a killed supervisor leaves it where the
// parent's death sends no signal.
func TestServerLeftBehindIsStopped(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	stop(t, start(t, dir))

	bin, err := embedded.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "postgres")
	left := osexec.Command(filepath.Join(bin.BinDir, "postgres"), "-D", filepath.Join(home, "data"),
		"-c", "listen_addresses=", "-k", filepath.Join(home, "run"))
	left.Dir = home
	var stat syscall.Stat_t
	if err := syscall.Stat(home, &stat); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		left.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}
	}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	eventually(t, "the server left behind is ready", func() bool {
		text, _ := os.ReadFile(filepath.Join(home, "data/postmaster.pid"))
		return strings.Contains(string(text), "ready")
	})

	c := start(t, dir)
	query(t, c, `SELECT 1`)
	if err := <-ended; err != nil {
		t.Errorf("the server left behind ended with %v; want an orderly end", err)
	}
}

// Root runs the whole of it once more as a user who is not.
func TestClusterRunsAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests do")
	}
	const nobody = 65534
	dir := newDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	program := copyProgram(t, dir)
	cmd := osexec.CommandContext(t.Context(), program, "-test.v", "-test.run", "^(TestDataOutlivesARestart|TestClusterOfAKilledSupervisorIsTakenOver)$")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

// supervise starts a process that runs the cluster in dir.
func supervise(t *testing.T, dir string) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), superviseVariable+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "started <nil>\n" {
		t.Fatalf("the supervisor said %q, %v", line, err)
	}
	return cmd
}

// copyProgram puts the test binary where every user can run it. A child does,
// since a program that we have written to may be busy for a while.
func copyProgram(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "program")
	if out, err := osexec.Command("cp", os.Args[0], path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func runs(pid int) bool { return syscall.Kill(pid, 0) == nil }
