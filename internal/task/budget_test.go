package task_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

func tokens(n int64) task.Amounts { return task.Amounts{task.Tokens: n} }

// use reports what the attempt has used so far.
func (r rig) use(t *testing.T, id, lease uuid.UUID, total task.Amounts) (*task.Question, error) {
	t.Helper()
	return r.Use(t.Context(), task.InProcess, id, lease, []task.Used{{Total: total}}, false)
}

// spent is use that holds nobody and fails nothing.
func (r rig) spent(t *testing.T, id, lease uuid.UUID, total task.Amounts) {
	t.Helper()
	if held, err := r.use(t, id, lease, total); held != nil || err != nil {
		t.Fatalf("use of %v: held by %v, %v", total, held, err)
	}
}

func (r rig) budget(t *testing.T, c policy.Caller, kind task.BudgetScope, name string) task.ScopeBudget {
	t.Helper()
	b, err := r.Budget(t.Context(), c, kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r rig) putBudget(t *testing.T, kind task.BudgetScope, name string, most task.Amounts, then task.OnExceeded) {
	t.Helper()
	if _, err := r.PutBudget(t.Context(), root, kind, name, task.Budget{Most: most, OnExceeded: then}); err != nil {
		t.Fatal(err)
	}
}

// messages counts the events of a task whose message contains the text.
func (r rig) messages(t *testing.T, id uuid.UUID, text string) (n int) {
	t.Helper()
	for _, e := range r.history(t, id) {
		if strings.Contains(e.Message, text) {
			n++
		}
	}
	return n
}

func TestUsageIsSummedExactlyOverReportsAtOnceOnTwoServers(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool)}
	const tasks, reports = 6, 20
	var wg sync.WaitGroup
	for i := range tasks {
		r := servers[i%2]
		id := r.submit(t, task.New{SessionID: "s", ProjectID: "shop", AgentID: fmt.Sprint("a", i)}).ID
		r.register(t, task.NewWorker{ID: fmt.Sprint("w", i), Agents: []string{fmt.Sprint("a", i)}})
		leases, _, err := r.Claim(t.Context(), task.InProcess, fmt.Sprint("w", i), 1, 0)
		if err != nil || len(leases) != 1 {
			t.Fatal(leases, err)
		}
		wg.Go(func() {
			for n := int64(1); n <= reports; n++ {
				total := task.Amounts{task.Tokens: 7 * n, "USD": 333_333 * n, task.ToolCalls: n}
				for range 2 { // the answer to the first was lost
					if _, err := servers[n%2].Use(t.Context(), task.InProcess, id, leases[0].LeaseToken, []task.Used{{Total: total}}, false); err != nil {
						t.Error(err)
					}
				}
			}
			// One that comes late tells of less, and changes nothing.
			if _, err := r.Use(t.Context(), task.InProcess, id, leases[0].LeaseToken, []task.Used{{Total: tokens(1)}}, false); err != nil {
				t.Error(err)
			}
			want := task.Amounts{task.Tokens: 7 * reports, "USD": 333_333 * reports, task.ToolCalls: reports}
			if got := r.get(t, id).Usage.Used; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the task used %v, want %v", got, want)
			}
			if n := r.messages(t, id, "used so far"); n != reports {
				t.Errorf("%d events of use, want %d", n, reports)
			}
		})
	}
	wg.Wait()
	want := task.Amounts{task.Tokens: 7 * reports * tasks, "USD": 333_333 * reports * tasks, task.ToolCalls: reports * tasks}
	for kind, name := range map[task.BudgetScope]string{task.SessionBudget: "s", task.ProjectBudget: "shop"} {
		if got := servers[0].budget(t, root, kind, name); fmt.Sprint(got.Used) != fmt.Sprint(want) {
			t.Errorf("the %s used %v, want %v", kind, got.Used, want)
		}
	}
}

func TestTotalsOfASourceAreNotAddedUpOverAttempts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, first := r.running(t, task.New{SessionID: "s"})
	use := func(lease uuid.UUID, used ...task.Used) {
		t.Helper()
		if _, err := r.Use(t.Context(), task.InProcess, id, lease, used, false); err != nil {
			t.Fatal(err)
		}
	}
	use(first, task.Used{Source: "session:1", Total: tokens(100)}, task.Used{Total: task.Amounts{task.ToolCalls: 3}})
	if err := r.Report(t.Context(), task.InProcess, id, first, task.Report{Release: true}); err != nil {
		t.Fatal(err)
	}
	l := r.claim(t, "w", 1)[0]
	_, err := r.use(t, id, first, tokens(1_000_000))
	wantFault(t, err, fault.LeaseLost)
	// The session goes on, and its totals with it; the tool calls of the attempt
	// begin anew.
	use(l.LeaseToken, task.Used{Source: "session:1", Total: tokens(150)}, task.Used{Total: task.Amounts{task.ToolCalls: 2}})
	want := task.Amounts{task.Tokens: 150, task.ToolCalls: 5}
	if got := r.get(t, id).Usage.Used; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the task used %v, want %v", got, want)
	}
	if got := r.budget(t, root, task.SessionBudget, "s").Used; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the session used %v, want %v", got, want)
	}
}

func TestTheEndOfABudgetIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.putBudget(t, task.ProjectBudget, "", task.Amounts{"USD": 1_000_000}, task.FailExceeded)
	id, lease := r.running(t, task.New{ProjectID: "shop", Budget: &task.Budget{Most: tokens(100)}})
	for _, step := range []struct {
		total    task.Amounts
		warnings int
	}{
		{task.Amounts{task.Tokens: 79, "USD": 790_000}, 0},
		{task.Amounts{task.Tokens: 80, "USD": 790_000}, 1},
		{task.Amounts{task.Tokens: 90, "USD": 800_000}, 2},
		{task.Amounts{task.Tokens: 100, "USD": 1_000_000}, 2}, // all of it, and no more
	} {
		r.spent(t, id, lease, step.total)
		if n := r.messages(t, id, "are used"); n != step.warnings {
			t.Errorf("%d warnings after %v, want %d", n, step.total, step.warnings)
		}
	}
	if n := r.messages(t, id, "0.80 USD of 1.00 USD of the budget of project shop for "+time.Now().UTC().Format("2006-01")+" are used"); n != 1 {
		t.Errorf("the history holds %v", r.history(t, id))
	}
	if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Completed}); err != nil {
		t.Error(err)
	}
}

func TestATaskThatUsesMoreThanItsBudgetFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lost := make(chan string, 10)
	defer r.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.LeaseLost {
			lost <- s.ID
		}
	})()
	id, lease := r.running(t, task.New{MaxAttempts: 3, Budget: &task.Budget{Most: task.Amounts{"USD": 1_500_000}}})
	after := r.submit(t, task.New{DependsOn: []uuid.UUID{id}}).ID
	_, err := r.use(t, id, lease, task.Amounts{"USD": 1_500_001})
	wantFault(t, err, fault.LeaseLost)
	got := r.get(t, id)
	if got.Status != task.Failed || got.StatusReason != "budget-exceeded" || got.Error != "1.500001 USD of 1.50 USD of the task's budget are used" || got.Usage.Used["USD"] != 1_500_001 {
		t.Errorf("the task is %s %s: %q, and used %v", got.Status, got.StatusReason, got.Error, got.Usage)
	}
	if worker := <-lost; worker != "w" {
		t.Errorf("told worker %q", worker)
	}
	if got := r.get(t, after); got.Status != task.Failed || got.StatusReason != task.ReasonDependency {
		t.Errorf("what depends on it is %s %s", got.Status, got.StatusReason)
	}
	if events := r.history(t, id); string(events[len(events)-1].Data) != `{"reason" : "budget-exceeded"}` {
		t.Errorf("the last event is %+v", events[len(events)-1])
	}
	_, err = r.use(t, id, lease, task.Amounts{"USD": 1_500_002})
	wantFault(t, err, fault.LeaseLost)
}

func TestWhatAnAgentUsesUntilItsEndCountsAndStopsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{Budget: &task.Budget{Most: tokens(1)}})
	held, err := r.Use(t.Context(), task.InProcess, id, lease, []task.Used{{Total: tokens(5)}}, true)
	if held != nil || err != nil {
		t.Fatal(held, err)
	}
	if err := r.Report(t.Context(), task.InProcess, id, lease, task.Report{Status: task.Completed}); err != nil {
		t.Error(err)
	}
	if got := r.get(t, id); got.Status != task.Completed || got.Usage.Used[task.Tokens] != 5 {
		t.Errorf("the task is %s, and used %v", got.Status, got.Usage)
	}
}

