package task_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// flood submits n tasks of a session in a project.
func (r rig) flood(t *testing.T, session, project string, n int, change ...func(*task.New)) {
	t.Helper()
	c := policy.Caller{UserID: "ann", SessionID: session, ProjectID: project, Roles: []policy.Role{policy.Developer}}
	for n > 0 {
		batch := make([]task.New, min(n, task.MaxBatch))
		for i := range batch {
			batch[i].Description = "of " + session
			for _, f := range change {
				f(&batch[i])
			}
		}
		if _, err := r.SubmitBatch(t.Context(), c, batch, ""); err != nil {
			t.Fatal(err)
		}
		n -= len(batch)
	}
}

// turns claims n tasks, one after the other, and returns whose they were.
func (r rig) turns(t *testing.T, n int, of func(task.Lease) string) (order []string) {
	t.Helper()
	r.register(t, task.NewWorker{ID: "w"})
	for range n {
		got, _, err := r.Claim(t.Context(), task.InProcess, "w", 1, 0)
		if err != nil || len(got) != 1 {
			t.Fatalf("after %d turns: %v, %v", len(order), got, err)
		}
		order = append(order, of(got[0]))
		if err := r.report(t, got[0], task.Report{Status: task.Failed}); err != nil {
			t.Fatal(err)
		}
	}
	return order
}

func bySession(l task.Lease) string { return l.SessionID }

func TestAFloodOfOneSessionHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{true, false} {
		r := newRig(t)
		if !late {
			r.flood(t, "few", "", 10)
		}
		r.flood(t, "many", "", 3000)
		if late {
			r.turns(t, 5, bySession)
			r.flood(t, "few", "", 10)
		}
		order := r.turns(t, 22, bySession)
		if n := len(slices.DeleteFunc(order, func(s string) bool { return s != "few" })); n != 10 {
			t.Errorf("of ten tasks beside a flood, %d had their turn among the first 22 (submitted late: %v)", n, late)
		}
	}
}

func TestWhoSubmitsOneByOneTakesTurnsWithAFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.flood(t, "many", "", 500)
	served := map[string]int{}
	for range 40 {
		r.flood(t, "single", "", 1)
		for _, s := range r.turns(t, 2, bySession) {
			served[s]++
		}
	}
	if served["many"] < 35 || served["single"] < 35 {
		t.Errorf("of 80 turns: %v", served)
	}
}

func TestProjectsShareWhatRunsHoweverManySessionsTheyHave(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 9 {
		r.flood(t, fmt.Sprint("s", i), "crowd", 20)
	}
	r.flood(t, "lone", "quiet", 20)
	running := map[string]int{}
	for range 20 { // they go on running
		for _, l := range r.claim(t, "w", 1) {
			running[l.ProjectID]++
		}
	}
	if running["crowd"] != 10 || running["quiet"] != 10 {
		t.Errorf("of 20 that run: %v", running)
	}
}

func TestPriorityMovesATaskAheadButNothingStarves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.submit(t, task.New{Description: "low", Priority: -1})
	for turn := range 60 {
		r.submit(t, task.New{Description: "high"})
		if order := r.turns(t, 1, func(l task.Lease) string { return l.Description }); order[0] == "low" {
			if turn < 10 {
				t.Errorf("the lower priority had its turn after %d", turn)
			}
			return
		}
	}
	t.Error("a task starves behind those of the next higher priority")
}

func TestLimitsHoldAndHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.flood(t, "a", "", 1500, func(n *task.New) { n.ConcurrencyKey, n.ConcurrencyLimit = "deploy", 2 })
	free := r.submit(t, task.New{}).ID
	got := r.claim(t, "w", 5)
	if len(got) != 3 {
		t.Fatalf("claimed %d, of two that the key lets run and one without", len(got))
	}
	i := slices.IndexFunc(got, func(l task.Lease) bool { return l.ID != free })
	if more := r.claim(t, "w", 5); len(more) > 0 {
		t.Errorf("beyond the limit: %v", more)
	}
	if why, err := r.Delay(t.Context(), r.held(t)); err != nil || why.Reason != task.PendingLimit || why.Limit != "key:/deploy" {
		t.Errorf("a task that is held back is explained by %+v, %v", why, err)
	}
	// The next one of the key is offered as soon as one ends.
	ctx := t.Context()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	next := make(chan []task.Lease)
	go func() {
		l, _, err := r.Claim(ctx, task.InProcess, "w", 5, time.Minute)
		if err != nil {
			t.Error(err)
		}
		next <- l
	}()
	if err := r.report(t, got[i], task.Report{Status: task.Failed}); err != nil {
		t.Fatal(err)
	}
	if l := <-next; len(l) != 1 || l[0].ConcurrencyKey != "deploy" {
		t.Errorf("claimed %v", l)
	}
}

