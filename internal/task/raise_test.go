package task_test

import (
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// exceeded returns a task whose worker w is held by the task's own budget of 100
// tokens, of which it has used 110.
func (r rig) exceeded(t *testing.T) (id, lease uuid.UUID, q task.Question) {
	t.Helper()
	id, lease = r.running(t, task.New{Budget: &task.Budget{Most: tokens(100), OnExceeded: task.AskExceeded}})
	return id, lease, r.held110(t, id, lease)
}

func (r rig) held110(t *testing.T, id, lease uuid.UUID) task.Question {
	t.Helper()
	q, err := r.use(t, id, lease, tokens(110))
	if err != nil || q == nil {
		t.Fatalf("held by %v, %v", q, err)
	}
	return *q
}

// orphan suspends a task whose worker is held by its budget: it has no lease any
// more.
func (r rig) orphan(t *testing.T) (id uuid.UUID, q task.Question) {
	t.Helper()
	id, lease, q := r.exceeded(t)
	r.suspend(t, id, lease, q)
	return id, q
}

// raiseBy approves with a figure.
func (r rig) raiseBy(t *testing.T, c policy.Caller, q task.Question, figure string) task.Question {
	t.Helper()
	q, err := r.Answer(t.Context(), c, q.ID, task.Answer{Approve: new(true), RaiseBy: figure})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (r rig) expireQuestion(t *testing.T, q task.Question) {
	t.Helper()
	if _, err := r.pool.Exec(t.Context(), `UPDATE questions SET expires_at = now() WHERE id = $1`, q.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// mustHaveFailed checks that a task that nobody let go on has failed.
func (r rig) mustHaveFailed(t *testing.T, id uuid.UUID) {
	t.Helper()
	if got := r.get(t, id); got.Status != task.Failed || got.StatusReason != task.ReasonBudget {
		t.Errorf("the task is %s %s", got.Status, got.StatusReason)
	}
	if got := r.claim(t, "w", 1); len(got) > 0 {
		t.Errorf("it is offered: %+v", got)
	}
}

func TestAnApprovalRaisesATasksBudgetByTheStatedFigure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease, q := r.exceeded(t)
	if q = r.raiseBy(t, bob, q, "0030"); q.Answer.RaiseBy != "0030" {
		t.Errorf("answered %+v", q.Answer)
	}
	r.spent(t, id, lease, tokens(140))
	next, err := r.use(t, id, lease, tokens(141))
	if err != nil || next == nil || next.Budget.Limit != 140 {
		t.Fatalf("held by %+v, %v", next, err)
	}
	r.raiseBy(t, bob, *next, "1000")
	r.spent(t, id, lease, tokens(1141))
	if n := r.messages(t, id, "approved by bob: 30 tokens more"); n != 1 {
		t.Errorf("%d events tell of the figure", n)
	}
	var figure, scope string
	var used int
	if err := r.pool.QueryRow(t.Context(), `SELECT details ->> 'raiseBy', details -> 'budget' ->> 'scope', (details -> 'budget' ->> 'used')::int
		FROM audit_entries WHERE action = 'approval.decide' ORDER BY id LIMIT 1`).Scan(&figure, &scope, &used); err != nil || figure != "0030" || scope != "task" || used != 110 {
		t.Errorf("the audit log has %q of the %s's at %d, %v", figure, scope, used, err)
	}
}

func TestAnApprovalRaisesASharedBudgetByTheStatedFigure(t *testing.T) {
	t.Parallel()
	for kind, n := range map[task.BudgetScope]task.New{task.SessionBudget: {SessionID: "x"}, task.ProjectBudget: {ProjectID: "x"}} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.putBudget(t, kind, "x", task.Amounts{"USD": 5_000_000}, task.AskExceeded)
			id, lease := r.running(t, n)
			q, err := r.use(t, id, lease, task.Amounts{"USD": 6_000_000})
			if err != nil || q == nil {
				t.Fatalf("held by %v, %v", q, err)
			}
			_, err = r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true), RaiseBy: "0.25"})
			wantFault(t, err, fault.Forbidden) // he may not set it
			r.raiseBy(t, root, *q, "0.25")
			r.spent(t, id, lease, task.Amounts{"USD": 6_250_000})
			if b := r.budget(t, root, kind, "x"); b.Raised["USD"] != 1_250_000 {
				t.Errorf("raised by %v", b.Raised)
			}
			if q, err = r.use(t, id, lease, task.Amounts{"USD": 6_250_001}); err != nil || q == nil {
				t.Errorf("held by %v, %v", q, err)
			}
			if n := r.messages(t, id, "approved by root: 0.25 USD more"); n != 1 {
				t.Errorf("%d events tell of the figure", n)
			}
		})
	}
}

