package task_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// comeUp lets so much time pass for the schedules, without anybody there.
func (r rig) comeUp(t *testing.T, d time.Duration) {
	t.Helper()
	if _, err := r.pool.Exec(t.Context(), `UPDATE schedules SET next_at = next_at - $1::interval, queued_at = queued_at - $1::interval`, d); err != nil {
		t.Fatal(err)
	}
}

// sweep does what is due, to its end.
func (r rig) sweep(t *testing.T) {
	t.Helper()
	for wait := time.Duration(0); wait == 0; {
		var err error
		if wait, err = r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// runs are the tasks of a schedule, oldest first.
func (r rig) runs(t *testing.T, id uuid.UUID) (all []task.Task) {
	t.Helper()
	list, _, err := r.List(t.Context(), root, task.Filter{ScheduleID: &id}, uuid.Max, 500)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

func TestATickSubmitsTheTaskByTheRightsOfItsMaker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, nil)
	if wait, err := r.Sweep(t.Context()); err != nil || wait <= 0 || len(r.runs(t, sc.ID)) != 0 {
		t.Fatalf("before its time: %v, %v, %d runs", wait, err, len(r.runs(t, sc.ID)))
	}
	r.comeUp(t, time.Hour)
	r.sweep(t)
	runs := r.runs(t, sc.ID)
	if len(runs) != 1 {
		t.Fatalf("%d runs, want 1", len(runs))
	}
	got, now := runs[0], r.schedule(t, sc.ID)
	if got.UserID != "ann" || got.SessionID != "s1" || got.ProjectID != "shop" || *got.ScheduleID != sc.ID || got.Description != "write the report" {
		t.Errorf("submitted %+v", got)
	}
	if now.LastResult != task.RunSubmitted || *now.LastTaskID != got.ID || now.LastTickAt == nil || now.Missed != 0 {
		t.Errorf("afterwards the schedule is %+v", now)
	}
	if want := now.LastTickAt.Add(time.Hour); !now.NextAt.Equal(want) {
		t.Errorf("the next tick is at %v, want %v", now.NextAt, want)
	}
	if created, submitted := r.audited(t, "schedule.create"), r.audited(t, "task.submit"); !slices.Equal(created, []string{"allowed ann shop schedule"}) ||
		!slices.Equal(submitted, []string{"allowed ann shop task"}) {
		t.Errorf("the audit log has %v, %v", created, submitted)
	}
	if leases := r.claim(t, "w", 5); len(leases) != 1 || leases[0].ID != got.ID {
		t.Errorf("a worker gets %v", leases)
	}
}

func TestTheTimerIsExact(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, nil)
	r.comeUp(t, time.Hour-300*time.Millisecond)
	submitted := make(chan struct{}, 10)
	defer r.bus.Subscribe(func(s stream.Signal) {
		if s.Topic == stream.TaskChanged {
			submitted <- struct{}{}
		}
	})()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	select {
	case <-submitted:
	case <-time.After(4 * time.Second): // before the next sweep
		t.Fatal("the tick was not noticed when it came")
	}
	if got := r.runs(t, sc.ID)[0]; got.CreatedAt.Before(*r.schedule(t, sc.ID).LastTickAt) {
		t.Errorf("submitted at %v, before its time", got.CreatedAt)
	}
}

