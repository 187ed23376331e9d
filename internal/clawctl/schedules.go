package clawctl

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) schedulesCommand() *cobra.Command {
	list := listing(c, "List schedules, newest first", "schedules",
		everyOne(c, (*api.Client).Schedules), func(all []api.Schedule) any { return api.ScheduleList{Items: all} },
		[]string{"ID", "NAME", "WHEN", "NEXT", "LAST", "PROJECT", "USER"},
		func(s api.Schedule) []string {
			return []string{s.ID, s.Name, when(s), c.nextRun(s), c.lastRun(s), s.ProjectID, s.UserID}
		})
	get := &cobra.Command{
		Use: "get ID", Short: "Show a schedule", Args: exactly("the id of a schedule"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			s, err := client.Schedule(ctx, args[0])
			if err != nil {
				return err
			}
			return c.print(s, func() { c.schedule(s) })
		}),
	}
	const what = "the id of a schedule"
	remove := c.each("delete ID...", "Delete schedules; what they submitted goes on", what, func(ctx context.Context, client *api.Client, id string) error {
		if err := client.DeleteSchedule(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s deleted\n", cleanLine(id)) })
	})
	trigger := c.each("trigger ID...", "Submit the tasks of schedules at once, in your own name", what, func(ctx context.Context, client *api.Client, id string) error {
		t, err := client.TriggerSchedule(ctx, id)
		if err != nil {
			return err
		}
		return c.print(t, func() { c.out.printf("%s\n", cleanLine(t.ID)) })
	})
	return group("schedules", "Submit tasks again and again", list, get, c.schedulesCreateCommand(),
		c.pausing("pause ID...", "Let schedules rest", true), c.pausing("resume ID...", "Let schedules go on, from now", false), remove, trigger)
}

func (c *cli) pausing(use, short string, paused bool) *cobra.Command {
	return c.each(use, short, "the id of a schedule", func(ctx context.Context, client *api.Client, id string) error {
		s, err := client.UpdateSchedule(ctx, id, api.SchedulePatch{Paused: &paused})
		if err != nil {
			return err
		}
		return c.print(s, func() { c.out.printf("%s %s\n", cleanLine(s.ID), cleanLine(c.nextRun(s))) })
	})
}

// when says at which times a schedule comes.
func when(s api.Schedule) string {
	if s.Cron == "" {
		return "every " + (time.Duration(s.IntervalSeconds) * time.Second).String()
	}
	return s.Cron + " " + s.TimeZone
}

func (c *cli) nextRun(s api.Schedule) string {
	switch {
	case s.PausedReason != "":
		return "paused by the server"
	case s.Paused:
		return "paused"
	case len(s.NextRuns) == 0:
		return "never"
	}
	return "in " + span(s.NextRuns[0].Sub(c.now()))
}

func (c *cli) lastRun(s api.Schedule) string {
	if s.LastRun == nil {
		return ""
	}
	return string(s.LastRun.Result) + " " + span(c.now().Sub(s.LastRun.At)) + " ago"
}

func (c *cli) schedule(s api.Schedule) {
	pairs := [][2]string{
		{"ID", s.ID}, {"Name", s.Name}, {"When", when(s)}, {"Overlap", string(s.Overlap)}, {"Next", c.nextRun(s)}, {"Paused for", s.PausedReason},
	}
	for _, at := range s.NextRuns {
		pairs = append(pairs, [2]string{"Next run", c.moment(at)})
	}
	if r := s.LastRun; r != nil {
		pairs = append(pairs, [2]string{"Last run", string(r.Result) + " at " + c.moment(r.At)}, [2]string{"Because", r.Reason})
	}
	if s.Missed > 0 {
		pairs = append(pairs, [2]string{"Missed", strconv.FormatInt(s.Missed, 10)})
	}
	c.details(append(pairs,
		[2]string{"Last task", s.LastTaskID}, [2]string{"Task", s.Task.Description}, [2]string{"Agent", s.Task.AgentID},
		[2]string{"Project", s.ProjectID}, [2]string{"As", s.UserID}, [2]string{"Created", c.moment(s.CreatedAt)}))
}

func (c *cli) schedulesCreateCommand() *cobra.Command {
	f := newSubmitFlags()
	var n api.NewSchedule
	var every, late duration
	overlap := choice{value: "skip", of: []string{"skip", "queue", "replace"}}
	cmd := &cobra.Command{
		Use:   "create NAME [DESCRIPTION]",
		Short: "Submit a task again and again",
		Long: `Submit a task again and again: at the times of a cron expression (minute, hour,
day of the month, month, day of the week), or every so often.

Its tasks are submitted in your name, by the rights that you have by then.`,
		Example: `  clawctl schedules create nightly "Review what changed today" --cron "0 3 * * mon-fri" --time-zone Europe/Berlin --agent code-reviewer
  clawctl schedules create watch "Look for broken builds" --every 15m --overlap replace`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("this takes a name and a description; put each in quotes")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if (n.Cron == "") == (every.d == 0) {
				return usagef("say when: either --cron or --every")
			}
			if err := c.complete(&f.task, args[1:], f); err != nil {
				return err
			}
			n.Name, n.IntervalSeconds, n.StartingDeadlineSeconds, n.Overlap, n.Task = args[0], every.seconds(), late.seconds(), api.Overlap(overlap.value), f.task
			client, err := c.client()
			if err != nil {
				return err
			}
			var opts []api.SubmitOption
			if f.key != "" {
				opts = append(opts, api.WithIdempotencyKey(f.key))
			}
			s, err := client.CreateSchedule(cmd.Context(), n, opts...)
			if err != nil {
				return err
			}
			return c.print(s, func() {
				c.out.printf("%s\n", cleanLine(s.ID))
				for _, at := range s.NextRuns {
					c.err.printf("%s\n", c.err.style(dim, cleanLine(c.moment(at))))
				}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&n.Cron, "cron", "", "five `fields`: minute, hour, day of the month, month, day of the week")
	flags.StringVar(&n.TimeZone, "time-zone", "", "IANA `name` of the zone whose clocks count (default UTC)")
	flags.Var(&every, "every", "so long between two runs, at least 10s")
	flags.Var(&overlap, "overlap", "what becomes of a run while the one before has not ended: "+strings.Join(overlap.of, ", "))
	flags.Var(&late, "starting-deadline", "how late a run may begin when no server was there in time (default 1h)")
	flags.BoolVar(&n.Paused, "paused", false, "do not run it yet")
	flags.StringVar(&f.key, "idempotency-key", "", "a `key` of your own: makes one schedule, however often it is given")
	f.register(cmd)
	completeFlag(cmd, "overlap", overlap.of...)
	return cmd
}
