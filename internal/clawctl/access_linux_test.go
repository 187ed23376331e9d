package clawctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asProgram makes the test binary the program, so that tests can start several.
const asProgram = "CLAWCTL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// waitsFor returns once the process has the file open.
func waitsFor(t *testing.T, pid int, path string) {
	t.Helper()
	for t.Context().Err() == nil {
		open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if slices.ContainsFunc(open, func(fd string) bool {
			target, err := os.Readlink(fd)
			return err == nil && target == path
		}) {
			return
		}
		runtime.Gosched()
	}
}

func TestOneOfSeveralProcessesRenewsASession(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	ann.succeeds(t, byPassword...)
	path := ann.keptFile(g)
	var kept credentials
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatal(err)
	}
	kept.TokenExpires = time.Now().Add(-time.Minute)
	if data, err = json.Marshal(kept); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// All are to find the token expired before the first can renew it.
	v := &vault{dir: filepath.Dir(path)}
	unlock, err := v.lock(t.Context(), g.URL)
	if err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(filepath.Dir(path), url.QueryEscape(g.URL)+".lock")
	type process struct {
		*exec.Cmd
		out bytes.Buffer
	}
	processes := make([]*process, 4)
	for i := range processes {
		p := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0], "whoami", "--url", g.URL)}
		p.Env = []string{asProgram + "=1", "HOME=" + ann.home, "XDG_CONFIG_HOME=" + filepath.Join(ann.home, ".config")}
		p.Stdout, p.Stderr = &p.out, &p.out
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		processes[i] = p
	}
	for _, p := range processes {
		waitsFor(t, p.Process.Pid, lock)
	}
	unlock()
	for _, p := range processes {
		if err := p.Wait(); err != nil || !strings.Contains(p.out.String(), "local:ann") {
			t.Errorf("%v: %s", err, p.out.String())
		}
	}
	if g.renewals != 1 {
		t.Errorf("the session was renewed %d times", g.renewals)
	}
}

func TestAPasswordIsTypedUnseen(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	ann := g.person(t)
	screen := newTerminal(t, 80)
	ann.terminal = screen.File
	code := make(chan int)
	go func() { code <- ann.start(t, screen.File, screen.File, "login") }()
	screen.until(t, `^Login: $`)
	screen.types(t, "ann\n")
	screen.until(t, `\nPassword: $`)
	screen.types(t, "correct horse\n")
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
	if got, want := screen.end(), "Login: ann\nPassword: \nLogged in as local:ann in project web until 2026-11-23T21:00:00Z\n"; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

func TestCtrlCAtAPasswordRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	screen := newTerminal(t, 80)
	p := exec.CommandContext(t.Context(), os.Args[0], "login", "--user", "ann", "--url", "http://127.0.0.1:1")
	p.Env = []string{asProgram + "=1", "HOME=" + t.TempDir()}
	p.Stdin, p.Stdout, p.Stderr = screen.File, screen.File, screen.File
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	screen.until(t, `^Password: $`)
	screen.hides(t, true)
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); p.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("got %v", err)
	}
	screen.hides(t, false)
}

// hides waits until the terminal does, or does not, hide what is typed.
func (v *terminal) hides(t *testing.T, want bool) {
	t.Helper()
	for t.Context().Err() == nil {
		mode, err := unix.IoctlGetTermios(int(v.File.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if (mode.Lflag&unix.ECHO == 0) == want {
			return
		}
		runtime.Gosched()
	}
}

func TestTheTerminalGetsNoSequenceOfAPerson(t *testing.T) {
	t.Parallel()
	h, _ := office(records(evil))
	in := serve(t, h)
	in.env["NO_COLOR"] = "1"
	in.stdin = "hush\n"
	for _, tc := range commands {
		screen := newTerminal(t, 200)
		if got := in.start(t, screen.File, screen.File, strings.Fields(tc.args)...); got != exitOK {
			t.Errorf("%s: exit code %d", tc.args, got)
		}
		screen.end()
		if left := strings.ReplaceAll(screen.raw.String(), "\r\n", "\n"); strings.ContainsFunc(left, isUnsafe) {
			t.Errorf("%s printed %q", tc.args, left)
		}
	}
}
