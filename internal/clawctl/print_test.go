package clawctl

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/coderclaw/runtime/api"
)

func stockedServer(t *testing.T) *fakeServer {
	s := newServer(t)
	started, ended, ten := now.Add(-80*time.Second), now.Add(-20*time.Second), 10
	s.status = api.Status{Version: "1.2.3", Uptime: 3725.5, ActiveTasks: 2, TotalTasks: 14, Mode: "local-only", Healthy: true}
	s.tasks = []api.Task{
		{ID: otherID, Status: api.TaskWaiting, WaitingReason: api.WaitingApproval, Progress: 40, AgentID: "code-creator", Description: "Add a login " + evil + "\nand more", Input: "Add a login " + evil + "\nand more",
			UserID: "local", Dispatch: api.DispatchManual, Priority: 5, Attempt: 2, MaxAttempts: 3, Labels: map[string]string{"team": "platform", "env": "ci"}, Metadata: json.RawMessage(`{"path":"."}`), CreatedAt: now.Add(-3 * time.Hour)},
		{ID: taskID, Status: api.TaskCompleted, Progress: 100, AgentID: "architecture-advisor", Description: "Analyze project architecture", Input: "Review it\nthoroughly", UserID: "local", Dispatch: api.DispatchAuto, MaxAttempts: 1,
			Output: "# Report\n\nThree layers,\n  one cycle.\n" + evil, CreatedAt: now.Add(-90 * time.Second), StartedAt: &started, CompletedAt: &ended},
	}
	s.events = []api.Event{
		{Type: api.EventStatus, TaskID: taskID, Seq: 1, Status: api.TaskPending, Timestamp: now, Message: "submitted"},
		{Type: api.EventProgress, TaskID: taskID, Seq: 2, Status: api.TaskRunning, Timestamp: now.Add(time.Second), Progress: &ten, Message: "reading " + evil},
		{Type: api.EventStatus, TaskID: taskID, Seq: 3, Status: api.TaskCompleted, Timestamp: now.Add(time.Minute)},
	}
	s.agents = []api.Agent{
		{ID: "architecture-advisor", Name: "Architecture advisor", Description: "Reads a codebase and says how it is built", Capabilities: []string{"analysis", "design"}, Skills: []string{"file-read"}, SystemPrompt: "You read code.\nYou explain it.", Executor: api.ExecutorBuiltin, Source: api.SourceBuiltin, Available: true},
		{ID: "code-creator", Description: "Writes code", Executor: api.ExecutorOpenAI, Source: api.SourceBuiltin, Unavailable: "set CODERCLAW_LLM_BASE_URL"},
	}
	s.skills = []api.Skill{{ID: "shell-exec", Name: "Shell", Description: "Runs commands", Version: "1.0.0", Dangerous: true, RequiredPermissions: []string{"skill:execute"}, Enabled: true}}
	return s
}

