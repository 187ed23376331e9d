package task_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

func TestTicksFollowTheClocksOfTheZone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, cron, zone, from, want string }{
		{"a fixed hour that the clocks skip comes when they do", "30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z",
			"2026-03-28T01:30:00Z 2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"several of them come once", "*/20 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
			"2026-03-29T01:00:00Z 2026-03-30T00:00:00Z 2026-03-30T00:20:00Z"},
		{"with the hour after they come once", "0 2,3 * * *", "Europe/Berlin", "2026-03-28T03:00:00Z",
			"2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"a fixed hour that is shown twice comes the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			"2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"also when asked between the two", "15,45 2 * * *", "Europe/Berlin", "2026-10-25T01:05:00Z",
			"2026-10-26T01:15:00Z"},
		{"every hour goes by the time that passes over a gap", "30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
			"2026-03-29T00:30:00Z 2026-03-29T01:30:00Z 2026-03-29T02:30:00Z"},
		{"and over a repeat", "30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
			"2026-10-25T00:30:00Z 2026-10-25T01:30:00Z 2026-10-25T02:30:00Z"},
		{"a midnight that there is not", "0 0 * * *", "America/Santiago", "2026-09-05T05:00:00Z",
			"2026-09-06T04:00:00Z 2026-09-07T03:00:00Z"},
		{"a midnight that there is twice", "15 23 * * *", "America/Santiago", "2026-04-04T12:00:00Z",
			"2026-04-05T02:15:00Z 2026-04-06T03:15:00Z"},
		{"clocks that change by half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z",
			"2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		{"a day that was skipped whole", "0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z",
			"2011-12-29T22:00:00Z 2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},
		{"an offset of quarters of hours", "0 9 * * 1-5", "Asia/Kathmandu", "2026-07-03T04:00:00Z",
			"2026-07-06T03:15:00Z 2026-07-07T03:15:00Z"},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"a leap day that is a Sunday", "0 1 29 2 */7", "Europe/Berlin", "2026-01-01T00:00:00Z",
			"2032-02-29T00:00:00Z 2060-02-29T00:00:00Z 2088-02-29T00:00:00Z 2128-02-29T00:00:00Z"},
		{"day of the month or of the week, if both are named", "0 0 13 * 5", "UTC", "2026-11-01T00:00:00Z",
			"2026-11-06T00:00:00Z 2026-11-13T00:00:00Z 2026-11-20T00:00:00Z"},
		{"Sunday by both its numbers", "0 0 * * 7", "UTC", "2026-11-02T00:00:00Z", "2026-11-08T00:00:00Z"},
	} {
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(c.want)
		sc := task.Schedule{Cron: c.cron, TimeZone: c.zone, NextAt: &from}
		var got []string
		for _, at := range sc.Upcoming(len(want) + 1)[1:] {
			got = append(got, at.Format(time.RFC3339))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s (%s in %s): %v, want %v", c.what, c.cron, c.zone, got, want)
		}
	}
}

func TestADailyTickComesOnceADayInEveryZone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, hour := range []int{0, 1, 2, 3, 23} {
			before := time.Date(2025, 12, 31, 23, 59, 59, 0, zone)
			sc := task.Schedule{Cron: fmt.Sprintf("15 %d * * *", hour), TimeZone: name, NextAt: &before}
			day := 0
			for _, at := range sc.Upcoming(366)[1:] {
				if day++; at.In(zone).YearDay() != day {
					t.Errorf("at %d h in %s, day %d of the year has its tick at %v", hour, name, day, at.In(zone))
					break
				}
			}
		}
	}
}

