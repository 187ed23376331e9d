package task_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/task"
)

// suspend gives the lease back until the questions are answered.
func (r rig) suspend(t *testing.T, id, lease uuid.UUID, questions ...task.Question) {
	t.Helper()
	if err := r.Report(t.Context(), task.InProcess, id, lease, suspension(questions...)); err != nil {
		t.Fatal(err)
	}
}

func suspension(questions ...task.Question) task.Report {
	s := &task.Suspension{State: "the session"}
	for _, q := range questions {
		s.Questions = append(s.Questions, q.ID)
	}
	return task.Report{Release: true, Resume: s, Events: []task.ReportEvent{{Type: task.LogEvent, Message: "the last words"}}}
}

// suspended returns a task that waits for people without a worker, its question
// and the lease that it had, of worker w.
func (r rig) suspended(t *testing.T, n task.New) (id, lease uuid.UUID, q task.Question) {
	t.Helper()
	id, lease = r.running(t, n)
	q = r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval, Text: "May I?"})
	r.suspend(t, id, lease, q)
	return id, lease, q
}

func (r rig) approve(t *testing.T, q task.Question) {
	t.Helper()
	if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true)}); err != nil {
		t.Fatal(err)
	}
}

func TestATaskThatWaitsForAPersonGivesItsWorkerBackAndGoesOnWithTheAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, first, q := r.suspended(t, task.New{MaxAttempts: 1})
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForApproval {
		t.Fatalf("the task is %s for %q", got.Status, got.WaitingReason)
	}
	if workers, err := r.Workers(t.Context(), ann); err != nil || len(workers) != 1 || workers[0].Running != 0 {
		t.Errorf("the worker is %+v, %v", workers, err)
	}
	if got := r.claim(t, "w", 1); len(got) > 0 {
		t.Errorf("it is offered before the answer: %+v", got)
	}
	err := r.Report(t.Context(), task.InProcess, id, first, task.Report{Status: task.Completed})
	if fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("a report under the lease that was given back: %v", err)
	}
	if _, err := r.Ask(t.Context(), task.InProcess, id, first, task.NewQuestion{ID: uuid.New(), Kind: task.Input, Text: "x"}); fault.CodeOf(err) != fault.LeaseLost {
		t.Errorf("a question under it: %v", err)
	}

	r.approve(t, q)
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForResumption {
		t.Fatalf("after the answer the task is %s for %q", got.Status, got.WaitingReason)
	}
	got := r.claim(t, "w", 1)
	if len(got) != 1 || got[0].Attempt != 1 || got[0].Status != task.Running || got[0].Resume == nil || got[0].Resume.State != "the session" {
		t.Fatalf("claimed %+v", got)
	}
	if o := got[0].Outcomes; len(o) != 1 || o[0].ID != q.ID || o[0].Status != task.Approved || o[0].AnsweredBy != "bob" {
		t.Errorf("it hears %+v", o)
	}
	if err := r.report(t, got[0], task.Report{Status: task.Completed}); err != nil {
		t.Error(err)
	}
	r.told(t, id, "open/waiting approved/waiting")
	attempts, err := r.Attempts(t.Context(), ann, id)
	if err != nil || len(attempts) != 2 || attempts[0].Outcome != "released" || attempts[0].Reason != "waiting-for-a-person" || attempts[1].Number != 1 || attempts[1].Outcome != "completed" {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
	var said []string
	for _, e := range r.history(t, id) {
		said = append(said, e.Message)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "the last words\nreleased: waiting for a person\n") || !strings.Contains(all, "attempt 1 goes on with worker w") {
		t.Errorf("the history is\n%s", all)
	}
}

