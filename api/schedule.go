package api

import "time"

// Overlap says what becomes of a tick while a run before has not ended.
type Overlap string

// The overlaps.
const (
	OverlapSkip    Overlap = "skip"
	OverlapQueue   Overlap = "queue"
	OverlapReplace Overlap = "replace"
)

// RunResult says what came of a schedule's tick.
type RunResult string

// The results of runs.
const (
	RunSubmitted RunResult = "submitted"
	RunSkipped   RunResult = "skipped"
	RunQueued    RunResult = "queued"
	RunDenied    RunResult = "denied"
	RunFailed    RunResult = "failed"
)

// NewSchedule is the body of POST /v1/schedules.
type NewSchedule struct {
	Name                    string  `json:"name" minLength:"1" maxLength:"200" doc:"For people." example:"nightly review"`
	Cron                    string  `json:"cron,omitempty" maxLength:"200" doc:"Five fields: minute, hour, day of the month, month, day of the week. Either this or intervalSeconds." example:"0 3 * * mon-fri"`
	TimeZone                string  `json:"timeZone,omitempty" maxLength:"64" doc:"With cron: the IANA name of the zone whose clocks count. Default: UTC." example:"Europe/Berlin"`
	IntervalSeconds         int     `json:"intervalSeconds,omitempty" minimum:"0" maximum:"31622400" doc:"So long between two ticks, at least 10 seconds. Either this or cron."`
	Overlap                 Overlap `json:"overlap,omitempty" enum:"skip,queue,replace" doc:"What becomes of a tick while a run before has not ended. skip (default): it is left out. queue: it is run when that one has ended; one waits, no more. replace: that one is cancelled."`
	StartingDeadlineSeconds int     `json:"startingDeadlineSeconds,omitempty" minimum:"0" maximum:"86400" doc:"How late a tick may be run when no server was there in time, at least 10 seconds. Default: 3600. Of several such ticks the last one is run, the others are counted as missed."`
	Paused                  bool    `json:"paused,omitempty" doc:"Made so that it does not run yet."`
	Task                    NewTask `json:"task" doc:"What is submitted. Without runAfter, parentTaskId and dependsOn."`
}

// SchedulePatch is the body of PATCH /v1/schedules/{id}. What is absent stays as
// it is.
type SchedulePatch struct {
	Name                    *string  `json:"name,omitempty" minLength:"1" maxLength:"200"`
	Cron                    *string  `json:"cron,omitempty" maxLength:"200" doc:"Takes the place of an interval."`
	TimeZone                *string  `json:"timeZone,omitempty" maxLength:"64"`
	IntervalSeconds         *int     `json:"intervalSeconds,omitempty" minimum:"0" maximum:"31622400" doc:"Takes the place of a cron expression."`
	Overlap                 *Overlap `json:"overlap,omitempty" enum:"skip,queue,replace"`
	StartingDeadlineSeconds *int     `json:"startingDeadlineSeconds,omitempty" minimum:"0" maximum:"86400"`
	Paused                  *bool    `json:"paused,omitempty" doc:"Ticks that come while it is paused are neither run nor counted as missed."`
	Task                    *NewTask `json:"task,omitempty" doc:"Takes the place of the whole task."`
}

// Schedule submits a task again and again.
type Schedule struct {
	ID                      string       `json:"id" format:"uuid"`
	Name                    string       `json:"name"`
	Cron                    string       `json:"cron,omitempty"`
	TimeZone                string       `json:"timeZone,omitempty"`
	IntervalSeconds         int          `json:"intervalSeconds,omitempty"`
	Overlap                 Overlap      `json:"overlap" enum:"skip,queue,replace"`
	StartingDeadlineSeconds int          `json:"startingDeadlineSeconds"`
	Paused                  bool         `json:"paused"`
	PausedReason            string       `json:"pausedReason,omitempty" doc:"Why the server has paused it: whoever it belongs to is gone. Change it to take it over."`
	Task                    NewTask      `json:"task"`
	ProjectID               string       `json:"projectId,omitempty"`
	UserID                  string       `json:"userId" doc:"By whose rights its tasks are submitted: whoever made it, or changed more than whether it is paused."`
	SessionID               string       `json:"sessionId,omitempty"`
	NextRuns                []time.Time  `json:"nextRuns" doc:"The next five times; none while it is paused."`
	LastRun                 *ScheduleRun `json:"lastRun,omitempty"`
	LastTaskID              string       `json:"lastTaskId,omitempty" doc:"The last task that it submitted."`
	Missed                  int64        `json:"missed" doc:"How many ticks were not run because no server was there in time."`
	CreatedAt               time.Time    `json:"createdAt"`
	UpdatedAt               time.Time    `json:"updatedAt" doc:"When somebody changed it last."`
}

// ScheduleRun is what came of a tick.
type ScheduleRun struct {
	ScheduledFor *time.Time `json:"scheduledFor,omitempty" doc:"The tick. Absent if somebody triggered the run."`
	At           time.Time  `json:"at" doc:"When it was dealt with."`
	Result       RunResult  `json:"result" enum:"submitted,skipped,queued,denied,failed" doc:"denied: whoever the schedule belongs to may not have it done any more. failed: nothing can run the agent."`
	Reason       string     `json:"reason,omitempty"`
}

// ScheduleList is one page of schedules, newest first.
type ScheduleList struct {
	Items      []Schedule `json:"items"`
	NextCursor string     `json:"nextCursor,omitempty" doc:"Ask for the next page with ?cursor=. Absent on the last page."`
}
