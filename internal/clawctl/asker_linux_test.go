package clawctl

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

func TestWatchingAsksInPlaceWhatTheAgentAsks(t *testing.T) {
	t.Parallel()
	question := func(id string, status api.QuestionStatus) api.Question {
		return api.Question{ID: id, TaskID: taskID, Kind: api.QuestionApproval, Text: "Delete " + evil + "?", Risk: "high",
			Tool: &api.ToolCall{Name: "rm"}, ExpiresAt: now.Add(time.Hour), Status: status}
	}
	for _, cursor := range []string{"xterm", "dumb"} {
		t.Run(cursor, func(t *testing.T) {
			t.Parallel()
			s := runningTask(t, api.TaskCompleted)
			events := []api.Event{
				{Type: api.EventStatus, TaskID: taskID, Seq: 1, Status: api.TaskRunning, Timestamp: now},
				{Type: api.EventQuestion, TaskID: taskID, Seq: 2, Status: api.TaskWaiting, Timestamp: now, Message: "asks"},
				{Type: api.EventQuestion, TaskID: taskID, Seq: 3, Status: api.TaskWaiting, Timestamp: now, Message: "answered"},
				{Type: api.EventStatus, TaskID: taskID, Seq: 4, Status: api.TaskCompleted, Timestamp: now},
			}
			var next func()
			s.stream, next = steps(events)
			screen := newTerminal(t, 100)
			code := make(chan int)
			go func() {
				in := invocation{env: map[string]string{"CODERCLAW_URL": s.url, "TERM": cursor}, terminal: screen.File}
				code <- in.start(t, screen.File, screen.File, "tasks", "watch", taskID)
			}()
			next()
			screen.until(t, `running`)
			s.put(question("q1", api.QuestionOpen))
			next()
			screen.until(t, `(?s)for leave, risk high:.*Delete red �.*rm.*Approve\? yes or no, and why: `)
			if cursor == "xterm" && !screen.showsCursor() {
				t.Error("the cursor is hidden where one types")
			}
			screen.types(t, "perhaps\n")
			screen.until(t, `(?s)Approve\?.*Approve\?`)
			// Somebody else answers it, and the agent asks another.
			s.put(question("q2", api.QuestionOpen))
			next()
			screen.until(t, `(?s)That is no longer asked\..*Approve\? yes or no, and why: $`)
			screen.types(t, "no  not today\n")
			<-s.answered
			next()
			if got := <-code; got != exitOK {
				t.Errorf("exit code %d", got)
			}
			screen.types(t, "\x04") // ends what still reads, as the end of the process would
			shown := screen.end()
			if !screen.cursor || !screen.wrap || strings.Contains(shown, "UNKNOWN") {
				t.Errorf("left behind: cursor %v, wrap %v, and\n%s", screen.cursor, screen.wrap, shown)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			answers := slices.DeleteFunc(slices.Clone(s.calls), func(c string) bool { return !strings.HasPrefix(c, "POST") })
			if !slices.Equal(answers, []string{`POST /v1/approvals/q2 {"approve":false,"reason":"not today"}`}) {
				t.Errorf("answered %q", answers)
			}
		})
	}
}

func TestWatchingAsksHowFarAnApprovalGoes(t *testing.T) {
	t.Parallel()
	const more, far = `How much more may be used\? An amount in USD, such as 1\.50, or nothing for as much as the budget has: $`,
		`Also the very same request later, in this task, session or project\? One of these, or no: $`
	for name, tc := range map[string]struct {
		q     api.Question
		shown string
		again string // what is not understood
		typed string
		want  string
	}{
		"a figure":       {api.Question{Budget: &api.BudgetStanding{Unit: "USD"}}, more, "", "0.25", `{"approve":true,"reason":"it is worth it","raiseBy":"0.25"}`},
		"as much again":  {api.Question{Budget: &api.BudgetStanding{Unit: "USD"}}, more, "", "", `{"approve":true,"reason":"it is worth it"}`},
		"remembered":     {api.Question{Remember: true}, far, "forever", "Session", `{"approve":true,"reason":"it is worth it","remember":"session"}`},
		"not remembered": {api.Question{Remember: true}, far, "", "no", `{"approve":true,"reason":"it is worth it"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.q.ID, tc.q.TaskID, tc.q.Kind, tc.q.Text = "q1", taskID, api.QuestionApproval, "May I?"
			tc.q.Status, tc.q.ExpiresAt = api.QuestionOpen, now.Add(time.Hour)
			s := runningTask(t, api.TaskCompleted)
			var next func()
			s.stream, next = steps([]api.Event{
				{Type: api.EventQuestion, TaskID: taskID, Seq: 1, Status: api.TaskWaiting, Timestamp: now},
				{Type: api.EventStatus, TaskID: taskID, Seq: 2, Status: api.TaskCompleted, Timestamp: now},
			})
			s.put(tc.q)
			screen, code := watching(t, s)
			next()
			screen.until(t, `Approve\? yes or no, and why: $`)
			screen.types(t, "yes it is worth it\n")
			screen.until(t, tc.shown)
			if tc.again != "" {
				screen.types(t, tc.again+"\n")
				screen.until(t, `(?s)or no: .*`+tc.shown)
			}
			screen.types(t, tc.typed+"\n")
			<-s.answered
			next()
			if got := <-code; got != exitOK {
				t.Errorf("exit code %d", got)
			}
			screen.types(t, "\x04")
			screen.end()
			s.mu.Lock()
			defer s.mu.Unlock()
			answers := slices.DeleteFunc(slices.Clone(s.calls), func(c string) bool { return !strings.HasPrefix(c, "POST") })
			if !slices.Equal(answers, []string{"POST /v1/approvals/q1 " + tc.want}) {
				t.Errorf("answered %q", answers)
			}
		})
	}
}

// watching follows the task at a terminal, and sends the exit code in the end.
func watching(t *testing.T, s *fakeServer) (*terminal, <-chan int) {
	t.Helper()
	screen := newTerminal(t, 160)
	code := make(chan int)
	go func() {
		in := invocation{env: map[string]string{"CODERCLAW_URL": s.url, "TERM": "dumb"}, terminal: screen.File}
		code <- in.start(t, screen.File, screen.File, "tasks", "watch", taskID)
	}()
	return screen, code
}

func TestAFigureThatIsRefusedBeginsTheQuestionAnew(t *testing.T) {
	t.Parallel()
	s := runningTask(t, api.TaskFailed)
	var next func()
	s.stream, next = steps([]api.Event{
		{Type: api.EventQuestion, TaskID: taskID, Seq: 1, Status: api.TaskWaiting, Timestamp: now},
		{Type: api.EventStatus, TaskID: taskID, Seq: 2, Status: api.TaskFailed, Timestamp: now},
	})
	s.put(api.Question{ID: "q1", TaskID: taskID, Kind: api.QuestionApproval, Text: "More?", Status: api.QuestionOpen,
		ExpiresAt: now.Add(time.Hour), Budget: &api.BudgetStanding{Unit: "tokens"}})
	screen, code := watching(t, s)
	next()
	screen.until(t, `Approve\? yes or no, and why: $`)
	screen.types(t, "yes\n")
	screen.until(t, `How much more may be used\? A number of tokens, such as 200000, .*: $`)
	screen.types(t, "nothing\n")
	screen.until(t, `(?s)that is no figure.*Approve\? yes or no, and why: $`)
	screen.types(t, "no\n")
	<-s.answered
	next()
	if got := <-code; got != exitFailed {
		t.Errorf("exit code %d", got)
	}
	screen.types(t, "\x04")
	screen.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.calls, `POST /v1/approvals/q1 {"approve":false}`) {
		t.Errorf("answered %q", s.calls)
	}
}

func TestWhatIsTypedBecomesTheAnswer(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	approval := api.Question{Kind: api.QuestionApproval}
	choice := api.Question{Kind: api.QuestionInput, Choices: []api.Choice{{ID: "main"}, {ID: "dev"}}}
	form := api.Question{Kind: api.QuestionInput, Schema: []byte(`{}`)}
	for _, tc := range []struct {
		q    api.Question
		line string
		want *api.Answer // nil: asked again
	}{
		{approval, "y", &api.Answer{Approve: &yes}},
		{approval, "Yes it is fine", &api.Answer{Approve: &yes, Reason: "it is fine"}},
		{approval, "no", &api.Answer{Approve: &no}},
		{approval, "", nil},
		{approval, "yesterday", nil},
		{choice, "2", &api.Answer{Input: "dev"}},
		{choice, "main", &api.Answer{Input: "main"}},
		{choice, "", nil},
		{form, `{"a":1}`, &api.Answer{Data: []byte(`{"a":1}`)}},
		{form, "text", nil},
	} {
		got, ok := answerOf(tc.q, tc.line)
		if ok != (tc.want != nil) || ok && (got.Input != tc.want.Input || got.Reason != tc.want.Reason || string(got.Data) != string(tc.want.Data) ||
			(got.Approve == nil) != (tc.want.Approve == nil) || got.Approve != nil && *got.Approve != *tc.want.Approve) {
			t.Errorf("%q: %+v %v", tc.line, got, ok)
		}
	}
}
