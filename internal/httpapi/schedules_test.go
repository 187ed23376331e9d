package httpapi_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

func TestASchedulesLifeOverHTTP(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	ann := r.client(r.login(admin, "ann", "developer", "shop"))
	ctx := t.Context()
	made, err := ann.CreateSchedule(ctx, api.NewSchedule{
		Name: "nightly", Cron: " 30 2  * * * ", TimeZone: "Europe/Berlin",
		Task: api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual, Labels: map[string]string{"k": "v"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if made.Cron != "30 2 * * *" || made.Overlap != api.OverlapSkip || made.StartingDeadlineSeconds != 3600 || made.UserID != "local:ann" ||
		made.ProjectID != "shop" || made.Task.Labels["k"] != "v" || made.Task.Metadata != nil || made.LastRun != nil {
		t.Errorf("made %+v", made)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if len(made.NextRuns) != 5 || !slices.IsSortedFunc(made.NextRuns, time.Time.Compare) || made.NextRuns[4].In(berlin).Minute() != 30 && made.NextRuns[4].In(berlin).Minute() != 0 {
		t.Errorf("the next runs are %v", made.NextRuns)
	}
	paused, err := ann.UpdateSchedule(ctx, made.ID, api.SchedulePatch{Paused: new(true)})
	if err != nil || !paused.Paused || len(paused.NextRuns) != 0 {
		t.Errorf("paused: %+v, %v", paused, err)
	}
	run, err := ann.TriggerSchedule(ctx, made.ID)
	if err != nil || run.ScheduleID != made.ID || run.ProjectID != "shop" {
		t.Fatalf("triggered: %+v, %v", run, err)
	}
	list, err := ann.Tasks(ctx, api.TaskFilter{ScheduleID: made.ID})
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != run.ID {
		t.Errorf("its runs are %+v, %v", list.Items, err)
	}
	got, err := ann.Schedule(ctx, made.ID)
	if err != nil || got.LastTaskID != run.ID || got.LastRun == nil || got.LastRun.Result != api.RunSubmitted || got.LastRun.ScheduledFor != nil {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
	if err := ann.DeleteSchedule(ctx, made.ID); err != nil {
		t.Error(err)
	}
	for s, err := range ann.Schedules(ctx) {
		t.Errorf("left: %+v, %v", s, err)
	}
}

func TestARepeatedScheduleIsMadeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, err := api.NewClient(r.url)
	if err != nil {
		t.Fatal(err)
	}
	n := api.NewSchedule{Name: "n", IntervalSeconds: 60, Task: api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual}}
	made, err := c.CreateSchedule(t.Context(), n, api.WithIdempotencyKey("k"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.CreateSchedule(t.Context(), n, api.WithIdempotencyKey("k")); err != nil || again.ID != made.ID {
		t.Errorf("repeated it is %s, %v, want %s", again.ID, err, made.ID)
	}
	if other, err := c.CreateSchedule(t.Context(), n); err != nil || other.ID == made.ID {
		t.Errorf("another one is %s, %v", other.ID, err)
	}
	n.Name = "m"
	var problem *api.Error
	if _, err := c.CreateSchedule(t.Context(), n, api.WithIdempotencyKey("k")); !errors.As(err, &problem) || problem.Status != 422 || problem.Slug() != "idempotency-key-reused" {
		t.Errorf("another body with the key is answered with %v", err)
	}
}

// A schedule outlives the session that it was made in.
func TestASessionThatAScheduleNeedsStays(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	kept, other := r.login(admin, "ann", "developer", ""), r.login(admin, "bob", "developer", "")
	s, err := r.client(kept).CreateSchedule(t.Context(), api.NewSchedule{Name: "n", IntervalSeconds: 60, Task: api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual}})
	if err != nil {
		t.Fatal(err)
	}
	sessions := func() (ids []string) {
		t.Helper()
		rows, err := r.pool.Query(t.Context(), `DELETE FROM sessions WHERE user_id IN ('local:ann', 'local:bob') RETURNING id::text`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	if gone := sessions(); !slices.Equal(gone, []string{other.Session.ID}) {
		t.Errorf("housekeeping takes %v, want %s alone", gone, other.Session.ID)
	}
	if err := r.client(kept).DeleteSchedule(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if gone := sessions(); !slices.Equal(gone, []string{kept.Session.ID}) {
		t.Errorf("afterwards it takes %v, want %s", gone, kept.Session.ID)
	}
}
