package clawbench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/internal/app"
)

// collect is what a server is told on its standard input to let go of memory
// that it does not use; it answers with the same line.
const collect = "collect"

// programCommand is a command of coderclawd under the hand of another process:
// it ends with its standard input, so that it never outlives that process.
func programCommand(name, command string, stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use: name, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if profile != "" {
				stop, err := profileCPU(profile)
				if err != nil {
					return err
				}
				defer stop()
			}
			go func() {
				defer cancel()
				if err := obey(stdin, stdout, profile); err != nil {
					fmt.Fprintf(stderr, "clawbench: %v\n", err)
				}
			}()
			return app.Main(ctx, []string{command}, stderr, stderr)
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "")
	return cmd
}

// obey does what is asked for, line by line.
func obey(stdin io.Reader, stdout io.Writer, profile string) error {
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		if err := collectGarbage(profile); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(stdout, lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func profileCPU(dir string) (stop func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close() // a profile that is cut short says so when it is read
	}, nil
}

// collectGarbage writes a profile of what remains, if asked for.
func collectGarbage(profile string) error {
	for range 3 { // a collection halves a goroutine's stack at most
		runtime.GC()
	}
	debug.FreeOSMemory()
	if profile == "" {
		return nil
	}
	file, err := os.Create(filepath.Join(profile, "heap.pprof"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(file, 0), file.Close())
}

// process is a server, or a worker, that we have started.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	dir    string
	exited chan struct{}
	err    error // once exited is closed
}

// startProcess starts this program again, as what a hidden command names, with
// its files in dir.
func startProcess(name, dir string, own map[string]string, profile string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: exec.Command(self, name), dir: dir, exited: make(chan struct{})}
	if profile != "" {
		if profile, err = filepath.Abs(profile); err != nil {
			return nil, err
		}
		p.cmd.Args = append(p.cmd.Args, "--profile", profile)
	}
	log, err := os.Create(p.log())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = dir, environment(own), log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// startServer starts a server on the database that serves no agents itself:
// workers of ours do.
func startServer(dir, database, profile string) (*process, error) {
	own := map[string]string{
		"CODERCLAW_LISTEN":               "127.0.0.1:0",
		"CODERCLAW_METRICS_LISTEN":       "",
		"CODERCLAW_DATABASE_URL":         database,
		"CODERCLAW_DATABASE_URL_FILE":    "",
		"CODERCLAW_EMBEDDED_POSTGRES":    "",
		"CODERCLAW_MAX_CONCURRENT_TASKS": "0",
		"CODERCLAW_CONFIG_DIR":           filepath.Join(dir, "server", "config"),
		"CODERCLAW_DATA_DIR":             filepath.Join(dir, "server", "data"),
		"CODERCLAW_WORKSPACE_ROOT":       dir,
	}
	if os.Getenv("CODERCLAW_TOKEN") == "" {
		own["CODERCLAW_TOKEN"] = ownToken
	}
	return startProcess("server", dir, own, profile)
}

// ownToken is the operator's token of the servers that we start, which listen
// on this machine alone.
const ownToken = "clawbench-is-the-operator"

// environment is ours, except for own.
func environment(own map[string]string) []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, set := own[name]; !set {
			env = append(env, entry)
		}
	}
	for name, value := range own {
		env = append(env, name+"="+value)
	}
	return env
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) log() string { return filepath.Join(p.dir, p.name+".log") }

// address returns where the server listens, as soon as it is ready.
func (p *process) address(ctx context.Context) (string, error) {
	for {
		var said struct {
			URL string
			PID int
		}
		text, err := os.ReadFile(filepath.Join(p.dir, "server", "server.json"))
		if err == nil && json.Unmarshal(text, &said) == nil && said.PID == p.pid() {
			return said.URL, nil
		}
		select {
		case <-p.exited:
			return "", fmt.Errorf("the %s ended: %s", p.name, p.lastWords())
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// lastWords returns the end of its log.
func (p *process) lastWords() string {
	const most = 2000
	text, _ := os.ReadFile(p.log()) // without it there is still how it ended
	text = bytes.TrimSpace(text)
	return fmt.Sprintf("%v: %s", p.err, text[max(0, len(text)-most):])
}

// stop ends it in good order.
func (p *process) stop(ctx context.Context) error {
	if p.ended() {
		return nil // whoever missed it has said so
	}
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	_ = p.stdin.Close()
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("stop the %s: %s", p.name, p.lastWords())
		}
		return nil
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("the %s did not stop and was killed", p.name)
	}
}

// collectGarbage makes the server let go of memory that it does not use.
func (p *process) collectGarbage() error {
	if _, err := fmt.Fprintln(p.stdin, collect); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	if _, err := p.stdout.ReadString('\n'); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// kill ends it at once, as a failing machine does.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill the %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}
