package task_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

func (r rig) limit(t *testing.T, l task.Limit) {
	t.Helper()
	if _, err := r.PutLimit(t.Context(), root, l); err != nil {
		t.Fatal(err)
	}
}

// claimAll claims until nothing comes at once, and returns how many came.
func (r rig) claimAll(t *testing.T, worker string) (n int) {
	t.Helper()
	for {
		got := r.claim(t, worker, 5)
		if len(got) == 0 {
			return n
		}
		n += len(got)
	}
}

func TestARateHoldsForClaimsAtOnceOnTwoServers(t *testing.T) {
	t.Parallel()
	one := newRig(t)
	servers := []rig{one, rigOn(t, one.pool)}
	const perSecond, burst, tasks = 50, 7, 60
	one.limit(t, task.Limit{Kind: task.LimitAgent, Name: "model", Rate: &task.Rate{Tasks: perSecond, Seconds: 1, Burst: burst}})
	one.flood(t, "s", "p", tasks, func(n *task.New) { n.AgentID = "model" })
	for _, s := range servers {
		go func() { _ = s.Run(t.Context()) }()
	}
	var done sync.WaitGroup
	var mu sync.Mutex
	claimed := 0
	for w := range 8 {
		s, name := servers[w%2], fmt.Sprint("w", w)
		s.register(t, task.NewWorker{ID: name})
		done.Go(func() {
			for {
				got, _, err := s.Claim(t.Context(), task.InProcess, name, 3, time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				claimed += len(got)
				enough := claimed == tasks
				mu.Unlock()
				if enough || len(got) == 0 {
					return
				}
			}
		})
	}
	done.Wait()
	if claimed != tasks {
		t.Fatalf("%d of %d tasks were claimed", claimed, tasks)
	}
	// By the database's clock: from any start on, no more in any time than the
	// bucket held and was filled with meanwhile.
	var excess float64
	err := one.pool.QueryRow(t.Context(), `
		WITH starts AS (SELECT created_at AS at FROM task_events WHERE status = 'planning')
		SELECT max((SELECT count(*) FROM starts c WHERE c.at BETWEEN a.at AND b.at) - $1 - $2 * extract(epoch FROM b.at - a.at))::float8
		FROM starts a JOIN starts b ON b.at >= a.at`, burst, perSecond).Scan(&excess)
	// A claim looks at the clock a little before it writes its events.
	if err != nil || excess > 1 {
		t.Errorf("%.2f tasks more were begun than the rate allows: %v", excess, err)
	}
}

func TestARateParksTasksAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.limit(t, task.Limit{Kind: task.LimitAgent, Name: "model", Rate: &task.Rate{Tasks: 3, Seconds: 3600}})
	r.flood(t, "s", "p", 10, func(n *task.New) { n.AgentID = "model" })
	other := r.submit(t, task.New{})
	if n := r.claimAll(t, "w"); n != 4 {
		t.Fatalf("%d tasks were claimed, want three of the agent with a rate and one of another", n)
	}
	if got := r.get(t, other.ID); got.Status != task.Planning {
		t.Errorf("a task of another agent is %s", got.Status)
	}
	waiting := r.held(t)
	why, err := r.Delay(t.Context(), waiting)
	if err != nil || why == nil || why.Reason != task.PendingRate || why.Limit != "rate:model" {
		t.Errorf("it is said of a held task: %+v, %v", why, err)
	}

	// A rate that is changed counts what was begun before; one that is gone
	// holds nothing back.
	go func() { _ = r.Run(t.Context()) }()
	r.limit(t, task.Limit{Kind: task.LimitAgent, Name: "model", Rate: &task.Rate{Tasks: 5, Seconds: 3600}})
	if n := r.claimAll(t, "w"); n != 0 {
		t.Errorf("a greater burst alone let %d tasks go", n)
	}
	if err := r.DeleteLimit(t.Context(), root, task.LimitAgent, "model"); err != nil {
		t.Fatal(err)
	}
	for left := 7; left > 0; {
		got, _, err := r.Claim(t.Context(), task.InProcess, "w", 5, 20*time.Second)
		if err != nil || len(got) == 0 {
			t.Fatalf("%d tasks were not let go: %v", left, err)
		}
		left -= len(got)
	}
}

func TestALimitTakesThePlaceOfARate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.limit(t, task.Limit{Kind: task.LimitAgent, Name: "model", Rate: &task.Rate{Tasks: 1, Seconds: 3600}})
	r.limit(t, task.Limit{Kind: task.LimitAgent, Name: "model", MaxRunning: new(2)})
	if all, err := r.Limits(t.Context()); err != nil || len(all) != 1 || all[0].Rate != nil || *all[0].MaxRunning != 2 {
		t.Errorf("the limits are %+v, %v", all, err)
	}
	r.flood(t, "s", "p", 3, func(n *task.New) { n.AgentID = "model" })
	if n := r.claimAll(t, "w"); n != 2 {
		t.Errorf("%d tasks were claimed, want as many as may run at once", n)
	}
}

