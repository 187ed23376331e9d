package task_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
)

var bob = policy.Caller{UserID: "bob", AllProjects: true, Roles: []policy.Role{policy.Developer}}

// running returns a task that runs under a lease.
func (r rig) running(t *testing.T, n task.New) (uuid.UUID, uuid.UUID) {
	t.Helper()
	id := r.submit(t, n).ID
	lease := r.claim(t, "w", 1)[0]
	if err := r.Report(t.Context(), task.InProcess, id, lease.LeaseToken, task.Report{Status: task.Running}); err != nil {
		t.Fatal(err)
	}
	return id, lease.LeaseToken
}

func (r rig) ask(t *testing.T, id, lease uuid.UUID, n task.NewQuestion) task.Question {
	t.Helper()
	if n.ID == uuid.Nil {
		n.ID = uuid.New()
	}
	if n.Kind == "" {
		n.Kind = task.Input
	}
	if n.Text == "" {
		n.Text = "Which one?"
	}
	q, err := r.Ask(t.Context(), task.InProcess, id, lease, n)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// questions are the outcomes that the question events of a task tell of.
func (r rig) questions(t *testing.T, id uuid.UUID) (told []string) {
	t.Helper()
	for i, e := range r.history(t, id) {
		if e.Seq != int64(i)+1 {
			t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
		if e.Type == task.QuestionEvent {
			var q struct{ Status string }
			if err := json.Unmarshal(e.Data, &q); err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprintf("%s/%s", q.Status, e.Status))
		}
	}
	return told
}

func (r rig) told(t *testing.T, id uuid.UUID, want string) {
	t.Helper()
	if got := strings.Join(r.questions(t, id), " "); got != want {
		t.Errorf("the events tell %q, want %q", got, want)
	}
}

func TestATaskWaitsForAnAnswerAndGoesOnWithIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	asked := r.ask(t, id, lease, task.NewQuestion{Text: "Which branch?", Choices: []task.Choice{{ID: "main", Label: "Main"}, {ID: "dev"}}})
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForInput {
		t.Fatalf("the task is %s for %q", got.Status, got.WaitingReason)
	}
	outcome := make(chan task.Question)
	go func() {
		q, err := r.Question(context.Background(), task.InProcess, id, lease, asked.ID, time.Minute)
		if err != nil {
			t.Error(err)
		}
		outcome <- q
	}()
	if _, err := r.AnswerTask(t.Context(), bob, id, task.Answer{Text: "other"}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("what is not a choice: %v", err)
	}
	after, err := r.AnswerTask(t.Context(), bob, id, task.Answer{Text: "dev", Reason: "it is newer"})
	if err != nil {
		t.Fatal(err)
	}
	if after.Status != task.Running || after.WaitingReason != "" {
		t.Errorf("after the answer the task is %s for %q", after.Status, after.WaitingReason)
	}
	q := <-outcome
	if q.Status != task.Answered || q.Answer.Text != "dev" || q.AnsweredBy != "bob" || q.AnsweredAt == nil {
		t.Errorf("the worker hears %+v", q)
	}
	r.told(t, id, "open/waiting answered/running")
	if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Completed}); err != nil {
		t.Error(err)
	}
	if n := r.entries(t, "task.answer", "allowed"); n != 1 {
		t.Errorf("%d audit entries of the answer", n)
	}
}