func TestTables(t *testing.T) {
	t.Parallel()
	s := stockedServer(t)
	for args, want := range map[string]string{
		"status": lines(
			"Server:  "+s.url,
			"Health:  healthy",
			"Version: 1.2.3",
			"Mode:    local-only",
			"Up for:  1h2m5s",
			"Tasks:   2 active, 14 in all"),
		"agents": lines(
			"ID                    AVAILABLE  EXECUTOR  SOURCE   DESCRIPTION",
			"architecture-advisor  yes        builtin   builtin  Reads a codebase and says how it is built",
			"code-creator          no         openai    builtin  Writes code"),
		"agents get architecture-advisor": lines(
			"Agent:        architecture-advisor",
			"Name:         Architecture advisor",
			"Description:  Reads a codebase and says how it is built",
			"Available:    yes",
			"Executor:     builtin",
			"Source:       builtin",
			"Capabilities: analysis, design",
			"Skills:       file-read",
			"",
			"System prompt:",
			"You read code.",
			"You explain it."),
		"skills list": lines(
			"ID          VERSION  ENABLED  DANGEROUS  DESCRIPTION",
			"shell-exec  1.0.0    yes      yes        Runs commands"),
		"skills get shell-exec": lines(
			"Skill:                shell-exec",
			"Name:                 Shell",
			"Description:          Runs commands",
			"Version:              1.0.0",
			"Enabled:              yes",
			"Dangerous:            yes",
			"Required permissions: skill:execute"),
		"tasks list": lines(
			"ID                                    STATUS     PROGRESS  AGENT                 AGE  DESCRIPTION",
			otherID+"  waiting    40%       code-creator          3h   Add a login "+tame+" and more",
			taskID+"  completed  100%      architecture-advisor  1m   Analyze project architecture"),
		"tasks get " + otherID: lines(
			"Task:         "+otherID,
			"Description:  Add a login "+tame+" and more",
			"Status:       waiting (approval), 40%",
			"Agent:        code-creator",
			"Submitted by: local",
			"Labels:       env=ci, team=platform",
			`Metadata:     {"path":"."}`,
			"Dispatch:     manual",
			"Priority:     5",
			"Attempt:      2 of 3",
			"Submitted:    2026-11-23T06:00:00Z (3h ago)"),
		"tasks get " + taskID: lines(
			"Task:         "+taskID,
			"Description:  Analyze project architecture",
			"Status:       completed",
			"Agent:        architecture-advisor",
			"Submitted by: local",
			"Submitted:    2026-11-23T08:58:30Z (1m ago)",
			"Started:      2026-11-23T08:58:40Z (1m ago)",
			"Ended:        2026-11-23T08:59:40Z (20s ago)",
			"",
			"Input:",
			"Review it",
			"thoroughly",
			"",
			"Output:",
			"# Report",
			"",
			"Three layers,",
			"  one cycle.",
			tame),
		"tasks events " + taskID: lines(
			"SEQ  TIME                 TYPE      STATUS     PROGRESS  MESSAGE",
			"1    2026-11-23 09:00:00  status    pending              submitted",
			"2    2026-11-23 09:00:01  progress  running    10%       reading "+tame,
			"3    2026-11-23 09:01:00  status    completed"),
		"tasks cancel " + otherID: lines(otherID + " cancelled"),
	} {
		got := s.run(t, strings.Fields(args)...)
		if got.code != exitOK || got.stdout != want || got.stderr != "" {
			t.Errorf("%s: %d\n%s%s\nwant\n%s", args, got.code, got.stdout, got.stderr, want)
		}
	}
}

func TestAnUnhealthyServerIsAFailure(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if got := s.run(t, "status"); got.code != exitFailed || !strings.Contains(got.stdout, "not healthy") || got.stderr != "" {
		t.Fatalf("got %+v", got)
	}
}

func TestAnEmptyListSaysSo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if got := s.run(t, "tasks", "list"); got != (result{exitOK, "", "No tasks.\n"}) {
		t.Errorf("got %+v", got)
	}
	if got := s.run(t, "tasks", "list", "-o", "json"); got != (result{exitOK, "{\n  \"items\": []\n}\n", ""}) {
		t.Errorf("got %+v", got)
	}
}

func TestTasksListAsksForWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	s := stockedServer(t)
	s.run(t, "tasks", "list", "--status", "running,waiting", "--agent", "a", "--session", "s", "--project", "p", "--parent", otherID,
		"--label", "k=v,w", "--label", "x=", "--since", "2h", "--query", "log in", "--limit", "7")
	want := "GET /v1/tasks?agentId=a&createdAfter=2026-11-23T07%3A00%3A00Z&label=k%3Dv%2Cw&label=x%3D&limit=8&parentTaskId=" + otherID + "&projectId=p&q=log+in&sessionId=s&status=running&status=waiting"
	if len(s.calls) != 1 || s.calls[0] != want {
		t.Errorf("asked %q\nwant  %q", s.calls, want)
	}
	if got := s.run(t, "tasks", "list", "--limit", "1"); strings.Count(got.stdout, "\n") != 2 || got.stderr != "There are more: --limit 0 lists all.\n" {
		t.Errorf("got %+v", got)
	}
	if got := s.run(t, "tasks", "list", "--limit", "0"); strings.Count(got.stdout, "\n") != 3 || got.stderr != "" || s.calls[2] != "GET /v1/tasks?limit=500" {
		t.Errorf("got %+v after %q", got, s.calls[2])
	}
}

