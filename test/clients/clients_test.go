// Package clients makes clients from openapi.yaml, compiles them, and lets
// them talk to a real server.
package clients

import (
	"os/exec"
	"testing"

	"github.com/coderclaw/runtime/test/server"
)

// run runs a command in a directory and fails t if the command fails.
func run(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = server.Environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

const bin = "../../node_modules/.bin/"

func TestAGeneratedGoClientTalksToTheServer(t *testing.T) {
	t.Parallel()
	run(t, "go", "go", "generate", ".")
	run(t, "go", "go", "vet", ".")
	run(t, "go", "go", "run", ".", server.Start(t))
}

func TestAGeneratedTypeScriptClientTalksToTheServer(t *testing.T) {
	t.Parallel()
	run(t, "typescript", bin+"openapi-typescript", "../../../openapi.yaml", "--output", "schema.gen.ts")
	run(t, "typescript", bin+"tsc")
	run(t, "typescript", "node", "build/main.js", server.Start(t))
}
