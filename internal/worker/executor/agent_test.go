package executor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

// TestMain makes the test binary a command-line agent when its first argument
// is "agent".
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(agent(os.Args[2], os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

// agent is a program with a behaviour by name. It returns its exit status.
func agent(behaviour string, args []string) int {
	switch behaviour {
	case "say": // its arguments, a line each
		for _, a := range args {
			fmt.Println(a)
		}
	case "arguments": // as JSON
		json.NewEncoder(os.Stdout).Encode(args)
	case "print": // a file
		text, err := os.ReadFile(args[0])
		fmt.Print(string(text))
		if err != nil {
			return 1
		}
	case "stdin":
		io.Copy(os.Stdout, os.Stdin)
	case "environment":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "directory":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "session": // whether it is one of its own
		session, err := unix.Getsid(0)
		fmt.Println(session == os.Getpid(), err)
	case "fail":
		fmt.Println("on stdout")
		fmt.Fprint(os.Stderr, strings.Join(args[1:], "\n"))
		status, _ := strconv.Atoi(args[0])
		return status
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "report":
		fmt.Print(strings.Join(args, "\n"), "\n")
	case "long": // lines
		n, _ := strconv.Atoi(args[0])
		for range 3 {
			fmt.Println(strings.Repeat("語", n))
		}
		fmt.Print("the end without an end")
	case "flood":
		n, _ := strconv.Atoi(args[0])
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		for i := range n {
			fmt.Fprintf(w, "%d %s\n", i, strings.Repeat("x", 1000))
		}
		w.Flush()
	case "wait":
		fmt.Println("waiting", os.Getpid())
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("waiting", os.Getpid())
		time.Sleep(time.Hour)
	case "obedient":
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		fmt.Println("waiting", os.Getpid())
		<-asked
		fmt.Println("good bye")
	case "worker": // one that runs an agent that waits
		_, err := executor.NewProcess(os.TempDir(), 0).Run(context.Background(), job("wait"), printer{})
		panic(err)
	case "family": // itself and a child of some behaviour
		child := exec.Command(os.Args[0], append([]string{"agent"}, args...)...)
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Println("waiting", os.Getpid())
		child.Wait()
	case "acp": // an agent of the Agent Client Protocol
		return actACP(args)
	case "remember": // in a file, and ask
		if err := os.WriteFile("remembered.txt", []byte(args[0]+"\n"), 0o644); err != nil {
			panic(err)
		}
		fmt.Println(`::coderclaw {"ask": {"text": "Go on?"}}`)
	case "recall": // the file
		text, err := os.ReadFile("remembered.txt")
		fmt.Print(string(text), err)
	case "edit": // the repository that it is in, and leave traps for who looks
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		git := func(args ...string) {
			cmd := exec.Command("git", append([]string{"-c", "user.name=Agent", "-c", "user.email=agent@example.com"}, args...)...)
			cmd.Stderr = os.Stderr
			must(cmd.Run())
		}
		must(os.WriteFile("committed.txt", []byte("by the agent\n"), 0o644))
		git("add", "committed.txt")
		git("commit", "--quiet", "-m", "Add a file")
		must(os.WriteFile("README.md", []byte("changed\n"), 0o644))
		must(os.WriteFile("new.txt", []byte("new\n"), 0o644))
		must(os.WriteFile(".gitattributes", []byte("*.txt filter=trap diff=trap\n"), 0o644))
		for key, program := range map[string]string{"filter.trap.clean": "touch " + args[0] + "; cat", "diff.trap.textconv": "touch " + args[0], "diff.external": "touch " + args[0], "core.fsmonitor": "touch " + args[0]} {
			git("config", key, program)
		}
		must(os.MkdirAll("read-only/deep", 0o755))
		must(os.WriteFile("read-only/deep/file", nil, 0o444))
		must(os.Chmod("read-only/deep", 0o555))
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "grow": // for as long as it may
		file, err := os.Create("big")
		if err != nil {
			panic(err)
		}
		for {
			file.Write(make([]byte, 1<<20))
			time.Sleep(time.Millisecond)
		}
	case "leave": // a child behind that holds stdout open
		child := exec.Command(os.Args[0], "agent", "wait")
		child.Stdout = os.Stdout
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: args[0] == "away"}
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Println("left", child.Process.Pid)
	default:
		panic(behaviour)
	}
	return 0
}

// printer is a sink that prints what agents say.
type printer struct{ *counter }

func (printer) Log(_, line string) { fmt.Println(line) }

// listener is a sink that keeps what it is told.
type listener struct {
	mu    sync.Mutex
	said  []string
	heard chan string

	person func(context.Context, api.NewQuestion) (api.Question, error)
	state  func() string           // that the attempt can go on from
	hold   func(stop, goOn func()) // nil: nobody is held
	held   atomic.Int32            // how often Held is true
}

func newListener() *listener { return &listener{heard: make(chan string, 10_000)} }

func (l *listener) add(format string, args ...any) {
	l.mu.Lock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
	last := l.said[len(l.said)-1]
	l.mu.Unlock()
	select {
	case l.heard <- last:
	default: // nobody waits for it any more
	}
}

func (l *listener) Progress(percent int, message string) { l.add("%d%% %s", percent, message) }
func (l *listener) Output(text string)                   { l.add("output: %s", text) }
func (l *listener) Log(stream, line string)              { l.add("%s: %s", stream, line) }
func (l *listener) Note(message string, details any) {
	if details == nil {
		l.add("note: %s", message)
		return
	}
	data, _ := json.Marshal(details)
	l.add("note: %s %s", message, data)
}

// A listener asks whom it was given; without, nobody.
func (l *listener) Ask(ctx context.Context, q api.NewQuestion) (api.Question, error) {
	if l.person == nil {
		return api.Question{}, errors.ErrUnsupported
	}
	return l.person(ctx, q)
}

func (l *listener) Resumable(state func() string) { l.state = state }

func (l *listener) Artifact(_ context.Context, name, contentType string, content io.Reader) error {
	text, err := io.ReadAll(content)
	l.add("artifact %s (%s): %s", name, contentType, text)
	return err
}

func (l *listener) Used(source string, total api.Usage) {
	if source != "" {
		source = "session"
	}
	data, _ := json.Marshal(total)
	l.add("used by %q: %s", source, data)
}

func (l *listener) Hold(stop, goOn func()) (release func()) {
	if l.hold != nil {
		l.hold(stop, goOn)
	}
	return func() {}
}

func (l *listener) Held() bool { return l.held.Add(-1) >= 0 }

func (*listener) Authorize(context.Context, string, api.ToolCall) (bool, string, error) {
	return false, "", errors.ErrUnsupported
}

func (l *listener) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.said...)
}

// pid waits until an agent says "waiting" or "left" and returns the process
// that it names.
func (l *listener) pid(t *testing.T) int {
	t.Helper()
	for {
		select {
		case line := <-l.heard:
			if _, number, ok := strings.Cut(line, "waiting "); ok {
				pid, _ := strconv.Atoi(number)
				return pid
			}
			if _, number, ok := strings.Cut(line, "left "); ok {
				pid, _ := strconv.Atoi(number)
				return pid
			}
		case <-t.Context().Done():
			t.Fatal("the agent does not say that it waits")
		}
	}
}

// gone waits until the process is no more, or is a zombie that nobody waits for.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d still runs", pid)
}