func TestAnApprovalRaisesABudgetByItsAmount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{Budget: &task.Budget{Most: tokens(100), OnExceeded: task.AskExceeded}})
	held, err := r.use(t, id, lease, tokens(110))
	if err != nil || held == nil || held.Kind != task.Approval || held.Budget == nil || held.Budget.Limit != 100 || held.Budget.Used != 110 {
		t.Fatalf("held by %+v, %v", held, err)
	}
	again, err := r.use(t, id, lease, tokens(115)) // the answer was lost
	if err != nil || again == nil || again.ID != held.ID {
		t.Fatalf("held by %+v, %v", again, err)
	}
	if got := r.get(t, id); got.Status != task.Waiting || got.WaitingReason != task.ForApproval {
		t.Errorf("the task is %s %s", got.Status, got.WaitingReason)
	}
	if _, err := r.Answer(t.Context(), bob, held.ID, task.Answer{Approve: new(true)}); err != nil {
		t.Fatal(err)
	}
	if got := r.get(t, id); got.Status != task.Running {
		t.Errorf("the task is %s %s", got.Status, got.StatusReason)
	}
	r.spent(t, id, lease, tokens(215))
	if held, err = r.use(t, id, lease, tokens(216)); err != nil || held == nil || held.Budget.Limit != 215 {
		t.Errorf("held by %+v, %v", held, err)
	}
	r.told(t, id, "open/waiting approved/running open/waiting")
	if n := r.entries(t, "approval.decide", "allowed"); n != 1 {
		t.Errorf("%d audit entries", n)
	}
}

func TestWithoutAnApprovalTheTaskFails(t *testing.T) {
	t.Parallel()
	for name, no := range map[string]func(*testing.T, rig, *task.Question){
		"denied": func(t *testing.T, r rig, q *task.Question) {
			if _, err := r.Answer(t.Context(), bob, q.ID, task.Answer{Approve: new(false)}); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(t *testing.T, r rig, q *task.Question) {
			if _, err := r.pool.Exec(t.Context(), `UPDATE questions SET expires_at = now() WHERE id = $1`, q.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			lost := make(chan string, 10)
			defer r.bus.Subscribe(func(s stream.Signal) {
				if s.Topic == stream.LeaseLost {
					lost <- s.ID
				}
			})()
			id, lease := r.running(t, task.New{Budget: &task.Budget{Most: tokens(100), OnExceeded: task.AskExceeded}})
			r.ask(t, id, lease, task.NewQuestion{}) // of the agent's own
			q, err := r.use(t, id, lease, tokens(101))
			if err != nil {
				t.Fatal(err)
			}
			no(t, r, q)
			if got := r.get(t, id); got.Status != task.Failed || got.StatusReason != task.ReasonBudget {
				t.Errorf("the task is %s %s", got.Status, got.StatusReason)
			}
			if worker := <-lost; worker != "w" {
				t.Errorf("told worker %q", worker)
			}
			r.told(t, id, "open/waiting open/waiting "+name+"/waiting withdrawn/waiting")
		})
	}
}

func TestANewAttemptIsHeldUntilTheBudgetIsRaised(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.putBudget(t, task.SessionBudget, "s", tokens(100), task.AskExceeded)
	id, lease := r.running(t, task.New{SessionID: "s"})
	first, err := r.use(t, id, lease, tokens(101))
	if err != nil {
		t.Fatal(err)
	}
	r.register(t, task.NewWorker{ID: "w", Instance: uuid.New()}) // its process was killed
	r.told(t, id, "open/waiting withdrawn/waiting")
	l := r.claim(t, "w2", 1)[0]
	if l.Usage == nil {
		t.Fatal("the worker is not told that something was used")
	}
	held, err := r.Use(t.Context(), task.InProcess, id, l.LeaseToken, nil, false)
	if err != nil || held == nil || held.ID == first.ID {
		t.Fatalf("held by %+v, %v", held, err)
	}
	_, err = r.Answer(t.Context(), bob, held.ID, task.Answer{Approve: new(true)})
	wantFault(t, err, fault.Forbidden) // he may not set it
	if _, err := r.Answer(t.Context(), root, held.ID, task.Answer{Approve: new(true)}); err != nil {
		t.Fatal(err)
	}
	if held, err := r.Use(t.Context(), task.InProcess, id, l.LeaseToken, nil, false); held != nil || err != nil {
		t.Errorf("after the approval: %v, %v", held, err)
	}
	if b := r.budget(t, root, task.SessionBudget, "s"); b.Raised[task.Tokens] != 101 || b.Used[task.Tokens] != 101 {
		t.Errorf("the budget is %+v", b)
	}
}

func TestOfManyApprovalsOneRaisesASharedBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.putBudget(t, task.ProjectBudget, "shop", tokens(100), task.AskExceeded)
	one, oneLease := r.running(t, task.New{ProjectID: "shop"})
	r.spent(t, one, oneLease, tokens(60))
	two, twoLease := r.running(t, task.New{ProjectID: "shop"})
	first, err := r.use(t, two, twoLease, tokens(60))
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	second, err := r.use(t, one, oneLease, tokens(70))
	if err != nil || second == nil {
		t.Fatal(second, err)
	}
	for _, q := range []*task.Question{first, second} {
		if _, err := r.Answer(t.Context(), root, q.ID, task.Answer{Approve: new(true)}); err != nil {
			t.Fatal(err)
		}
	}
	if b := r.budget(t, root, task.ProjectBudget, "shop"); b.Raised[task.Tokens] != 130 {
		t.Errorf("raised by %v", b.Raised)
	}
}