// entries counts the entries of an action with a result.
func (r rig) entries(t *testing.T, action, result string) (n int) {
	t.Helper()
	if err := r.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_entries WHERE action = $1 AND result = $2`, action, result).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAskingAgainWithTheSameIdChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	n := task.NewQuestion{ID: uuid.New(), Kind: task.Approval, Text: "Delete <all> & more?", Risk: "high",
		Tool: &task.ToolCall{Name: "rm", Input: json.RawMessage(`{ "path": "<>&\u00e9" }`)}, Choices: []task.Choice{{ID: "a"}}}
	first := r.ask(t, id, lease, n)
	second := r.ask(t, id, lease, n)
	if first.Number != second.Number {
		t.Errorf("asked twice: %v and %v", first, second)
	}
	n.Text = "Another?"
	if _, err := r.Ask(t.Context(), task.InProcess, id, lease, n); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("another question of the same id: %v", err)
	}
	r.told(t, id, "open/waiting")

	other, otherLease := r.running(t, task.New{})
	n.Text = first.Text
	if _, err := r.Ask(t.Context(), task.InProcess, other, otherLease, n); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("the id of another task's question: %v", err)
	}
	if _, err := r.Question(t.Context(), task.InProcess, other, otherLease, first.ID, 0); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("another task's question: %v", err)
	}
	if _, err := r.Ask(t.Context(), task.InProcess, id, otherLease, n); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("by another's lease: %v", err)
	}
}

func TestATaskWaitsUntilAllItsQuestionsHaveAnOutcome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	first := r.ask(t, id, lease, task.NewQuestion{})
	second := r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
	if _, err := r.AnswerTask(t.Context(), bob, id, task.Answer{Text: "x"}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("an answer to one of two: %v", err)
	}
	if _, err := r.Answer(t.Context(), bob, first.ID, task.Answer{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForApproval {
		t.Errorf("with one open the task is %s for %q", got.Status, got.WaitingReason)
	}
	if q, err := r.Answer(t.Context(), bob, second.ID, task.Answer{Approve: new(false), Reason: "no"}); err != nil || q.Status != task.Denied {
		t.Errorf("denied: %+v %v", q, err)
	}
	if got := r.get(t, id); got.Status != task.Running {
		t.Errorf("with none open the task is %s", got.Status)
	}
	r.told(t, id, "open/waiting open/waiting answered/waiting denied/running")
}

func TestOfManyAnswersAtOnceOneWins(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool)}
	id, lease := servers[0].running(t, task.New{})
	q := servers[0].ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		wg.Go(func() {
			yes := i%2 == 0
			_, err := servers[i%2].Answer(t.Context(), bob, q.ID, task.Answer{Approve: &yes})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case fault.CodeOf(err) != fault.Conflict:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || servers[0].entries(t, "approval.decide", "allowed") != 1 {
		t.Errorf("%d of 8 answers were taken", won)
	}
	if got := servers[0].questions(t, id); len(got) != 2 {
		t.Errorf("the events tell %v", got)
	}
}

func TestOpenQuestionsAreWithdrawnWhenTheirAttemptEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, rig, uuid.UUID, uuid.UUID){
		"cancelled": func(t *testing.T, r rig, id, _ uuid.UUID) {
			if _, err := r.Cancel(t.Context(), ann, id); err != nil {
				t.Error(err)
			}
		},
		"failed": func(t *testing.T, r rig, id, lease uuid.UUID) {
			if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Failed, Error: "x", Events: []task.ReportEvent{{Type: task.LogEvent, Message: "last"}}}); err != nil {
				t.Error(err)
			}
		},
		"released": func(t *testing.T, r rig, id, lease uuid.UUID) {
			if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Release: true}); err != nil {
				t.Error(err)
			}
		},
		"lost": func(t *testing.T, r rig, _, _ uuid.UUID) {
			r.register(t, task.NewWorker{ID: "w", Instance: uuid.New()}) // a new process of it
		},
		"gone on": func(t *testing.T, r rig, id, lease uuid.UUID) {
			if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Running}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id, lease := r.running(t, task.New{})
			q := r.ask(t, id, lease, task.NewQuestion{})
			r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
			end(t, r, id, lease)
			r.told(t, id, "open/waiting open/waiting withdrawn/waiting withdrawn/waiting")
			if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Text: "late"}); fault.CodeOf(err) != fault.Conflict {
				t.Errorf("an answer after the end: %v", err)
			}
			open, _, err := r.Questions(t.Context(), ann, task.QuestionFilter{Status: []task.QuestionStatus{task.Open}}, task.NewestQuestion, 10)
			if err != nil || len(open) != 0 {
				t.Errorf("open: %v %v", open, err)
			}
		})
	}
}

func TestAQuestionThatNobodyAnswersExpiresOnTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer stop()
	id, lease := r.running(t, task.New{})
	asked := r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval, Expires: 300 * time.Millisecond})
	q, err := r.Question(t.Context(), task.InProcess, id, lease, asked.ID, time.Minute)
	if err != nil || q.Status != task.Expired {
		t.Fatalf("%+v %v", q, err)
	}
	if late := q.AnsweredAt.Sub(q.ExpiresAt); late < 0 || late > 2*time.Second {
		t.Errorf("it expired %v late", late)
	}
	if _, err := r.Answer(t.Context(), bob, asked.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("an approval after its time: %v", err)
	}
	r.told(t, id, "open/waiting expired/running")
	if n := r.entries(t, "approval.decide", "denied"); n != 1 {
		t.Errorf("%d audit entries of the expiry", n)
	}
}

func TestNobodyAnswersAfterTheTimeEvenBeforeItIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRig(t) // its housekeeping does not run
	id, lease := r.running(t, task.New{})
	q := r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval, Expires: time.Microsecond})
	if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("an approval after its time: %v", err)
	}
	r.told(t, id, "open/waiting")
}

func TestAnswersMustMeetTheSchema(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	q := r.ask(t, id, lease, task.NewQuestion{Schema: json.RawMessage(
		`{"type":"object","required":["count"],"properties":{"count":{"type":"integer","minimum":1}},"additionalProperties":false}`)})
	for _, bad := range []string{`{}`, `{"count":0}`, `{"count":"1"}`, `{"count":1,"more":true}`, `[1]`, ``} {
		if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Text: "x", Data: json.RawMessage(bad)}); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("data %s: %v", bad, err)
		}
	}
	got, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Data: json.RawMessage(`{"count":3}`)})
	if err != nil || string(got.Answer.Data) != `{"count":3}` {
		t.Errorf("%+v %v", got, err)
	}
}

func TestHostileQuestionsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	deep := strings.Repeat(`{"not":`, 20_000) + `{}` + strings.Repeat(`}`, 20_000)
	for name, n := range map[string]task.NewQuestion{
		"no id":                    {Kind: task.Input, Text: "x"},
		"no kind":                  {ID: uuid.New(), Text: "x"},
		"no text":                  {ID: uuid.New(), Kind: task.Input},
		"a NUL":                    {ID: uuid.New(), Kind: task.Input, Text: "a\x00b"},
		"a long text":              {ID: uuid.New(), Kind: task.Input, Text: strings.Repeat("x", task.MaxQuestionBytes+1)},
		"the same choice twice":    {ID: uuid.New(), Kind: task.Input, Text: "x", Choices: []task.Choice{{ID: "a"}, {ID: "a"}}},
		"a schema that is none":    {ID: uuid.New(), Kind: task.Input, Text: "x", Schema: json.RawMessage(`{"type":5}`)},
		"a schema of a file":       {ID: uuid.New(), Kind: task.Input, Text: "x", Schema: json.RawMessage(`{"$ref":"file:///etc/passwd"}`)},
		"a schema of an address":   {ID: uuid.New(), Kind: task.Input, Text: "x", Schema: json.RawMessage(`{"$schema":"http://127.0.0.1:1/x"}`)},
		"a schema within itself":   {ID: uuid.New(), Kind: task.Input, Text: "x", Schema: json.RawMessage(`{"allOf":[{"$ref":"#"},{"$ref":"#"}]}`)},
		"a schema of an approval":  {ID: uuid.New(), Kind: task.Approval, Text: "x", Schema: json.RawMessage(`{}`)},
		"a schema that nests":      {ID: uuid.New(), Kind: task.Input, Text: "x", Schema: json.RawMessage(deep)},
		"a tool's input too large": {ID: uuid.New(), Kind: task.Approval, Text: "x", Tool: &task.ToolCall{Name: "x", Input: json.RawMessage(`{"a":"` + strings.Repeat("x", 64<<10) + `"}`)}},
		"an expiry too late":       {ID: uuid.New(), Kind: task.Input, Text: "x", Expires: task.MaxExpiry + 1},
	} {
		if _, err := r.Ask(t.Context(), task.InProcess, id, lease, n); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range task.MaxOpenQuestions {
		r.ask(t, id, lease, task.NewQuestion{})
	}
	if _, err := r.Ask(t.Context(), task.InProcess, id, lease, task.NewQuestion{ID: uuid.New(), Kind: task.Input, Text: "x"}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("one question too many: %v", err)
	}
}

func TestEventsOfLargeQuestionsStayWithinTheirBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	n := task.NewQuestion{Kind: task.Input, Text: strings.Repeat("\x01", task.MaxQuestionBytes),
		Schema: json.RawMessage(`{"description":"` + strings.Repeat("x", 63<<10) + `"}`),
		Tool:   &task.ToolCall{Name: "t", Input: json.RawMessage(`{"a":"` + strings.Repeat("x", 63<<10) + `"}`)}}
	for i := range task.MaxChoices {
		n.Choices = append(n.Choices, task.Choice{ID: fmt.Sprint(i), Label: strings.Repeat("\x01", 1024)})
	}
	q := r.ask(t, id, lease, n)
	if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Text: "1", Data: json.RawMessage(`{"a":"` + strings.Repeat("y", 63<<10) + `"}`), Reason: strings.Repeat("\x01", 2000)}); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.history(t, id) {
		if len(e.Data) > task.MaxDataBytes || len(e.Message) > task.MaxMessageBytes {
			t.Errorf("event %d has %d bytes of data, %d of message", e.Seq, len(e.Data), len(e.Message))
		}
	}
	all, _, err := r.Questions(t.Context(), ann, task.QuestionFilter{TaskID: &id}, task.NewestQuestion, 10)
	if err != nil || len(all) != 1 || len(all[0].Choices) != task.MaxChoices || len(all[0].Tool.Input) < 63<<10 {
		t.Errorf("the list shows less: %v", err)
	}
}

func TestQuestionsOfOtherProjectsAreNotThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inRed := policy.Caller{UserID: "ann", ProjectID: "red", Roles: []policy.Role{policy.Developer}}
	inBlue := policy.Caller{UserID: "eve", ProjectID: "blue", Roles: []policy.Role{policy.Developer}}
	of, err := r.Submit(t.Context(), inRed, task.New{Description: "d"}, "")
	if err != nil {
		t.Fatal(err)
	}
	lease := r.claim(t, "w", 1)[0].LeaseToken
	q := r.ask(t, of.ID, lease, task.NewQuestion{Kind: task.Approval})
	for _, c := range []policy.Caller{inBlue, {UserID: "ann", Roles: inRed.Roles}} {
		if list, _, err := r.Questions(t.Context(), c, task.QuestionFilter{}, task.NewestQuestion, 10); err != nil || len(list) != 0 {
			t.Errorf("%s sees %v %v", c.UserID, list, err)
		}
		if _, err := r.Answer(t.Context(), c, q.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("%s answers: %v", c.UserID, err)
		}
		if _, err := r.AnswerTask(t.Context(), c, of.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("%s answers the task: %v", c.UserID, err)
		}
	}
	reader := policy.Caller{UserID: "rob", ProjectID: "red", Roles: []policy.Role{policy.ReadOnly}}
	if list, more, err := r.Questions(t.Context(), reader, task.QuestionFilter{Kind: task.Approval}, task.NewestQuestion, 10); err != nil || len(list) != 1 || more {
		t.Errorf("a member of the project sees %v %v", list, err)
	}
	if _, err := r.Answer(t.Context(), reader, q.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("a reader answers: %v", err)
	}
}

func TestAManualTaskThatWaitsCanBeAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	if _, err := r.AnswerTask(t.Context(), bob, id, task.Answer{Text: "early"}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("an answer to nothing: %v", err)
	}
	r.to(t, id, task.Running)
	for _, reason := range []task.WaitingReason{task.ForInput, task.ForApproval} {
		if _, err := r.Update(t.Context(), ann, id, task.Patch{Status: task.Waiting, WaitingReason: reason, Message: "?"}); err != nil {
			t.Fatal(err)
		}
		answer := task.Answer{Text: "blue"}
		if reason == task.ForApproval {
			answer = task.Answer{Approve: new(true)}
		}
		got, err := r.AnswerTask(t.Context(), bob, id, answer)
		if err != nil || got.Status != task.Running {
			t.Errorf("%s: %+v %v", reason, got.Status, err)
		}
	}
	r.told(t, id, "answered/running approved/running")
}

func TestASkillIsAllowedDeniedOrPutToAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	use := func(skill string, want task.Verdict) task.SkillDecision {
		t.Helper()
		d, err := r.Authorize(t.Context(), task.InProcess, id, lease, skill, uuid.New(), &task.ToolCall{Name: "shell"})
		if err != nil || d.Verdict != want || d.Reason == "" {
			t.Errorf("skill %s: %+v %v", skill, d, err)
		}
		return d
	}
	use("safe", task.SkillAllowed)
	use("denied-skill", task.SkillDenied)
	if got := r.get(t, id); got.Status != task.Running {
		t.Errorf("the task is %s before anybody was asked", got.Status)
	}
	d := use("dangerous-skill", task.SkillApproval)
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForApproval {
		t.Errorf("the task is %s for %q", got.Status, got.WaitingReason)
	}
	if q, err := r.Answer(t.Context(), bob, d.QuestionID, task.Answer{Approve: new(true)}); err != nil || q.SkillID != "dangerous-skill" || q.Tool.Name != "shell" {
		t.Errorf("%+v %v", q, err)
	}
	if n := r.entries(t, "skill.authorize", "allowed"); n != 1 {
		t.Errorf("%d audit entries of what was allowed", n)
	}
	if denied := r.rights.denials(); len(denied) != 1 || denied[0].Action != "skill.authorize" {
		t.Errorf("denials: %+v", denied)
	}
	stranger := policy.Caller{UserID: "key:stranger", Worker: &policy.WorkerScope{}}
	if _, err := r.Ask(t.Context(), stranger, id, lease, task.NewQuestion{ID: uuid.New(), Kind: task.Input, Text: "x"}); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("another principal's worker asks: %v", err)
	}
	if _, err := r.Question(t.Context(), stranger, id, lease, d.QuestionID, 0); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("another principal's worker hears: %v", err)
	}
	if _, err := r.Authorize(t.Context(), stranger, id, lease, "safe", uuid.New(), nil); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("another principal's worker uses: %v", err)
	}
	if _, err := r.Authorize(t.Context(), task.InProcess, id, uuid.New(), "safe", uuid.New(), nil); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("without the lease: %v", err)
	}
}