func TestAWaitingTaskWithoutAWorkerCountsAgainstNoLimitAndItsAnswerDoesNotOverstepOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.PutLimit(t.Context(), root, task.Limit{Kind: task.LimitAll, MaxRunning: new(1)}); err != nil {
		t.Fatal(err)
	}
	id, _, q := r.suspended(t, task.New{})
	other := r.submit(t, task.New{}).ID
	got := r.claim(t, "w", 5)
	if len(got) != 1 || got[0].ID != other {
		t.Fatalf("while the first waits %+v runs", got)
	}
	r.approve(t, q)
	if more := r.claim(t, "w", 5); len(more) > 0 {
		t.Fatalf("beyond the limit runs %+v", more)
	}
	if d, err := r.Delay(t.Context(), r.get(t, id)); err != nil || d == nil || d.Reason != task.PendingLimit {
		t.Errorf("it waits for %+v, %v", d, err)
	}
	if err := r.report(t, got[0], task.Report{Status: task.Failed, Error: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Prepare(t.Context()); err != nil { // as a server does that finds room
		t.Fatal(err)
	}
	if got = r.claim(t, "w", 5); len(got) != 1 || got[0].ID != id || got[0].Resume == nil {
		t.Errorf("then runs %+v", got)
	}
}

func TestAnAnswerThatComesWhileTheWorkerHandsBackIsNeitherLostNorTakenTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 {
		id, lease := r.running(t, task.New{})
		q := r.ask(t, id, lease, task.NewQuestion{})
		var both sync.WaitGroup
		both.Go(func() {
			if err := r.Report(context.Background(), task.InProcess, id, lease, suspension(q)); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if _, err := r.Answer(context.Background(), bob, q.ID, task.Answer{Text: "main"}); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		var mu sync.Mutex
		var got []task.Lease
		var claims sync.WaitGroup
		for range 4 {
			claims.Go(func() {
				leases, _, err := r.Claim(context.Background(), task.InProcess, "w", 4, 0)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, leases...)
			})
		}
		claims.Wait()
		if len(got) != 1 || got[0].ID != id || len(got[0].Outcomes) != 1 || got[0].Outcomes[0].Answer.Text != "main" {
			t.Fatalf("claimed %+v", got)
		}
		if err := r.report(t, got[0], task.Report{Status: task.Completed}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfTwoAnswersToATaskWithoutAWorkerOneIsTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, q := r.suspended(t, task.New{})
	results := make(chan error, 2)
	for _, yes := range []bool{true, false} {
		go func() {
			_, err := r.Answer(context.Background(), bob, q.ID, task.Answer{Approve: &yes})
			results <- err
		}()
	}
	codes := fmt.Sprint(fault.CodeOf(<-results), fault.CodeOf(<-results))
	if !strings.Contains(codes, string(fault.Conflict)) || codes == fmt.Sprint(fault.Conflict, fault.Conflict) {
		t.Errorf("the answers end with %s", codes)
	}
	if got := r.claim(t, "w", 4); len(got) != 1 {
		t.Errorf("claimed %+v", got)
	}
}

func TestATaskGoesOnOnlyWhenAllItsQuestionsHaveTheirOutcomes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	one, two := r.ask(t, id, lease, task.NewQuestion{}), r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
	r.suspend(t, id, lease, one, two)
	if _, err := r.Answer(t.Context(), bob, one.ID, task.Answer{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, id); got.WaitingReason != task.ForApproval {
		t.Errorf("it waits for %s", got.WaitingReason)
	}
	if got := r.claim(t, "w", 1); len(got) > 0 {
		t.Errorf("claimed %+v", got)
	}
	r.approve(t, two)
	if got := r.claim(t, "w", 1); len(got) != 1 || len(got[0].Outcomes) != 2 {
		t.Errorf("claimed %+v", got)
	}
}

func TestAQuestionOfATaskWithoutAWorkerExpiresIntoADenial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	q := r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
	r.suspend(t, id, lease, q)
	r.exec(t, `UPDATE questions SET expires_at = clock_timestamp() - interval '1 second' WHERE id = $1`, q.ID)
	if _, err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := r.claim(t, "w", 1)
	if len(got) != 1 || len(got[0].Outcomes) != 1 || got[0].Outcomes[0].Status != task.Expired {
		t.Errorf("claimed %+v", got)
	}
}

func TestATaskWithoutAWorkerIsCancelledAndFailsAtItsDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _, q := r.suspended(t, task.New{})
	if got, err := r.Cancel(t.Context(), ann, id); err != nil || got.Status != task.Cancelled {
		t.Errorf("cancelled: %s, %v", got.Status, err)
	}
	r.told(t, id, "open/waiting withdrawn/waiting")
	if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true)}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("an answer after the end: %v", err)
	}

	id, _, _ = r.suspended(t, task.New{DeadlineAt: new(time.Now().Add(time.Hour))})
	r.exec(t, `UPDATE tasks SET deadline_at = clock_timestamp() WHERE id = $1`, id)
	if _, err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, id); got.Status != task.Failed || got.StatusReason != task.ReasonDeadline {
		t.Errorf("at its deadline it is %s for %q", got.Status, got.StatusReason)
	}
	r.told(t, id, "open/waiting withdrawn/waiting")
}