func TestTasksOfAnExhaustedBudgetAreNotClaimedUntilItIsRaised(t *testing.T) {
	t.Parallel()
	for kind, n := range map[task.BudgetScope]task.New{
		task.SessionBudget: {SessionID: "x"}, task.ProjectBudget: {ProjectID: "x"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.putBudget(t, kind, "x", tokens(100), task.FailExceeded)
			first, lease := r.running(t, n)
			r.spent(t, first, lease, tokens(100))
			id := r.submit(t, n).ID
			other := r.submit(t, task.New{SessionID: "y", ProjectID: "y"}).ID
			if got := r.claim(t, "w2", 10); len(got) != 1 || got[0].ID != other {
				t.Fatalf("claimed %v", got)
			}
			why, err := r.Delay(t.Context(), r.get(t, id))
			if err != nil || why == nil || why.Reason != task.PendingBudget || why.Limit != string(kind)+":x" {
				t.Errorf("it waits for %+v, %v", why, err)
			}
			if err := r.Prepare(t.Context()); err != nil { // looks what may go on
				t.Fatal(err)
			}
			if got := r.claim(t, "w2", 10); len(got) != 0 {
				t.Errorf("claimed %v", got)
			}
			r.putBudget(t, kind, "x", tokens(200), task.FailExceeded)
			if err := r.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := r.claim(t, "w2", 10); len(got) != 1 || got[0].ID != id {
				t.Errorf("claimed %v", got)
			}
		})
	}
}

func TestWhatIsNoAmountIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	for name, used := range map[string][]task.Used{
		"negative":     {{Total: tokens(-1)}},
		"too much":     {{Total: tokens(task.MaxAmount + 1)}},
		"no currency":  {{Total: task.Amounts{"usd": 1}}},
		"long source":  {{Source: strings.Repeat("x", 129)}},
		"NUL":          {{Source: "\x00"}},
		"many sources": make([]task.Used, 33),
	} {
		_, err := r.Use(t.Context(), task.InProcess, id, lease, used, false)
		if fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string]task.Budget{
		"nothing":  {},
		"none":     {Most: tokens(0)},
		"negative": {Most: tokens(-5)},
		"too much": {Most: task.Amounts{"USD": task.MaxAmount + 1}},
		"then":     {Most: tokens(5), OnExceeded: "explode"},
	} {
		_, err := r.Submit(t.Context(), ann, task.New{Description: "d", Budget: &b}, "")
		if fault.CodeOf(err) != fault.Invalid {
			t.Errorf("a budget of %s: %v", name, err)
		}
		_, err = r.PutBudget(t.Context(), root, task.ProjectBudget, "p", b)
		wantFault(t, err, fault.Invalid)
	}
	if got := r.get(t, id); got.Usage != nil {
		t.Errorf("counted %v", got.Usage)
	}
}

func TestSumsStopAtTheirMost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{ProjectID: "p"})
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO spending (kind, name, period, unit, used) VALUES ('project', 'p', budget_period('project'), 'tokens', 8999999999999999999)`); err != nil {
		t.Fatal(err)
	}
	r.spent(t, id, lease, tokens(task.MaxAmount))
	if got := r.budget(t, root, task.ProjectBudget, "p").Used[task.Tokens]; got != 9_000_000_000_000_000_000 {
		t.Errorf("the project used %d", got)
	}
}

func TestATaskHasABoundedNumberOfSources(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, lease := r.running(t, task.New{})
	if _, err := r.pool.Exec(t.Context(), `UPDATE tasks SET usage = jsonb_build_object('used', '{}'::jsonb, 'sources',
		(SELECT jsonb_object_agg('s' || n, '{"tokens":1}'::jsonb) FROM generate_series(1, 1000) n)) WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	_, err := r.use(t, id, lease, tokens(1))
	wantFault(t, err, fault.Conflict)
	if _, err = r.Use(t.Context(), task.InProcess, id, lease, []task.Used{{Source: "s7", Total: tokens(3)}}, false); err != nil {
		t.Error(err)
	}
	if got := r.get(t, id).Usage.Used[task.Tokens]; got != 2 {
		t.Errorf("counted %d more", got)
	}
}