func TestFiguresOfSeveralApprovalsOfASharedBudgetDoNotAddUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.putBudget(t, task.SessionBudget, "x", tokens(100), task.AskExceeded)
	one, oneLease := r.running(t, task.New{SessionID: "x"})
	two, twoLease := r.running(t, task.New{SessionID: "x"})
	first := r.held110(t, one, oneLease)
	second := r.held110(t, two, twoLease)
	// 220 are used. What is stated is what there is then, by one or the other.
	for _, step := range []struct {
		q      task.Question
		figure string
		raised int64
	}{{first, "50", 170}, {second, "20", 170}} {
		r.raiseBy(t, root, step.q, step.figure)
		if b := r.budget(t, root, task.SessionBudget, "x"); b.Raised[task.Tokens] != step.raised {
			t.Errorf("after %s more it is raised by %v", step.figure, b.Raised)
		}
	}
	more, err := r.use(t, one, oneLease, tokens(161))
	if err != nil || more == nil {
		t.Fatalf("held by %v, %v", more, err)
	}
	r.raiseBy(t, root, *more, "10")
	if b := r.budget(t, root, task.SessionBudget, "x"); b.Raised[task.Tokens] != 181 {
		t.Errorf("raised by %v", b.Raised)
	}
}

func TestAFigureThatIsNoneIsRefusedAndTheQuestionStaysOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease, ofTokens := r.exceeded(t)
	other := r.submit(t, task.New{Budget: &task.Budget{Most: task.Amounts{"USD": 1}, OnExceeded: task.AskExceeded}}).ID
	l := r.claim(t, "w2", 1)[0]
	ofMoney, err := r.use(t, other, l.LeaseToken, task.Amounts{"USD": 2})
	if err != nil || ofMoney == nil {
		t.Fatal(ofMoney, err)
	}
	plain := r.ask(t, id, lease, task.NewQuestion{Kind: task.Approval})
	input := r.ask(t, id, lease, task.NewQuestion{})
	yes, no := new(true), new(false)
	for name, bad := range map[string]struct {
		q task.Question
		a task.Answer
	}{
		"nothing more":        {ofTokens, task.Answer{Approve: yes, RaiseBy: "0"}},
		"less":                {ofTokens, task.Answer{Approve: yes, RaiseBy: "-5"}},
		"a part of a token":   {ofTokens, task.Answer{Approve: yes, RaiseBy: "1.5"}},
		"infinite":            {ofTokens, task.Answer{Approve: yes, RaiseBy: "Inf"}},
		"no number":           {ofTokens, task.Answer{Approve: yes, RaiseBy: "NaN"}},
		"too many tokens":     {ofTokens, task.Answer{Approve: yes, RaiseBy: "1000000000000000"}},
		"beyond 64 bits":      {ofTokens, task.Answer{Approve: yes, RaiseBy: "99999999999999999999"}},
		"no money":            {*ofMoney, task.Answer{Approve: yes, RaiseBy: "0.00"}},
		"too much money":      {*ofMoney, task.Answer{Approve: yes, RaiseBy: "1000000000"}},
		"too small a part":    {*ofMoney, task.Answer{Approve: yes, RaiseBy: "0.0000001"}},
		"with a denial":       {ofTokens, task.Answer{Approve: no, RaiseBy: "5"}},
		"of another approval": {plain, task.Answer{Approve: yes, RaiseBy: "5"}},
		"of an input":         {input, task.Answer{Text: "x", RaiseBy: "5"}},
	} {
		if _, err := r.Answer(t.Context(), root, bad.q.ID, bad.a); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if q, err := r.GetQuestion(t.Context(), root, bad.q.ID); err != nil || q.Status != task.Open {
			t.Errorf("after %s the question is %s, %v", name, q.Status, err)
		}
	}
	manual := r.manual(t).ID
	if _, err := r.Update(t.Context(), ann, manual, task.Patch{Status: task.Planning}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), ann, manual, task.Patch{Status: task.Running}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), ann, manual, task.Patch{Status: task.Waiting, WaitingReason: task.ForApproval}); err != nil {
		t.Fatal(err)
	}
	_, err = r.AnswerTask(t.Context(), bob, manual, task.Answer{Approve: yes, RaiseBy: "5"})
	wantFault(t, err, fault.Invalid)
}

func TestATaskHeldByItsBudgetWithoutAWorkerGoesOnWithTheRaisedBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, q := r.orphan(t)
	if got := r.claim(t, "w", 1); len(got) > 0 {
		t.Fatalf("it is offered before the answer: %+v", got)
	}
	r.raiseBy(t, bob, q, "40")
	got := r.claim(t, "w", 1)
	if len(got) != 1 || got[0].ID != id || got[0].Resume == nil || len(got[0].Outcomes) != 1 || got[0].Outcomes[0].Status != task.Approved {
		t.Fatalf("claimed %+v", got)
	}
	use := func(total int64) (*task.Question, error) {
		return r.Use(t.Context(), task.InProcess, id, got[0].LeaseToken, []task.Used{{Source: "session", Total: tokens(total)}}, false)
	}
	if held, err := use(40); held != nil || err != nil {
		t.Errorf("held by %v, %v", held, err)
	}
	if held, err := use(41); err != nil || held == nil || held.Budget.Limit != 150 {
		t.Errorf("held by %+v, %v", held, err)
	}
}

