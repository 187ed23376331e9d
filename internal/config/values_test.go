package config

import (
	"strings"
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

func TestABucketNeedsItsKeyAndAnAddressWithoutAPath(t *testing.T) {
	t.Parallel()
	whole := S3{Endpoint: "https://s3.example.com", Bucket: "b", AccessKey: "id", SecretKey: NewSecret("hush")}
	for what, c := range map[string]struct {
		change func(*S3)
		ok     bool
	}{
		"whole":           {func(*S3) {}, true},
		"with a slash":    {func(s *S3) { s.Endpoint += "/" }, true},
		"plain":           {func(s *S3) { s.Endpoint = "http://127.0.0.1:9000" }, true},
		"no bucket":       {func(s *S3) { s.Bucket = "" }, false},
		"no access key":   {func(s *S3) { s.AccessKey = "" }, false},
		"no secret key":   {func(s *S3) { s.SecretKey = Secret{} }, false},
		"a path":          {func(s *S3) { s.Endpoint += "/b" }, false},
		"no scheme":       {func(s *S3) { s.Endpoint = "s3.example.com" }, false},
		"a user":          {func(s *S3) { s.Endpoint = "https://id:hush@s3.example.com" }, false},
		"another scheme":  {func(s *S3) { s.Endpoint = "s3://b" }, false},
		"nothing but key": {func(s *S3) { s.Endpoint, s.Bucket = "", "" }, true},
	} {
		config := Default()
		config.Artifacts.S3 = whole
		c.change(&config.Artifacts.S3)
		err := config.check(false)
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