// hourly is a schedule of the caller's that first comes in an hour.
func (r rig) hourly(t *testing.T, c policy.Caller, change func(*task.NewSchedule)) task.Schedule {
	t.Helper()
	n := task.NewSchedule{Name: "report", IntervalSeconds: 3600, Task: task.New{Description: "write the report", Input: "i"}}
	if change != nil {
		change(&n)
	}
	sc, err := r.CreateSchedule(t.Context(), c, n, "")
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func (r rig) schedule(t *testing.T, id uuid.UUID) task.Schedule {
	t.Helper()
	sc, err := r.Schedule(t.Context(), root, id)
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func (r rig) audited(t *testing.T, action string) (all []string) {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `SELECT result || ' ' || user_id || ' ' || project_id || ' ' || resource_type FROM audit_entries
		WHERE action = $1 ORDER BY created_at, id`, action)
	if err != nil {
		t.Fatal(err)
	}
	if all, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAScheduleIsMadeOnceForAKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	n := task.NewSchedule{Name: "report", IntervalSeconds: 3600, Task: task.New{Description: "d", Labels: map[string]string{"a": "1"}}}
	made := make([]task.Schedule, 8)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			var err error
			if made[i], err = r.CreateSchedule(ctx, annInShop, n, "key"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, sc := range made {
		if sc.ID != made[0].ID {
			t.Errorf("one key made %s and %s", made[0].ID, sc.ID)
		}
	}
	if got := r.audited(t, "schedule.create"); len(got) != 1 {
		t.Errorf("the audit log has %v", got)
	}
	other := n
	other.IntervalSeconds = 7200
	_, err := r.CreateSchedule(ctx, annInShop, other, "key")
	wantFault(t, err, fault.IdempotencyMismatch)
	_, err = r.CreateSchedule(ctx, annInShop, n, strings.Repeat("k", task.MaxKeyBytes+1))
	wantFault(t, err, fault.Invalid)
	// Keys are a user's own, in a project.
	for _, c := range []policy.Caller{bobInShop, ann} {
		if sc, err := r.CreateSchedule(ctx, c, n, "key"); err != nil || sc.ID == made[0].ID {
			t.Errorf("%s of project %q gets %s, %v", c.UserID, c.ProjectID, sc.ID, err)
		}
	}
	// Whoever has taken it over, and whatever is allowed by now, it was made.
	if _, err := r.UpdateSchedule(ctx, bobInShop, made[0].ID, task.SchedulePatch{Name: new("bob's now")}); err != nil {
		t.Fatal(err)
	}
	r.rights.forbid("general-purpose", "not any more")
	if sc, err := r.CreateSchedule(ctx, annInShop, n, "key"); err != nil || sc.ID != made[0].ID || sc.Name != "bob's now" {
		t.Errorf("repeated it is %+v, %v", sc, err)
	}
	_, err = r.CreateSchedule(ctx, annInShop, n, "another")
	wantFault(t, err, fault.Forbidden)
	if err := r.DeleteSchedule(ctx, bobInShop, made[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = r.CreateSchedule(ctx, annInShop, n, "key")
	wantFault(t, err, fault.Forbidden)
}

func TestWhoeverChangesAScheduleTakesItOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, nil)
	changed, err := r.UpdateSchedule(t.Context(), bobInShop, sc.ID, task.SchedulePatch{
		Cron: new("0 3 * * mon-fri"), TimeZone: new("Europe/Berlin"), Task: &task.New{Description: "bob's", Dispatch: task.Manual},
	})
	if err != nil || changed.UserID != "bob" || changed.SessionID != "s2" || changed.IntervalSeconds != 0 || changed.Task.Description != "bob's" ||
		changed.NextAt.Equal(*sc.NextAt) {
		t.Fatalf("changed: %+v, %v", changed, err)
	}
	r.comeUp(t, 8*24*time.Hour)
	if _, err := r.pool.Exec(t.Context(), `UPDATE schedules SET next_at = now()`); err != nil {
		t.Fatal(err)
	}
	r.sweep(t)
	if runs := r.runs(t, sc.ID); len(runs) != 1 || runs[0].UserID != "bob" || runs[0].SessionID != "s2" {
		t.Errorf("it runs %+v", runs)
	}
	if err := r.DeleteSchedule(t.Context(), annInShop, sc.ID); err != nil {
		t.Fatal(err)
	}
	_, err = r.Schedule(t.Context(), annInShop, sc.ID)
	wantFault(t, err, fault.NotFound)
	if len(r.runs(t, sc.ID)) != 1 {
		t.Error("its runs went with it")
	}
	if got := r.audited(t, "schedule.delete"); !slices.Equal(got, []string{"allowed ann shop schedule"}) {
		t.Errorf("the audit log has %v", got)
	}
}

func TestSchedulesOfOtherProjectsAreNotThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc, alone := r.hourly(t, annInShop, nil), r.hourly(t, annAlone, nil)
	for _, c := range []policy.Caller{annInBank, bobAlone} {
		for _, id := range []uuid.UUID{sc.ID, alone.ID, uuid.New()} {
			for what, err := range map[string]error{
				"get":     second(r.Schedule(t.Context(), c, id)),
				"update":  second(r.UpdateSchedule(t.Context(), c, id, task.SchedulePatch{Paused: new(true)})),
				"trigger": second(r.TriggerSchedule(t.Context(), c, id)),
				"delete":  r.DeleteSchedule(t.Context(), c, id),
			} {
				if fault.CodeOf(err) != fault.NotFound {
					t.Errorf("%s by %s in %q: %v, want not-found", what, c.UserID, c.ProjectID, err)
				}
			}
		}
		if all, _, err := r.Schedules(t.Context(), c, uuid.Max, 10); err != nil || len(all) != 0 {
			t.Errorf("%s in %q lists %d, %v", c.UserID, c.ProjectID, len(all), err)
		}
		var n int
		if err := r.ReadAs(t.Context(), c, `SELECT count(*) FROM schedules`, func(rows pgx.Rows) (err error) {
			n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			return err
		}); err != nil || n != 0 {
			t.Errorf("the database shows %s in %q %d schedules, %v", c.UserID, c.ProjectID, n, err)
		}
	}
	all, more, err := r.Schedules(t.Context(), root, uuid.Max, 1)
	if err != nil || !more || len(all) != 1 || all[0].ID != alone.ID {
		t.Errorf("the first page: %v, %v, %v", all, more, err)
	}
	all, more, err = r.Schedules(t.Context(), root, alone.ID, 1)
	if err != nil || more || len(all) != 1 || all[0].ID != sc.ID {
		t.Errorf("the second page: %v, %v, %v", all, more, err)
	}
}

func TestSchedulesThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parent := r.manual(t).ID
	for field, change := range map[string]func(*task.NewSchedule){
		"body.name":                    func(n *task.NewSchedule) { n.Name = "" },
		"body.cron both":               func(n *task.NewSchedule) { n.Cron = "* * * * *" },
		"body.cron none":               func(n *task.NewSchedule) { n.IntervalSeconds = 0 },
		"body.cron seconds":            func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, "* * * * * *" },
		"body.cron word":               func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, "@daily" },
		"body.cron zone":               func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, "TZ=UTC * * * *" },
		"body.cron range":              func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, "60 * * * *" },
		"body.cron never":              func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, "0 0 30 2 *" },
		"body.cron long":               func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron = 0, strings.Repeat("1,", 100)+"1 * * * *" },
		"body.timeZone":                func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron, n.TimeZone = 0, "* * * * *", "../etc/passwd" },
		"body.timeZone local":          func(n *task.NewSchedule) { n.IntervalSeconds, n.Cron, n.TimeZone = 0, "* * * * *", "Local" },
		"body.timeZone alone":          func(n *task.NewSchedule) { n.TimeZone = "UTC" },
		"body.intervalSeconds":         func(n *task.NewSchedule) { n.IntervalSeconds = 9 },
		"body.overlap":                 func(n *task.NewSchedule) { n.Overlap = "both" },
		"body.startingDeadlineSeconds": func(n *task.NewSchedule) { n.DeadlineSeconds = 9 },
		"body.task.description":        func(n *task.NewSchedule) { n.Task.Description = "" },
		"body.task.agentId":            func(n *task.NewSchedule) { n.Task.AgentID = "nobody" },
		"body.task.runAfter":           func(n *task.NewSchedule) { n.Task.RunAfter = new(time.Now()) },
		"body.task.parentTaskId":       func(n *task.NewSchedule) { n.Task.ParentTaskID = &parent },
		"body.task.dependsOn":          func(n *task.NewSchedule) { n.Task.DependsOn = []uuid.UUID{parent} },
		"body.task.projectId":          func(n *task.NewSchedule) { n.Task.ProjectID = "bank" },
		"body.task.sessionId":          func(n *task.NewSchedule) { n.Task.SessionID = "s9" },
	} {
		n := task.NewSchedule{Name: "report", IntervalSeconds: 3600, Task: task.New{Description: "d"}}
		change(&n)
		_, err := r.CreateSchedule(t.Context(), annInShop, n, "")
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != strings.Fields(field)[0] {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := r.CreateSchedule(t.Context(), annInShop, task.NewSchedule{Name: "n", IntervalSeconds: 60, Task: task.New{Description: "d", AgentID: "idle"}}, "")
	wantFault(t, err, fault.AgentUnavailable)
	r.rights.forbid("general-purpose", "no")
	_, err = r.CreateSchedule(t.Context(), annInShop, task.NewSchedule{Name: "n", IntervalSeconds: 60, Task: task.New{Description: "d"}}, "")
	wantFault(t, err, fault.Forbidden)
	if all, _, err := r.Schedules(t.Context(), root, uuid.Max, 10); err != nil || len(all) != 0 {
		t.Errorf("%d were made, %v", len(all), err)
	}
	_, err = r.UpdateSchedule(t.Context(), annInShop, uuid.New(), task.SchedulePatch{})
	wantFault(t, err, fault.Invalid)
}

func TestTwoChangesAtOnceDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sc := r.hourly(t, annInShop, nil)
	var all sync.WaitGroup
	results := make(chan error, 8)
	for i := range 8 {
		all.Go(func() {
			_, err := r.UpdateSchedule(context.Background(), annInShop, sc.ID, task.SchedulePatch{Name: new(fmt.Sprint(i))})
			results <- err
		})
	}
	all.Wait()
	close(results)
	applied := 0
	for err := range results {
		if err == nil {
			applied++
		} else if fault.CodeOf(err) != fault.Conflict {
			t.Error(err)
		}
	}
	if entries := r.audited(t, "schedule.update"); applied == 0 || len(entries) != applied {
		t.Errorf("%d changes, %d audit entries", applied, len(entries))
	}
}