func TestBudgetsOfOtherProjectsAreNeitherSeenNorSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	leadOf := func(project, session string) policy.Caller {
		return policy.Caller{UserID: "lead", SessionID: session, ProjectID: project, Roles: []policy.Role{policy.Admin}}
	}
	shop, bank := leadOf("shop", "s-shop"), leadOf("bank", "s-bank")
	most := task.Budget{Most: tokens(5)}
	if _, err := r.Submit(ctx, annInShop, task.New{Description: "d", Dispatch: task.Manual}, ""); err != nil {
		t.Fatal(err)
	}
	r.putBudget(t, task.ProjectBudget, "", tokens(9), task.FailExceeded)
	for _, s := range []struct {
		kind task.BudgetScope
		name string
	}{{task.ProjectBudget, "shop"}, {task.SessionBudget, "s-shop"}, {task.SessionBudget, annInShop.SessionID}} {
		if _, err := r.PutBudget(ctx, shop, s.kind, s.name, most); err != nil {
			t.Errorf("its own %s %s: %v", s.kind, s.name, err)
		}
		_, err := r.PutBudget(ctx, bank, s.kind, s.name, most)
		wantFault(t, err, fault.NotFound)
		_, err = r.Budget(ctx, bank, s.kind, s.name)
		wantFault(t, err, fault.NotFound)
		wantFault(t, r.DeleteBudget(ctx, bank, s.kind, s.name), fault.NotFound)
	}
	_, err := r.PutBudget(ctx, shop, task.ProjectBudget, "", most)
	wantFault(t, err, fault.Forbidden)
	_, err = r.PutBudget(ctx, annInShop, task.ProjectBudget, "shop", most)
	wantFault(t, err, fault.Forbidden) // a developer
	named := func(c policy.Caller) (names []string) {
		all, err := r.Budgets(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			names = append(names, string(b.Kind)+":"+b.Name)
		}
		return names
	}
	if got := named(bank); !slices.Equal(got, []string{"project:"}) {
		t.Errorf("the bank sees %v", got)
	}
	got := named(shop)
	slices.Sort(got)
	if !slices.Equal(got, []string{"project:", "project:shop", "session:s-shop", "session:s1"}) {
		t.Errorf("the shop sees %v", got)
	}
	if err := r.DeleteBudget(ctx, shop, task.ProjectBudget, "shop"); err != nil {
		t.Error(err)
	}
	wantFault(t, r.DeleteBudget(ctx, shop, task.ProjectBudget, "shop"), fault.NotFound)
	if n := r.entries(t, "budget.put", "allowed"); n != 4 {
		t.Errorf("%d audit entries", n)
	}
}

func TestABudgetIsCopiedByARetryAndKeptByASchedule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := task.Budget{Most: task.Amounts{"EUR": 2_000_000, task.ToolCalls: 3}, OnExceeded: task.AskExceeded}
	id := r.submit(t, task.New{Budget: &want}).ID
	if _, err := r.Cancel(t.Context(), ann, id); err != nil {
		t.Fatal(err)
	}
	again, err := r.Retry(t.Context(), ann, id, "")
	if err != nil {
		t.Fatal(err)
	}
	sc, err := r.CreateSchedule(t.Context(), ann, task.NewSchedule{Name: "n", IntervalSeconds: 60, Task: task.New{Description: "d", Budget: &want}}, "")
	if err != nil {
		t.Fatal(err)
	}
	run, err := r.TriggerSchedule(t.Context(), ann, sc.ID)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(b *task.Budget) string {
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, got := range map[string]uuid.UUID{"the retry": again.ID, "the run": run.ID} {
		if b := r.get(t, got).Budget; encode(b) != encode(&want) {
			t.Errorf("%s has %s", name, encode(b))
		}
	}
}

func TestMoneyIsReadAndWrittenExactly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "1.5": 1_500_000, "0.000001": 1, "999999999.999999": 999_999_999_999_999, "007": 7_000_000} {
		if got, ok := task.ParseMoney(text); !ok || got != want {
			t.Errorf("%s is %d %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1e3", "NaN", "Inf", "0x1", "1.0000001", "1000000000", ".5", "1.", "1,5", " 1", "１"} {
		if got, ok := task.ParseMoney(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
	for amount, want := range map[int64]string{0: "0.00", 1: "0.000001", 1_500_000: "1.50", 1_234_567: "1.234567", 123_400_000: "123.40"} {
		if got := task.FormatMoney(amount); got != want {
			t.Errorf("%d is %s", amount, got)
		}
	}
}