func TestDocumentsHoldWhatTheServerSaidAndNothingForTheTerminal(t *testing.T) {
	t.Parallel()
	s := stockedServer(t)
	want := s.tasks[1]
	inJSON, inYAML := s.run(t, "tasks", "get", taskID, "-o", "json"), s.run(t, "tasks", "get", taskID, "-o", "yaml")
	for _, text := range []string{inJSON.stdout, inYAML.stdout} {
		if strings.ContainsFunc(text, isUnsafe) || !strings.Contains(text, "architecture-advisor") {
			t.Errorf("got %q", text)
		}
	}
	var got api.Task
	if err := json.Unmarshal([]byte(inJSON.stdout), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("JSON: got %+v, %v\nwant %+v", got, err, want)
	}
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(inYAML.stdout), &fields); err != nil || fields["output"] != want.Output || fields["createdAt"] != "2026-11-23T08:58:30Z" {
		t.Errorf("YAML: got %v, %v\n%s", fields, err, inYAML.stdout)
	}
	if !strings.HasPrefix(inYAML.stdout, "---\nid: \""+taskID+"\"\nstatus: completed\ndescription: Analyze project architecture\ninput: |-\n  Review it\n  thoroughly\n") {
		t.Errorf("YAML is not in order:\n%s", inYAML.stdout)
	}
}

func TestYAMLMeansTheSameAsJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "x", "no", "NULL", "~", "1", "1e3", "0x1f", "012", "1.0", "-", "- a", "a: b", "a #b", "#a", "a ", " a", "&a", "*a", "!a", "%a", "@a", "`a", "'a'", `"a"`, `a\b`, "[a]", "{a}", "a,b", "|", ">",
		"2026-11-23", "a\nb", "a\nb\n", "a\n\nb\n\n\n", "\na", "  a\nb", "a\n  b", "a\n\tb", "\ta", "a\r\nb", "a\n ", "a \nb", "---\na", "a\n...\nb", "a: b\n- c", "\x00", "\x1b[31m", "\u0085", "\u2028", "\u202e", "\ufeff", "\U000e0041", "é\n漢\n", "👩‍💻", "\u00a0", ".inf", "=", "<<",
	} {
		in := map[string]any{"one": text, "list": []any{text, []any{text, map[string]any{text + "k": text}}, map[string]any{"a": text, "b": []any{}}}, "none": nil, "object": map[string]any{}, "number": 12.5, "flag": true}
		document, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		out, err := toYAML(document)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := yaml.Unmarshal([]byte(out), &got); err != nil {
			t.Errorf("%q: %v\n%s", text, err, out)
			continue
		}
		a, _ := json.Marshal(got)
		if string(a) != string(document) {
			t.Errorf("%q: got %s, want %s\n%s", text, a, document, out)
		}
	}
}

func TestTextIsCutToColumns(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text  string
		limit int
		want  string
		end   string
	}{
		{"abc", 3, "abc", "abc"}, {"abcd", 3, "ab…", "…cd"}, {"abcd", 1, "…", "…"}, {"abcd", 0, "", ""}, {"", 0, "", ""},
		{"漢字漢字", 5, "漢字…", "…漢字"}, {"漢字漢字", 4, "漢…", "…字"}, {"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301", "e\u0301e\u0301e\u0301"},
	} {
		if got := fit(tc.text, tc.limit); got != tc.want {
			t.Errorf("fit %q to %d: got %q, want %q", tc.text, tc.limit, got, tc.want)
		}
		if got := fitEnd(tc.text, tc.limit); got != tc.end || columns(got) > tc.limit {
			t.Errorf("fit the end of %q to %d: got %q, want %q", tc.text, tc.limit, got, tc.end)
		}
	}
}

func FuzzCleanText(f *testing.F) {
	f.Add(evil)
	f.Add("a\r\nb\rc\x1b")
	f.Fuzz(func(t *testing.T, s string) {
		got := cleanText(s)
		if strings.ContainsFunc(got, isUnsafe) {
			t.Fatalf("%q became %q", s, got)
		}
		if cleanText(got) != got {
			t.Fatalf("%q became %q, then %q", s, got, cleanText(got))
		}
		if line := cleanLine(s); strings.ContainsAny(line, "\n\t") || columns(fit(line, 10)) > 10 || columns(fitEnd(line, 10)) > 10 {
			t.Fatalf("%q became the line %q", s, line)
		}
	})
}
