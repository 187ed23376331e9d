package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

// org and project parse documents that are right.
func org(t testing.TB, text string) *policy.Document {
	t.Helper()
	return parse(t, "security.yaml", text, policy.Organization)
}

func project(t testing.TB, text string) *policy.Document {
	t.Helper()
	return parse(t, "project web", text, policy.Project)
}

func parse(t testing.TB, name, text string, kind policy.Kind) *policy.Document {
	t.Helper()
	d, err := policy.ParseDocument([]byte(text), name, kind)
	if err != nil {
		t.Fatalf("%s\n%s", err, text)
	}
	return d
}

func compile(t testing.TB, org, project *policy.Document, o policy.Options) *policy.Policy {
	t.Helper()
	p, err := policy.Compile(org, project, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func seed(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "seed", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// caller is a user in roles, on a device of the level that stands after an @ or
// on none, with a credential limited to what stands after a +, or not limited:
// "ann developer,ci @verified +task:read".
func caller(text string) policy.Caller {
	var c policy.Caller
	for i, word := range strings.Fields(text) {
		level, device := strings.CutPrefix(word, "@")
		scope, scoped := strings.CutPrefix(word, "+")
		switch {
		case scoped:
			c.Scopes = append(c.Scopes, policy.Permission(scope))
		case word == "@local":
			c.Local = true
		case device:
			c.DeviceID = "laptop"
			if err := c.Trust.UnmarshalText([]byte(level)); err != nil {
				panic(err)
			}
		case i == 0:
			c.UserID = word
		default:
			for role := range strings.SplitSeq(word, ",") {
				c.Roles = append(c.Roles, policy.Role(role))
			}
		}
	}
	return c
}
