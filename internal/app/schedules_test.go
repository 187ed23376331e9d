package app_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// Two servers, of which one is killed while ticks come, run each tick once.
func TestTicksRunOnceThroughAKilledServer(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	url := pgtest.EmptyURL(t)
	// What changes behind the servers' backs they see once a lease.
	one := newInstallation(t, "CODERCLAW_DATABASE_URL="+url, "CODERCLAW_WORKER_LEASE=2s")
	two := newInstallation(t, "CODERCLAW_DATABASE_URL="+url, "CODERCLAW_WORKER_LEASE=2s")
	first, second := one.start("serve"), two.start("serve")
	one.ready(first)
	two.ready(second)
	const schedules, ticks = 30, 4
	var ids []string
	for range schedules {
		s, err := one.client().CreateSchedule(ctx, api.NewSchedule{
			Name: "n", IntervalSeconds: 86400, Overlap: api.OverlapReplace, Task: api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual},
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	runs := func() (n int) {
		if err := db.QueryRow(ctx, `SELECT count(*) FROM tasks WHERE schedule_id IS NOT NULL`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	killed := false
	for tick := 1; tick <= ticks; tick++ {
		if _, err := db.Exec(ctx, `UPDATE schedules SET next_at = clock_timestamp() + random() * interval '0.2 s'`); err != nil {
			t.Fatal(err)
		}
		for runs() < tick*schedules {
			if tick == 2 && !killed && runs() > schedules+schedules/3 {
				killed = true
				if err := first.stop(t, os.Kill); err == nil {
					t.Fatal("the first server was not killed")
				}
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%d runs after %d ticks of %d schedules", runs(), tick, schedules)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if n := runs(); n != schedules*ticks {
		t.Errorf("%d runs, want %d", n, schedules*ticks)
	}
	for _, id := range ids {
		list, err := two.client().Tasks(ctx, api.TaskFilter{ScheduleID: id})
		if err != nil || len(list.Items) != ticks || list.Items[0].Status != api.TaskPending || list.Items[1].Status != api.TaskCancelled {
			t.Errorf("the runs of %s: %d, %v", id, len(list.Items), err)
		}
		s, err := two.client().Schedule(ctx, id)
		if err != nil || s.LastRun == nil || s.LastRun.Result != api.RunSubmitted || s.LastTaskID != list.Items[0].ID || s.Missed != 0 {
			t.Errorf("schedule %+v, %v", s, err)
		}
	}
	if answer := new(api.Error); !errors.As(two.client().DeleteSchedule(ctx, "00000000-0000-7000-8000-000000000000"), &answer) || answer.Status != 404 {
		t.Errorf("deleted what is not there: %v", answer)
	}
}
