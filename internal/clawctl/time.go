package clawctl

import (
	"fmt"
	"time"
)

// span says how long d is, in its largest unit.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// exactSpan says how long d is, to the second, or less if it is shorter.
func exactSpan(d time.Duration) string {
	if d = max(d, 0); d < time.Second {
		return d.Truncate(time.Millisecond).String()
	}
	return d.Truncate(time.Second).String()
}

// moment says when t is, and how long ago.
func (c *cli) moment(t time.Time) string {
	text := t.In(c.zone).Format(time.RFC3339)
	if age := c.now().Sub(t); age >= 0 {
		return text + " (" + span(age) + " ago)"
	}
	return text + " (in " + span(-c.now().Sub(t)) + ")"
}

// clock says at which time of day t is.
func (c *cli) clock(t time.Time) string { return t.In(c.zone).Format(time.TimeOnly) }