func TestATaskHeldByItsBudgetWithoutAWorkerFailsUnlessItIsRaised(t *testing.T) {
	t.Parallel()
	for name, no := range map[string]func(*testing.T, rig, task.Question){
		"denied": func(t *testing.T, r rig, q task.Question) {
			if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(false), Reason: "enough"}); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(t *testing.T, r rig, q task.Question) { r.expireQuestion(t, q) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id, q := r.orphan(t)
			no(t, r, q)
			r.mustHaveFailed(t, id)
			r.told(t, id, "open/waiting "+name+"/waiting")
		})
	}
}

func TestWhatAKilledWorkerAskedOfABudgetIsAskedAgainByTheNext(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]func(*testing.T, rig, task.Question){
		"approved": func(t *testing.T, r rig, q task.Question) { r.raiseBy(t, bob, q, "40") },
		"denied": func(t *testing.T, r rig, q task.Question) {
			if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(false)}); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(t *testing.T, r rig, q task.Question) { r.expireQuestion(t, q) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id, dead, first := r.exceeded(t)
			r.expire(t, id)
			_, err := r.Answer(t.Context(), bob, first.ID, task.Answer{Approve: new(true), RaiseBy: "1000"})
			wantFault(t, err, fault.Conflict) // nobody asks any more
			got := r.claim(t, "w2", 1)
			if len(got) != 1 || got[0].ID != id {
				t.Fatalf("claimed %+v", got)
			}
			lease := got[0].LeaseToken
			held, err := r.Use(t.Context(), task.InProcess, id, lease, nil, false)
			if err != nil || held == nil || held.ID == first.ID || held.Budget.Limit != 100 {
				t.Fatalf("held by %+v, %v", held, err)
			}
			outcome(t, r, *held)
			_, err = r.use(t, id, dead, tokens(1_000_000))
			wantFault(t, err, fault.LeaseLost)
			if name != "approved" {
				r.mustHaveFailed(t, id)
				return
			}
			r.spent(t, id, lease, tokens(40))
			if held, err = r.use(t, id, lease, tokens(41)); err != nil || held == nil || held.Budget.Limit != 150 {
				t.Errorf("held by %+v, %v", held, err)
			}
		})
	}
}

func TestAnApprovalBeforeAKilledWorkerIsMissedHoldsForTheNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _, q := r.exceeded(t)
	r.raiseBy(t, bob, q, "40")
	r.expire(t, id)
	got := r.claim(t, "w2", 1)
	if len(got) != 1 || got[0].ID != id {
		t.Fatalf("claimed %+v", got)
	}
	r.spent(t, id, got[0].LeaseToken, tokens(40))
	if held, err := r.use(t, id, got[0].LeaseToken, tokens(41)); err != nil || held == nil {
		t.Errorf("held by %v, %v", held, err)
	}
}

func TestOfTwoApproversOfABudgetAtOnceOneRaisesIt(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(rig) (uuid.UUID, task.Question){
		"with a worker":    func(r rig) (uuid.UUID, task.Question) { id, _, q := r.exceeded(t); return id, q },
		"without a worker": func(r rig) (uuid.UUID, task.Question) { return r.orphan(t) },
	} {
		for range 3 {
			r := newRig(t)
			servers := []rig{r, rigOn(t, r.pool)}
			id, q := hold(r)
			errs := make([]error, 2)
			var both sync.WaitGroup
			for i, figure := range []string{"40", "4000"} {
				both.Go(func() {
					_, errs[i] = servers[i].Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(true), RaiseBy: figure})
				})
			}
			both.Wait()
			want, late := int64(50), errs[1] // 110 are used of 100
			if errs[0] != nil {
				want, late = 4010, errs[0]
			}
			wantFault(t, late, fault.Conflict)
			if got := r.get(t, id).Usage.Raised[task.Tokens]; got != want {
				t.Errorf("%s: raised by %d, want %d; the answers %v", name, got, want, errs)
			}
			if n := r.entries(t, "approval.decide", "allowed"); n != 1 {
				t.Errorf("%s: %d audit entries", name, n)
			}
		}
	}
}

func TestABudgetIsRaisedByNobodyOfAnotherProject(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.putBudget(t, task.ProjectBudget, "shop", tokens(100), task.AskExceeded)
	id, lease := r.runningOf(t, annInShop, task.New{})
	q := r.held110(t, id, lease)
	lead := func(project string) policy.Caller {
		return policy.Caller{UserID: "lead", SessionID: "s-" + project, ProjectID: project, Roles: []policy.Role{policy.Admin}}
	}
	for _, approve := range []bool{true, false} {
		_, err := r.Answer(t.Context(), lead("bank"), q.ID, task.Answer{Approve: &approve})
		wantFault(t, err, fault.NotFound)
		_, err = r.AnswerTask(t.Context(), lead("bank"), id, task.Answer{Approve: &approve})
		wantFault(t, err, fault.NotFound)
	}
	_, err := r.Answer(t.Context(), lead("bank"), q.ID, task.Answer{Approve: new(true), RaiseBy: "5"})
	wantFault(t, err, fault.NotFound)
	r.raiseBy(t, lead("shop"), q, "5")
	r.spent(t, id, lease, tokens(115))
}