func TestATaskGoesOnWithTheWorkerThatLeftItWhileThatIsThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _, q := r.suspended(t, task.New{})
	r.approve(t, q)
	if got := r.claim(t, "other", 1); len(got) > 0 {
		t.Fatalf("another worker gets %+v", got)
	}
	r.exec(t, `UPDATE tasks SET updated_at = clock_timestamp() - interval '10 minutes' WHERE id = $1`, id)
	if got := r.claim(t, "other", 1); len(got) > 0 {
		t.Fatalf("another worker gets %+v while the first is only busy", got)
	}
	r.exec(t, `UPDATE workers SET last_seen_at = clock_timestamp() - interval '10 minutes' WHERE id = 'w'`)
	r.exec(t, `UPDATE tasks SET updated_at = clock_timestamp() WHERE id = $1`, id)
	if got := r.claim(t, "other", 1); len(got) > 0 {
		t.Fatalf("another worker gets %+v at once, though the first may be starting again", got)
	}
	r.exec(t, `UPDATE tasks SET updated_at = clock_timestamp() - interval '10 minutes' WHERE id = $1`, id)
	got := r.claim(t, "other", 1)
	if len(got) != 1 || got[0].Resume != nil || got[0].Outcomes != nil || got[0].Attempt != 1 {
		t.Fatalf("another worker gets %+v", got)
	}
	history := r.history(t, id)
	if last := history[len(history)-1]; last.Message != "attempt 1 begins anew on worker other: worker w, which left it, is gone" {
		t.Errorf("the history ends with %q", last.Message)
	}
}

func TestAWorkerThatDiesAfterItTookATaskUpAgainHearsTheAnswersAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _, q := r.suspended(t, task.New{MaxAttempts: 3})
	r.approve(t, q)
	if got := r.claim(t, "w", 1); len(got) != 1 {
		t.Fatalf("claimed %+v", got)
	}
	r.expire(t, id)
	got := r.claim(t, "w", 1)
	if len(got) != 1 || got[0].Attempt != 2 || got[0].Resume == nil || len(got[0].Outcomes) != 1 {
		t.Fatalf("after the loss it claims %+v", got)
	}
	// What failed is not gone on with.
	if err := r.report(t, got[0], task.Report{Status: task.Failed, Error: "x", Retryable: true}); err != nil {
		t.Fatal(err)
	}
	r.exec(t, `UPDATE tasks SET run_after = clock_timestamp() WHERE id = $1`, id)
	if _, err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.claim(t, "w", 1); len(got) != 1 || got[0].Attempt != 3 || got[0].Resume != nil {
		t.Errorf("after the failure it claims %+v", got)
	}
}

func TestOnlyWhoAskedCanGiveATaskBackUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	_, _, foreign := r.suspended(t, task.New{})
	q := r.ask(t, id, lease, task.NewQuestion{})
	for name, c := range map[string]struct {
		report task.Report
		lease  uuid.UUID
		want   fault.Code
	}{
		"another lease":             {suspension(q), uuid.New(), fault.LeaseLost},
		"a question of another":     {suspension(q, foreign), lease, fault.Invalid},
		"no question":               {suspension(), lease, fault.Invalid},
		"a question that is not":    {suspension(task.Question{ID: uuid.New()}), lease, fault.Invalid},
		"too much to go on from":    {task.Report{Release: true, Resume: &task.Suspension{State: strings.Repeat("x", task.MaxResumeBytes+1), Questions: []uuid.UUID{q.ID}}}, lease, fault.Invalid},
		"nothing to go on from":     {task.Report{Release: true, Resume: &task.Suspension{Questions: []uuid.UUID{q.ID}}}, lease, fault.Invalid},
		"more said than one can be": {task.Report{Release: true, Resume: suspension(q).Resume, Events: []task.ReportEvent{{Type: task.LogEvent, Message: strings.Repeat("x", task.MaxMessageBytes+1)}}}, lease, fault.Invalid},
	} {
		if err := r.Report(t.Context(), task.InProcess, id, c.lease, c.report); fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Running}); err != nil {
		t.Errorf("the lease is held no more: %v", err)
	}
}

func TestATaskWithoutAWorkerOutlivesItsServer(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	before := rigOn(t, pool)
	_, _, q := before.suspended(t, task.New{})
	after := rigOn(t, pool)
	if err := after.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := after.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan []task.Lease, 1)
	go func() {
		got, _, err := after.Claim(context.Background(), task.InProcess, "w", 1, time.Minute)
		if err != nil {
			t.Error(err)
		}
		waiting <- got
	}()
	after.approve(t, q)
	if got := <-waiting; len(got) != 1 || got[0].Resume == nil {
		t.Errorf("claimed %+v", got)
	}
}

func (r rig) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := r.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
