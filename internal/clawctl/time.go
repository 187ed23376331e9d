package clawctl

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
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

// parseDuration is time.ParseDuration, and knows days: 7d.
func parseDuration(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// duration is a flag that knows days, too.
type duration struct{ d time.Duration }

func (d *duration) String() string {
	if days := d.d / (24 * time.Hour); days > 0 && d.d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	if d.d == 0 {
		return ""
	}
	return d.d.String()
}

func (d *duration) Type() string { return "duration" }

func (d *duration) Set(text string) (err error) {
	if d.d, err = parseDuration(text); err != nil || d.d <= 0 {
		return errors.New("want a duration such as 90m, 12h or 30d")
	}
	return nil
}

// seconds rounds up.
func (d *duration) seconds() int { return int(math.Ceil(d.d.Seconds())) }

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