func TestEveryTickRunsOnceHoweverManyServersThereAre(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []rig{rigOn(t, pool), rigOn(t, pool), rigOn(t, pool)}
	r := servers[0]
	const schedules, ticks = 8, 5
	var ids []uuid.UUID
	for range schedules {
		ids = append(ids, r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Task.Dispatch = task.Manual; n.Overlap = task.OverlapReplace }).ID)
	}
	for range ticks {
		r.comeUp(t, time.Hour)
		var all sync.WaitGroup
		for _, s := range servers {
			all.Go(func() {
				for range schedules {
					if _, err := s.Sweep(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	}
	for _, id := range ids {
		if runs, sc := r.runs(t, id), r.schedule(t, id); len(runs) != ticks || sc.Missed != 0 || *sc.LastTaskID != runs[ticks-1].ID {
			t.Errorf("%d runs and %d missed after %d ticks", len(runs), sc.Missed, ticks)
		}
	}
}

func TestATickThatIsCutOffIsRunByAnother(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r, other := rigOn(t, pool), rigOn(t, pool)
	sc := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Overlap = task.OverlapReplace })
	r.comeUp(t, time.Hour)
	r.sweep(t)
	r.comeUp(t, time.Hour)
	// The first server has claimed the tick, and is killed while it replaces the
	// run before, which somebody else holds.
	lock, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), `SELECT FROM tasks FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	cut := make(chan error, 1)
	ctx, kill := context.WithCancel(t.Context())
	go func() { _, err := r.Sweep(ctx); cut <- err }()
	waitForLockWait(t, pool, lock)
	if wait, err := other.Sweep(t.Context()); err != nil || wait == 0 {
		t.Errorf("meanwhile another server: %v, %v, want it to pass by", wait, err)
	}
	kill()
	if err := <-cut; err == nil {
		t.Error("the first server was not cut off")
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for len(r.runs(t, sc.ID)) < 2 { // once the database has noticed that the first server is gone
		if got := r.runs(t, sc.ID)[0].Status; got != task.Pending {
			t.Fatalf("half a run is left: the one before is %s", got)
		}
		if _, err := other.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.sweep(t)
	if runs := r.runs(t, sc.ID); len(runs) != 2 || runs[0].Status != task.Cancelled {
		t.Errorf("the runs are %v, want one more, that replaced the first", statuses(runs))
	}
}

// waitForLockWait returns when somebody waits for what a transaction holds.
func waitForLockWait(t *testing.T, pool *pgxpool.Pool, holder pgx.Tx) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		var waits bool
		err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks waiting JOIN pg_locks held USING (transactionid)
			WHERE NOT waiting.granted AND held.granted AND held.pid = $1)`, holder.Conn().PgConn().PID()).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		if waits {
			return
		}
	}
}

func TestOverlapSaysWhatBecomesOfATickWhileARunIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	manual := func(o task.Overlap) func(*task.NewSchedule) {
		return func(n *task.NewSchedule) { n.Overlap, n.Task.Dispatch = o, task.Manual }
	}
	skip := r.hourly(t, annInShop, manual(task.OverlapSkip))
	queue := r.hourly(t, annInShop, manual(task.OverlapQueue))
	replace := r.hourly(t, annInShop, manual(task.OverlapReplace))
	for range 3 {
		r.comeUp(t, time.Hour)
		r.sweep(t)
	}
	if runs, sc := r.runs(t, skip.ID), r.schedule(t, skip.ID); len(runs) != 1 || sc.LastResult != task.RunSkipped ||
		!strings.Contains(sc.LastReason, runs[0].ID.String()) || *sc.LastTaskID != runs[0].ID {
		t.Errorf("skip: %d runs, %+v", len(runs), sc)
	}
	if runs := r.runs(t, replace.ID); len(runs) != 3 || runs[0].Status != task.Cancelled || runs[1].Status != task.Cancelled || runs[2].Status != task.Pending {
		t.Errorf("replace: %v", statuses(runs))
	}
	if got := r.audited(t, "task.cancel"); !slices.Equal(got, []string{"allowed ann shop task", "allowed ann shop task"}) {
		t.Errorf("replace leaves in the audit log: %v", got)
	}
	if runs, sc := r.runs(t, queue.ID), r.schedule(t, queue.ID); len(runs) != 1 || sc.QueuedAt == nil || sc.LastResult != task.RunSkipped {
		t.Errorf("queue: %d runs, %+v", len(runs), sc)
	}
	for range 2 { // the second time there is nothing that waits
		for _, run := range r.runs(t, queue.ID) {
			if !run.Status.Terminal() {
				if _, err := r.Update(t.Context(), annInShop, run.ID, task.Patch{Status: task.Failed}); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.sweep(t)
	}
	if runs, sc := r.runs(t, queue.ID), r.schedule(t, queue.ID); len(runs) != 2 || sc.QueuedAt != nil || sc.LastResult != task.RunSubmitted {
		t.Errorf("queue, after the first had ended: %d runs, %+v", len(runs), sc)
	}
}

func statuses(tasks []task.Task) (all []task.Status) {
	for _, t := range tasks {
		all = append(all, t.Status)
	}
	return all
}

func TestAfterDowntimeTheLastTickRunsIfItIsNotTooLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	minutely := func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron, n.DeadlineSeconds = 0, "* * * * *", 90 }
	inTime := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.DeadlineSeconds = 1800 })
	tooLate := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.DeadlineSeconds = 600 })
	r.comeUp(t, 5*time.Hour+20*time.Minute)
	cron, endless := r.hourly(t, annInShop, minutely), r.hourly(t, annInShop, minutely)
	for id, past := range map[uuid.UUID]string{cron.ID: "10 minutes", endless.ID: "3 years"} {
		if _, err := r.pool.Exec(t.Context(), `UPDATE schedules SET next_at = next_at - $2::interval WHERE id = $1`, id, past); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now()
	r.sweep(t)
	for _, c := range []struct {
		what   string
		id     uuid.UUID
		runs   int
		missed int64
	}{
		{"in time", inTime.ID, 1, 4},
		{"too late", tooLate.ID, 0, 5},
	} {
		sc := r.schedule(t, c.id)
		if runs := r.runs(t, c.id); len(runs) != c.runs || sc.Missed != c.missed || !sc.NextAt.After(before) || sc.NextAt.After(before.Add(time.Hour)) {
			t.Errorf("%s: %d runs, %+v; want %d and %d missed", c.what, len(runs), sc, c.runs, c.missed)
		}
	}
	// Which minute it is may change in between.
	if sc := r.schedule(t, cron.ID); len(r.runs(t, cron.ID)) != 1 || sc.Missed < 9 || sc.Missed > 10 || sc.NextAt.Before(before) {
		t.Errorf("by the minute: %+v", sc)
	}
	if sc := r.schedule(t, endless.ID); len(r.runs(t, endless.ID)) != 1 || sc.Missed < 10_000 || sc.Missed > 10_010 || sc.NextAt.Before(before) {
		t.Errorf("by the minute, for years: %+v", sc)
	}
}

func TestAPausedScheduleMissesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Paused = true })
	if sc.NextAt != nil || sc.Upcoming(5) != nil {
		t.Errorf("made paused it comes at %v", sc.NextAt)
	}
	resumed, err := r.UpdateSchedule(t.Context(), annInShop, sc.ID, task.SchedulePatch{Paused: new(false)})
	if err != nil || resumed.NextAt == nil || len(resumed.Upcoming(5)) != 5 {
		t.Fatalf("resumed: %+v, %v", resumed, err)
	}
	r.comeUp(t, 30*time.Minute)
	paused, err := r.UpdateSchedule(t.Context(), bobInShop, sc.ID, task.SchedulePatch{Paused: new(true)})
	if err != nil || paused.NextAt != nil || paused.UserID != "ann" {
		t.Fatalf("paused: %+v, %v", paused, err)
	}
	r.sweep(t)
	again, err := r.UpdateSchedule(t.Context(), annInShop, sc.ID, task.SchedulePatch{Paused: new(false)})
	if err != nil || again.Missed != 0 || len(r.runs(t, sc.ID)) != 0 || time.Until(*again.NextAt) < 50*time.Minute {
		t.Errorf("resumed again: %+v, %v", again, err)
	}
}

func TestWhatIsDeniedByTheTimeOfTheTickIsNotSubmitted(t *testing.T) {
	t.Parallel()
	for what, deny := range map[string]func(r rig){
		"the policies changed": func(r rig) { r.rights.forbid("general-purpose", "not at night") },
		"the user is gone":     func(r rig) { r.rights.gone = map[string]bool{"ann": true} },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			sc := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Overlap = task.OverlapReplace })
			r.comeUp(t, time.Hour)
			r.sweep(t)
			deny(r)
			r.comeUp(t, time.Hour)
			r.sweep(t)
			now := r.schedule(t, sc.ID)
			if runs := r.runs(t, sc.ID); len(runs) != 1 || runs[0].Status != task.Pending {
				t.Errorf("the runs are %v: nothing is submitted, nor replaced", statuses(runs))
			}
			if now.LastResult != task.RunDenied || now.LastReason == "" || now.Paused != (what == "the user is gone") || !now.Paused && !now.NextAt.After(time.Now()) {
				t.Errorf("the schedule says %q: %q; it comes at %v", now.LastResult, now.LastReason, now.NextAt)
			}
			if got := r.audited(t, "schedule.run"); !slices.Equal(got, []string{"denied ann shop schedule"}) {
				t.Errorf("the audit log has %v", got)
			}
		})
	}
}

