package config

import (
	"testing"
	"time"
)

func TestAnAgeIsGivenInDaysOrAsADuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"30d": 30 * day, "0d": 0, "12h": 12 * time.Hour, "90m": 90 * time.Minute, "36500d": 36500 * day} {
		var got Age
		if err := got.UnmarshalText([]byte(text)); err != nil || time.Duration(got) != want {
			t.Errorf("%s: %s, %v", text, time.Duration(got), err)
		}
	}
	for _, text := range []string{"", "30", "d", "-1d", "1.5d", "36501d", "99999999999999999999d", "a month"} {
		if err := new(Age).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for age, ok := range map[time.Duration]bool{0: true, time.Hour: true, 30 * day: true, time.Minute: false, -day: false} {
		c := Default()
		c.Retention = Age(age)
		if err := c.check(false); (err == nil) != ok {
			t.Errorf("%s: %v", age, err)
		}
	}
}
