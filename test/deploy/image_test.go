package deploy

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfile returns the stages of the Dockerfile, and fails t where Docker
// would complain about it.
func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range parsed.Warnings {
		t.Errorf("Dockerfile: %s", w.Short)
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{
		Warn: func(rule, _, _, message string, _ []parser.Range) { t.Errorf("Dockerfile: %s: %s", rule, message) },
	}))
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func TestTheImageRunsOneBinaryAsNobodyInParticular(t *testing.T) {
	t.Parallel()
	stages := dockerfile(t)
	image := stages[len(stages)-1]
	if image.BaseName != "scratch" {
		t.Errorf("the image is built on %s", image.BaseName)
	}
	var user, entrypoint, health, ports string
	for _, command := range image.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			entrypoint = strings.Join(c.CmdLine, " ")
		case *instructions.HealthCheckCommand:
			health = strings.Join(c.Health.Test, " ")
		case *instructions.ExposeCommand:
			ports = strings.Join(c.Ports, " ")
		}
	}
	if user != "65532:65532" || entrypoint != "coderclawd" || health != "CMD coderclawd healthcheck" || ports != "7433" {
		t.Errorf("user %q, entrypoint %q, health check %q, ports %q", user, entrypoint, health, ports)
	}
}

// The build context is what .dockerignore lets through. It must be enough for
// the build, and the version must arrive.
func TestTheImageCanBeBuiltFromWhatDockerIsSent(t *testing.T) {
	t.Parallel()
	const setVersion = "-X github.com/coderclaw/runtime/internal/app.version="
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), setVersion+"$VERSION") {
		t.Errorf("the Dockerfile does not build with %s", setVersion)
	}
	out := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w "+setVersion+"1.2.3",
		"-o", out+"/", "./cmd/coderclawd", "./cmd/clawctl")
	build.Dir = buildContext(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	version, err := exec.CommandContext(t.Context(), filepath.Join(out, "coderclawd"), "--version").Output()
	if err != nil || !strings.Contains(string(version), "1.2.3") {
		t.Errorf("coderclawd --version: %v, %q", err, version)
	}
}

// buildContext returns a directory with what .dockerignore leaves of the repository.
// It understands what stands there: nothing but what is named, less the tests.
func buildContext(t *testing.T) string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sent := t.TempDir()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		switch name, named := strings.CutPrefix(lines.Text(), "!"); {
		case named:
			copyTree(t, filepath.Join(root, name), filepath.Join(sent, name))
		case !slices.Contains([]string{"", "*", "**/*_test.go"}, name) && !strings.HasPrefix(name, "#"):
			t.Fatalf(".dockerignore: what does %s leave?", name)
		}
	}
	return sent
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, "_test.go") {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
