// Package server runs the real coderclawd for the tests of what talks to it:
// the built binary, with a home directory and a private PostgreSQL of its own.
package server

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopTimeout is how long a server that is told to stop may take.
const stopTimeout = time.Minute

// Root is the root of the repository, from the directory of any test here.
const Root = "../.."

// Settings are what a server is started with besides what every one has.
type Settings struct {
	Command     string // "dev" if empty
	Environment []string
	Files       map[string]string // of the configuration directory, by name
}

// Start runs coderclawd and returns its address once it answers. When t
// ends the server is told to stop, and t fails if it does not do so cleanly.
func Start(t *testing.T) (url string) { return StartWith(t, Settings{}) }

// StartWith is Start with settings.
func StartWith(t *testing.T, s Settings) (url string) {
	t.Helper()
	workspace, err := filepath.Abs(Root)
	if err != nil {
		t.Fatal(err)
	}
	home := directory(t)
	for name, text := range s.Files {
		path := filepath.Join(home, ".coderclaw", ".coderClaw", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(Build(t, home, "coderclawd"), cmp.Or(s.Command, "dev"))
	cmd.Env = append(Environment(),
		"HOME="+home,
		"CODERCLAW_DATA_DIR="+filepath.Join(home, "data"),
		"CODERCLAW_LISTEN=127.0.0.1:0",
		"CODERCLAW_LOG_FORMAT=json",
		"CODERCLAW_WORKSPACE_ROOT="+workspace,
	)
	cmd.Env = append(cmd.Env, s.Environment...)
	cmd.SysProcAttr = endWithParent()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	var log strings.Builder // written by the reader, read after it has ended
	address := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(io.TeeReader(stderr, &log))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "serving" {
				address <- entry.URL
			}
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		kill := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() })
		<-ended
		err := cmd.Wait()
		if !kill.Stop() || err != nil {
			t.Errorf("coderclawd did not stop cleanly: %v", err)
		}
		if t.Failed() {
			t.Logf("coderclawd wrote:\n%s", log.String())
		}
	})
	select {
	case url = <-address:
		return url
	case <-ended:
		t.Fatal("coderclawd ended before it served")
		return ""
	}
}

// Build builds one of the programs into a directory.
func Build(t *testing.T, dir, program string) (binary string) {
	t.Helper()
	binary = filepath.Join(dir, program)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/"+program)
	cmd.Dir = Root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return binary
}

// Environment is this process's environment without settings of ours.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "CODERCLAW_") })
}

// directory returns a directory that is deleted when t ends. Unlike those of
// t.TempDir, it can be reached by the user that PostgreSQL runs as.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "coderclaw-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}
