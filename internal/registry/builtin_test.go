package registry_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/registry"
)

func TestBuiltInAgentsAreComplete(t *testing.T) {
	t.Parallel()
	agents, err := newRegistry(t).Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, a := range agents {
		ids = append(ids, a.ID)
		if a.Name == "" || a.Description == "" || len(a.Capabilities) == 0 || len(a.Skills) == 0 || a.Source != registry.SourceBuiltin {
			t.Errorf("%s is incomplete: %+v", a.ID, a)
		}
		if a.Executor == registry.ExecutorOpenAI && strings.Count(a.SystemPrompt, "\n") < 8 {
			t.Errorf("%s tells its model little: %q", a.ID, a.SystemPrompt)
		}
	}
	if want := []string{
		"architecture-advisor", "bug-analyzer", "code-creator", "code-modifier", "code-reviewer",
		"codebase-survey", "documentation-agent", "general-purpose", "refactor-agent", "test-generator",
	}; !slices.Equal(ids, want) {
		t.Errorf("got %v", ids)
	}
}

func TestBuiltInSkillsAreThoseThatAgentsName(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	agents, err := r.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	skills, err := r.Skills(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids, named []string
	for _, s := range skills {
		ids = append(ids, s.ID)
		if s.Name == "" || s.Description == "" || s.Version == "" || !s.Enabled ||
			!slices.Equal(s.RequiredPermissions, []string{"skill:execute"}) || s.Dangerous != (s.ID == "shell-exec") {
			t.Errorf("%+v", s)
		}
		if got, err := r.Skill(t.Context(), s.ID); err != nil || got.Description != s.Description {
			t.Errorf("skill %s: %+v, %v", s.ID, got, err)
		}
	}
	for _, a := range agents {
		named = append(named, a.Skills...)
	}
	slices.Sort(named)
	if named = slices.Compact(named); !slices.Equal(ids, named) {
		t.Errorf("there are %v, and agents name %v", ids, named)
	}
	if _, err := r.Skill(t.Context(), "teleport"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("an unknown skill: %v", err)
	}
}

func load(t *testing.T, text string) ([]registry.Agent, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("agents.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return registry.LoadAgents("agents.yaml")
}

func TestLoadAgentsReadsEveryKey(t *testing.T) {
	agents, err := load(t, `
agents:
  - id: aider
    name: Aider
    description: A command-line agent.
    capabilities: [code-modification]
    skills: [file-read, file-write]
    systemPrompt: |
      Be brief.
    model: sonnet
    thinking: low
    executor: process
    process:
      command: [aider, --yes, --message, "{{input}}"]
      input: none
      directory: service
      environment: [ANTHROPIC_API_KEY]
  - {id: plain, description: As short as it gets., executor: process, process: {command: [cat]}}
  - {id: gemini, description: By the protocol., executor: acp, process: {command: [gemini, --experimental-acp]}}
  - {id: service, description: Over there., executor: http, http: {url: "http://10.0.0.1:8080/run", secretFile: /run/secrets/agent}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(agents) != 4 {
		t.Fatalf("read %d agents", len(agents))
	}
	a, p := agents[0], agents[1]
	if a.ID != "aider" || a.Name != "Aider" || a.Description != "A command-line agent." || a.SystemPrompt != "Be brief.\n" ||
		a.Model != "sonnet" || a.Thinking != registry.ThinkingLow || a.Executor != registry.ExecutorProcess ||
		a.Source != registry.SourceFile || !slices.Equal(a.Capabilities, []string{"code-modification"}) ||
		!slices.Equal(a.Skills, []string{"file-read", "file-write"}) {
		t.Errorf("got %+v", a)
	}
	if pr := a.Process; !slices.Equal(pr.Command, []string{"aider", "--yes", "--message", "{{input}}"}) || pr.Input != registry.InputNone ||
		pr.Directory != "service" || !slices.Equal(pr.Environment, []string{"ANTHROPIC_API_KEY"}) {
		t.Errorf("got %+v", pr)
	}
	if p.Name != "plain" || p.Process.Input != registry.InputStdin {
		t.Errorf("defaults are not filled in: %+v, %+v", p, p.Process)
	}
	if g := agents[2]; g.Executor != registry.ExecutorACP || g.Process.Input != "" || len(g.Process.Command) != 2 {
		t.Errorf("got %+v, %+v", g, g.Process)
	}
	if h := agents[3]; h.Executor != registry.ExecutorHTTP || *h.HTTP != (registry.HTTP{URL: "http://10.0.0.1:8080/run", SecretFile: "/run/secrets/agent"}) {
		t.Errorf("got %+v, %+v", h, h.HTTP)
	}
}

func TestLoadAgentsNamesEveryFaultWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key": {
			"agents:\n  - id: a\n    prompt: x\n",
			`agents.yaml:3:5: unknown key "prompt"; known here: capabilities, description, executor, http, id, model, name, process, skills, systemPrompt, thinking`,
		},
		"a value of the wrong type": {
			"agents:\n  - id: a\n    description: 3\n    executor: openai\n",
			"agents.yaml:3:18: description must be text; put 3 in quotes",
		},
		"nothing given": {
			"agents:\n  - {}\n",
			`agents.yaml:2:5: id must be 1 to 128 of a-z, 0-9, '.', '_' and '-', the first a letter or digit
agents.yaml:2:5: description must not be empty
agents.yaml:2:5: executor must be one of process, acp, http, openai, builtin`,
		},
		"faulty values": {
			`agents:
  - id: Shouting
    description: x
    skills: [file-read, teleport]
    thinking: maximal
    executor: magic
  - id: b
    description: x
    executor: process
  - id: c
    description: x
    executor: openai
    process:
      command: [cat]
`,
			`agents.yaml:2:9: id must be 1 to 128 of a-z, 0-9, '.', '_' and '-', the first a letter or digit
agents.yaml:4:25: skills[1] names no known skill: "teleport"
agents.yaml:5:15: thinking must be one of off, minimal, low, medium, high
agents.yaml:6:15: executor must be one of process, acp, http, openai, builtin
agents.yaml:7:5: process is missing: executor process needs its command
agents.yaml:14:7: process is for executors process and acp only`,
		},
		"faulty processes": {
			`agents:
  - id: a
    description: x
    executor: process
    process:
      command: ["{{input}}"]
      input: pipe
      directory: ../elsewhere
      environment: [HOME=/root, CODERCLAW_TOKEN]
  - id: b
    description: x
    executor: process
    process: {command: []}
  - id: c
    description: x
    executor: acp
    process:
      command: [gemini]
      input: stdin
  - id: d
    description: x
    executor: acp
`,
			`agents.yaml:6:17: process.command[0] must not hold a placeholder: the task would choose the program
agents.yaml:7:14: process.input must be one of stdin, argument, none
agents.yaml:8:18: process.directory must be a path relative to the workspace root and within it
agents.yaml:9:21: process.environment[0] must be the name of an environment variable, without a value
agents.yaml:9:33: process.environment[1] must not name a setting of the runtime
agents.yaml:13:24: process.command must name a program
agents.yaml:19:14: process.input is for executor process only: an acp agent gets its task by the protocol
agents.yaml:20:5: process is missing: executor acp needs its command`,
		},
		"an id twice": {
			"agents:\n  - {id: a, description: x, executor: openai}\n  - {id: a, description: y, executor: openai}\n",
			"agents.yaml:3:10: id a is defined twice",
		},
		"a file too large": {
			strings.Repeat("#", 256<<10+1),
			"agents.yaml:1:1: the file is larger than 262144 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, c.text); err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestLoadAgentsNeedsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if agents, err := registry.LoadAgents(filepath.Join(dir, "agents.yaml")); err != nil || len(agents) > 0 {
		t.Errorf("no file: %v, %v", agents, err)
	}
	if _, err := registry.LoadAgents(dir); err == nil {
		t.Error("a directory was taken for a file")
	}
}
