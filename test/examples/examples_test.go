// Package examples runs the examples as their READMEs say, against a real
// server, and looks at what they print.
package examples

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/test/server"
)

// languages are the forms of each example, with the command that runs it.
var languages = map[string]func(example string) []string{
	"shell":      func(example string) []string { return []string{"examples/" + example + "/main.sh"} },
	"Go":         func(example string) []string { return []string{"go", "run", "./examples/" + example} },
	"TypeScript": func(example string) []string { return []string{tsx, "examples/" + example + "/main.ts"} },
}

const tsx = "test/node_modules/.bin/tsx"

// run runs an example and returns what it printed.
func run(t *testing.T, command []string, environment ...string) (stdout string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = server.Root
	cmd.Env = append(server.Environment(), environment...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err = cmd.Run()
	if messages.Len() > 0 {
		t.Logf("%s wrote to its standard error:\n%s", strings.Join(command, " "), messages.String())
	}
	return out.String(), err
}

var id = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b`)

func TestTaskLifecycleShowsEveryStep(t *testing.T) {
	t.Parallel()
	url := server.Start(t)
	want, err := os.ReadFile(filepath.Join("testdata", "task-lifecycle.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, command("task-lifecycle"), "CODERCLAW_URL="+url)
			if got := id.ReplaceAllString(out, "ID"); err != nil || got != string(want) {
				t.Errorf("%v, printed:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

var basic = regexp.MustCompile(`\ARuntime: mode local-only, version \S+, \d+ active of \d+ tasks
Task submitted: ` + id.String() + `
Status: pending, Progress: 0%
Status: planning, Progress: 0%
(Status: running, Progress: \d+%
)+Status: completed, Progress: 100%
Current status: completed
Available agents: ([a-z-]+, )*architecture-advisor(, [a-z-]+)*
Available skills: ([a-z-]+, )*file-read(, [a-z-]+)*

# (.*\n)+## (.*\n)+\z`)

func TestBasicTaskSubmissionFollowsATaskToItsReport(t *testing.T) {
	t.Parallel()
	url := server.Start(t)
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, command("basic-task-submission"), "CODERCLAW_URL="+url)
			if err != nil || !basic.MatchString(out) {
				t.Errorf("%v, printed:\n%s\nwhich does not match:\n%s", err, out, basic)
			}
		})
	}
}

func TestSecurityChecksAskBeforeTheyAct(t *testing.T) {
	t.Parallel()
	const token, password = "the-operators-token-of-this-test", "correct horse battery staple"
	url := server.StartWith(t, server.Settings{Environment: []string{"CODERCLAW_REQUIRE_AUTH=true", "CODERCLAW_TOKEN=" + token}})
	for path, body := range map[string]string{
		"/v1/users":         `{"login":"ann","password":"` + password + `"}`,
		"/v1/role-bindings": `{"userId":"local:ann","role":"developer"}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("POST %s: %s", path, resp.Status)
		}
	}
	want, err := os.ReadFile(filepath.Join("testdata", "security-checks.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, command("security-checks"), "CODERCLAW_URL="+url, "CLAW_USER=ann", "CLAW_PASSWORD="+password)
			if got := id.ReplaceAllString(out, "ID"); err != nil || got != string(want) {
				t.Errorf("%v, printed:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

// developers stand in for the agents that need a model.
const developers = `agents:
  - {id: code-creator, description: writes code, executor: process, process: {command: [sh, -c, "echo code for $(cat)"]}}
  - {id: test-generator, description: writes tests, executor: process, process: {command: [sh, -c, "%s"]}}
`

func TestMultiTaskWorkflowRunsEachPartOnceWhatItNeedsIsThere(t *testing.T) {
	t.Parallel()
	url := server.StartWith(t, server.Settings{Files: map[string]string{"agents.yaml": fmt.Sprintf(developers, "echo tests for $(cat)")}})
	want, err := os.ReadFile(filepath.Join("testdata", "multi-task-workflow.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, command("multi-task-workflow"), "CODERCLAW_URL="+url)
			if got := id.ReplaceAllString(out, "ID"); err != nil || got != string(want) {
				t.Errorf("%v, printed:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

func TestMultiTaskWorkflowFailsWithAPart(t *testing.T) {
	t.Parallel()
	url := server.StartWith(t, server.Settings{Files: map[string]string{"agents.yaml": fmt.Sprintf(developers, "echo no framework >&2; exit 1")}})
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, command("multi-task-workflow"), "CODERCLAW_URL="+url)
			if err == nil || !strings.HasSuffix(out, "\n  Implement code: completed by code-creator\n  Write tests: failed by test-generator\n") {
				t.Errorf("%v, printed:\n%s", err, out)
			}
		})
	}
}

func TestExamplesFailWhereNoServerAnswers(t *testing.T) {
	t.Parallel()
	for language, command := range languages {
		for _, example := range []string{"basic-task-submission", "multi-task-workflow", "security-checks", "task-lifecycle"} {
			t.Run(language+" "+example, func(t *testing.T) {
				t.Parallel()
				out, err := run(t, command(example), "CODERCLAW_URL=http://127.0.0.1:1", "CLAW_USER=ann", "CLAW_PASSWORD=x")
				if err == nil || out != "" {
					t.Errorf("%v, printed:\n%s", err, out)
				}
			})
		}
	}
}

func TestTypeScriptExamplesAreWellTyped(t *testing.T) {
	t.Parallel()
	if out, err := run(t, []string{"test/node_modules/.bin/tsc", "--project", "examples"}); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