func TestRatesAreOfNamedAgents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, l := range []task.Limit{
		{Kind: task.LimitAgent, Rate: &task.Rate{Tasks: 1, Seconds: 1}},
		{Kind: task.LimitProject, Name: "p", Rate: &task.Rate{Tasks: 1, Seconds: 1}},
		{Kind: task.LimitAgent, Name: "a"},
		{Kind: task.LimitAgent, Name: "a", Rate: &task.Rate{Seconds: 1}},
		{Kind: task.LimitAgent, Name: "a", Rate: &task.Rate{Tasks: 1}},
		{Kind: task.LimitAgent, Name: "a", Rate: &task.Rate{Tasks: 1, Seconds: 1, Burst: -1}},
	} {
		_, err := r.PutLimit(t.Context(), root, l)
		wantFault(t, err, fault.Invalid)
	}
	// A rate alone leaves the limit for each agent in force.
	r.limit(t, task.Limit{Kind: task.LimitAgent, MaxRunning: new(1)})
	r.limit(t, task.Limit{Kind: task.LimitAgent, Name: "a", Rate: &task.Rate{Tasks: 100, Seconds: 1}})
	r.flood(t, "s", "p", 3, func(n *task.New) { n.AgentID = "a" })
	if n := r.claimAll(t, "w"); n != 1 {
		t.Errorf("%d tasks were claimed beside a limit of one", n)
	}
}

func TestWhatIsPausedIsNotBegunUntilResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	go func() { _ = r.Run(t.Context()) }()
	inSession := func(n *task.New) { n.SessionID, n.AgentID = "s1", "b" }
	for _, p := range []struct {
		pause task.Pause
		of    func(*task.New)
	}{
		{task.Pause{Kind: task.PauseAgent, Name: "a", Reason: "it costs too much"}, func(n *task.New) { n.AgentID = "a" }},
		{task.Pause{Kind: task.PauseSession, Name: "s1"}, inSession},
	} {
		if _, err := r.Pause(t.Context(), root, p.pause); err != nil {
			t.Fatal(err)
		}
		n := task.New{Description: "d"}
		p.of(&n)
		held, err := r.Submit(t.Context(), root, n, "")
		if err != nil {
			t.Fatal(err)
		}
		if n := r.claimAll(t, "w"); n != 0 {
			t.Errorf("%d tasks of a paused %s were claimed", n, p.pause.Kind)
		}
		why, err := r.Delay(t.Context(), r.get(t, held.ID))
		if err != nil || why == nil || why.Reason != task.PendingPaused || why.Pause == nil || why.Pause.Name != p.pause.Name ||
			why.Pause.PausedBy != root.UserID || why.Pause.Reason != p.pause.Reason {
			t.Errorf("it is said of a held task: %+v, %v", why, err)
		}
		again, err := r.Pause(t.Context(), root, task.Pause{Kind: p.pause.Kind, Name: p.pause.Name, Reason: "another"})
		if err != nil || again.Reason != p.pause.Reason {
			t.Errorf("a second pause made it %+v, %v", again, err)
		}
		for range 2 {
			if err := r.Resume(t.Context(), root, p.pause.Kind, p.pause.Name); err != nil {
				t.Fatal(err)
			}
		}
		got, _, err := r.Claim(t.Context(), task.InProcess, "w", 1, 20*time.Second)
		if err != nil || len(got) != 1 || got[0].ID != held.ID {
			t.Errorf("after the pause came %v, %v", got, err)
		}
	}
	if all, err := r.Pauses(t.Context(), root); err != nil || len(all) != 0 {
		t.Errorf("still paused: %v, %v", all, err)
	}
}

func TestAgentsAreNotForMembersOfAProjectToPause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mine := policy.Caller{UserID: "local:eve", SessionID: "hers", ProjectID: "p", Roles: []policy.Role{policy.Developer}}
	if _, err := r.Pause(t.Context(), mine, task.Pause{Kind: task.PauseSession, Name: "hers"}); err != nil {
		t.Fatal(err)
	}
	_, err := r.Pause(t.Context(), mine, task.Pause{Kind: task.PauseAgent, Name: "a"})
	wantFault(t, err, fault.Forbidden)
	if all, err := r.Pauses(t.Context(), mine); err != nil || len(all) != 1 {
		t.Errorf("she sees %v, %v", all, err)
	}
	if all, err := r.Pauses(t.Context(), policy.Caller{UserID: "local:bob", SessionID: "his", ProjectID: "p"}); err != nil || len(all) != 0 {
		t.Errorf("he sees %v, %v", all, err)
	}
}