// held returns a task that a limit holds back.
func (r rig) held(t *testing.T) task.Task {
	t.Helper()
	var id uuid.UUID
	if err := r.pool.QueryRow(t.Context(), `SELECT id FROM tasks WHERE parked_by <> '' LIMIT 1`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	got, err := r.Get(t.Context(), root, id)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestALimitThatIsRaisedOrRemovedLetsTasksGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	go func() { _ = r.Run(ctx) }()
	for _, kind := range []task.LimitKind{task.LimitAll, task.LimitProject, task.LimitSession, task.LimitAgent} {
		t.Run(string(kind), func(t *testing.T) {
			r.flood(t, "s", "web", 4, func(n *task.New) { n.AgentID = "a" })
			put := func(n int) {
				t.Helper()
				if _, err := r.PutLimit(t.Context(), root, task.Limit{Kind: kind, MaxRunning: &n}); err != nil {
					t.Fatal(err)
				}
			}
			take := func(n int) (all []task.Lease) {
				t.Helper()
				for len(all) < n {
					l, _, err := r.Claim(t.Context(), task.InProcess, "w", 9, time.Minute)
					if err != nil || len(l) == 0 {
						t.Fatal(l, err)
					}
					all = append(all, l...)
				}
				return all
			}
			put(0)
			if got := r.claim(t, "w", 9); len(got) > 0 {
				t.Errorf("claimed %d where none may run", len(got))
			}
			put(1)
			got := take(1)
			if more := r.claim(t, "w", 9); len(more) > 0 {
				t.Errorf("claimed %d more than one", len(more))
			}
			if err := r.DeleteLimit(t.Context(), root, kind, ""); err != nil {
				t.Fatal(err)
			}
			for _, l := range append(got, take(3)...) {
				if err := r.report(t, l, task.Report{Status: task.Failed}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	_, err := r.PutLimit(t.Context(), ann, task.Limit{Kind: task.LimitAll, MaxRunning: new(0)})
	wantFault(t, err, fault.Forbidden)
	_, err = r.PutLimit(t.Context(), root, task.Limit{Kind: "moon", MaxRunning: new(-1)})
	wantFault(t, err, fault.Invalid)
	wantFault(t, r.DeleteLimit(t.Context(), root, task.LimitAgent, "x"), fault.NotFound)
}

func TestLimitsAreNeverExceededByClaimsAtOnceOnTwoServers(t *testing.T) {
	t.Parallel()
	one := newRig(t)
	servers := []rig{one, rigOn(t, one.pool)}
	limits := map[string]int{"all": 12, "project": 7, "session": 5, "agent": 6, "key": 2}
	for _, kind := range []task.LimitKind{task.LimitAll, task.LimitProject, task.LimitSession, task.LimitAgent} {
		if _, err := one.PutLimit(t.Context(), root, task.Limit{Kind: kind, MaxRunning: new(limits[string(kind)])}); err != nil {
			t.Fatal(err)
		}
	}
	const n = 60
	for s := range 3 {
		for p := range 2 {
			one.flood(t, fmt.Sprint("s", s), fmt.Sprint("p", p), n, func(n *task.New) {
				n.AgentID = fmt.Sprint("a", rand.N(2))
				if rand.N(2) == 0 {
					n.ConcurrencyKey, n.ConcurrencyLimit = fmt.Sprint("k", rand.N(2)), limits["key"]
				}
			})
		}
	}
	ctx := t.Context()
	for _, s := range servers {
		go func() { _ = s.Run(ctx) }()
	}
	var done sync.WaitGroup
	for w := range 8 {
		s, name := servers[w%2], fmt.Sprint("w", w)
		s.register(t, task.NewWorker{ID: name})
		done.Go(func() {
			for {
				got, _, err := s.Claim(ctx, task.InProcess, name, 1+rand.N(4), 0)
				if err != nil {
					t.Error(err)
					return
				}
				for _, l := range got {
					if err := s.report(t, l, task.Report{Status: task.Running}); err != nil {
						t.Error(err)
					}
					if err := s.report(t, l, task.Report{Status: task.Completed}); err != nil {
						t.Error(err)
					}
				}
				var open int
				if err := s.pool.QueryRow(ctx, `SELECT count(*) FROM tasks WHERE completed_at IS NULL`).Scan(&open); err != nil || open == 0 {
					return
				}
			}
		})
	}
	done.Wait()
	// What ran at the same time, by the log of events.
	for kind, group := range map[string]string{
		"all": "''", "project": "project_id", "session": "session_id", "agent": "agent_id", "key": "nullif(project_id || concurrency_key, project_id)",
	} {
		var most int
		err := one.pool.QueryRow(ctx, `
			WITH runs AS (
				SELECT `+group+` AS g, min(e.created_at) FILTER (WHERE e.status = 'planning') AS began, max(e.created_at) FILTER (WHERE e.status = 'completed') AS ended
				FROM tasks t JOIN task_events e ON e.task_id = t.id GROUP BY t.id
			)
			SELECT max(n) FROM (
				SELECT (SELECT count(*) FROM runs b WHERE b.g = a.g AND b.began <= a.began AND b.ended > a.began) AS n FROM runs a
			) x`).Scan(&most)
		if err != nil || most > limits[kind] || most < 2 {
			t.Errorf("limit of %s: %d ran at once, %v; at most %d may", kind, most, err, limits[kind])
		}
	}
}
