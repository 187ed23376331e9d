package task

import (
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// timing says when a schedule is due: by cron in a zone, or every so often.
type timing struct {
	cron  string
	zone  *time.Location
	every time.Duration
}

// maxStretches bounds over how many stretches of time between two changes of
// the clocks a tick is looked for: more than there are between two 29ths of
// February that are Sundays. Go also begins one with each year after 2037.
const maxStretches = 400

// after returns the first tick after t, which for intervals must be one itself.
// It is false if there is none.
func (g timing) after(t time.Time) (time.Time, bool) {
	if g.every > 0 {
		return t.Add(g.every).UTC(), true
	}
	return g.cronAfter(t.In(g.zone))
}

// cronAfter looks for the time of day, within each stretch of time over which
// the zone's clocks run evenly.
//
// What runs at fixed hours runs once when they come: if the clocks skip it, at
// the moment they do so; if they show it twice, the first time. What runs in
// every hour goes by the time that passes, as if the clocks were not changed.
func (g timing) cronAfter(t time.Time) (time.Time, bool) {
	fixed := !everyHour(g.cron)
	wall := clockOf(t)
	var next, asked time.Time // the first match after asked
	for range maxStretches {
		start, end := t.ZoneBounds()
		if !end.IsZero() && !end.After(t) {
			// So Go says at the end of leap years after 2037. To look more often
			// than the clocks change does no harm.
			end = t.AddDate(0, 0, 1)
		}
		if before := clockAt(start, start.Add(-1).In(g.zone)); fixed && !start.IsZero() && wall.Before(before) {
			wall = before.Add(-time.Second) // shown a second time
		}
		if wall.Before(asked) || !next.After(wall) {
			var err error
			if next, err = gronx.NextTickAfter(g.cron, wall, false); err != nil {
				return time.Time{}, false
			}
			asked = wall
		}
		_, offset := t.Zone()
		at := next.Add(-time.Duration(offset) * time.Second)
		if end.IsZero() || at.Before(end) {
			return at, true
		}
		if fixed && next.Before(clockOf(end)) {
			return end.UTC(), true // skipped
		}
		t, wall = end, clockOf(end).Add(-time.Second)
	}
	return time.Time{}, false
}

// clockOf returns what the clocks of t's zone show at t, as if it were UTC.
func clockOf(t time.Time) time.Time { return clockAt(t, t) }

// clockAt returns what the clocks would show at t, if they went as at another
// time.
func clockAt(t, as time.Time) time.Time {
	_, offset := as.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// everyHour reports whether the expression names no hours.
func everyHour(cron string) bool {
	hours, checker := strings.Fields(cron)[1], gronx.SegmentChecker{}
	for h := range 24 {
		checker.SetRef(time.Date(2000, 1, 1, h, 0, 0, 0, time.UTC))
		if due, err := checker.CheckDue(hours, 2); err != nil || !due {
			return false
		}
	}
	return true
}

// due is what has come up by a time.
type due struct {
	tick   time.Time // to be run; zero: none
	missed int64
	next   *time.Time // the next one; nil: none
}

// maxMissed bounds how many ticks are counted one by one after a long time.
const maxMissed = 10_000

// due sorts the ticks from the one at first on that have come up by now. Only
// the last of them is run, if it is no older than deadline.
func (g timing) due(first, now time.Time, deadline time.Duration) (d due) {
	late := now.Add(-deadline)
	tick, ok := first, true
	for ok && tick.Before(late) {
		if d.missed++; d.missed == maxMissed && g.every == 0 {
			tick, ok = g.after(late.Add(-time.Second))
			break
		}
		tick, ok = g.after(tick)
	}
	for ok && !tick.After(now) {
		if !d.tick.IsZero() {
			d.missed++
		}
		d.tick = tick
		tick, ok = g.after(tick)
	}
	if ok {
		d.next = &tick
	}
	return d
}

// upcoming returns the n ticks from the one at next on.
func (g timing) upcoming(next *time.Time, n int) (ticks []time.Time) {
	if next == nil {
		return nil
	}
	for t, ok := *next, true; ok && len(ticks) < n; t, ok = g.after(t) {
		ticks = append(ticks, t.UTC())
	}
	return ticks
}