func TestAScheduleWithoutAnOwnerPausesItselfOnceAndSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	sc := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Overlap = task.OverlapQueue })
	r.comeUp(t, time.Hour)
	r.sweep(t)
	r.rights.gone = map[string]bool{"ann": true}
	for range 3 { // of which the first is refused, and waits for no run any more
		r.comeUp(t, time.Hour)
		r.sweep(t)
	}
	now := r.schedule(t, sc.ID)
	if !now.Paused || now.NextAt != nil || now.QueuedAt != nil || !strings.HasPrefix(now.PausedReason, "ann, by whose rights its task is submitted, is gone: ") {
		t.Errorf("the schedule is paused: %v (%s), and comes at %v", now.Paused, now.PausedReason, now.NextAt)
	}
	if got := r.audited(t, "schedule.pause"); !slices.Equal(got, []string{"allowed system shop schedule"}) {
		t.Errorf("the audit log has %v", got)
	}
	if got := r.audited(t, "schedule.run"); len(got) != 1 {
		t.Errorf("the audit log has %v", got)
	}
	// What somebody has read before must not bring it back unawares.
	if same, err := r.UpdateSchedule(ctx, bobInShop, sc.ID, task.SchedulePatch{Paused: new(true)}); err != nil || same.PausedReason != now.PausedReason {
		t.Errorf("paused once more it says %q, %v", same.PausedReason, err)
	}
	// Resumed without a new owner it gets no further.
	if resumed, err := r.UpdateSchedule(ctx, bobInShop, sc.ID, task.SchedulePatch{Paused: new(false)}); err != nil || resumed.PausedReason != "" || resumed.UserID != "ann" || resumed.NextAt == nil {
		t.Errorf("resumed: %+v, %v", resumed, err)
	}
	r.comeUp(t, time.Hour)
	r.sweep(t)
	if again := r.schedule(t, sc.ID); !again.Paused || again.PausedReason == "" {
		t.Errorf("it goes on: %+v", again)
	}
	taken, err := r.UpdateSchedule(ctx, bobInShop, sc.ID, task.SchedulePatch{Name: new("bob's now"), Paused: new(false)})
	if err != nil || taken.UserID != "bob" || taken.PausedReason != "" {
		t.Fatalf("taken over: %+v, %v", taken, err)
	}
	r.comeUp(t, time.Hour)
	r.sweep(t)
	if now := r.schedule(t, sc.ID); now.Paused || now.LastResult == task.RunDenied {
		t.Errorf("with a new owner it says %q: %q", now.LastResult, now.LastReason)
	}
}

func TestWhatCannotRunIsRecordedAndTriedAgainAtTheNextTick(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc, poison := r.hourly(t, annInShop, nil), r.hourly(t, annInShop, nil)
	if _, err := r.pool.Exec(t.Context(), `UPDATE schedules SET task = CASE id WHEN $1 THEN replace(task::text, 'general-purpose', 'idle')
		ELSE replace(task::text, 'the report', 'the\u0000report') END::json`, sc.ID); err != nil {
		t.Fatal(err)
	}
	r.comeUp(t, time.Hour)
	r.sweep(t)
	for id, want := range map[uuid.UUID]string{sc.ID: "needs a model", poison.ID: ""} {
		now := r.schedule(t, id)
		if now.LastResult != task.RunFailed || !strings.Contains(now.LastReason, want) || len(r.runs(t, id)) != 0 || !now.NextAt.After(time.Now()) {
			t.Errorf("the schedule says %q: %q", now.LastResult, now.LastReason)
		}
	}
}

func TestTriggerRunsAtOnceByTheRightsOfWhoAsks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, func(n *task.NewSchedule) { n.Paused = true; n.Task.Dispatch = task.Manual })
	for _, c := range []policy.Caller{bobInShop, root} {
		got, err := r.TriggerSchedule(t.Context(), c, sc.ID)
		if err != nil || got.UserID != c.UserID || got.SessionID != c.SessionID || got.ProjectID != "shop" || *got.ScheduleID != sc.ID {
			t.Errorf("triggered by %s: %+v, %v", c.UserID, got, err)
		}
	}
	now := r.schedule(t, sc.ID)
	if now.LastResult != task.RunSubmitted || now.LastTickAt != nil || *now.LastTaskID != r.runs(t, sc.ID)[1].ID || !now.Paused || now.UserID != "ann" {
		t.Errorf("afterwards the schedule is %+v", now)
	}
	_, err := r.TriggerSchedule(t.Context(), policy.Caller{UserID: "eve", ProjectID: "shop", Roles: []policy.Role{policy.ReadOnly}}, sc.ID)
	wantFault(t, err, fault.Forbidden)
	if denials := r.rights.denials(); len(denials) != 1 || denials[0].Action != "schedule.run" {
		t.Errorf("recorded %+v", denials)
	}
}
