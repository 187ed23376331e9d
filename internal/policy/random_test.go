package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
)

// random makes documents, callers and requests out of few names, so that they
// meet each other.
type random struct{ *rand.Rand }

func pick[T any](r random, from ...T) T { return from[r.IntN(len(from))] }

// some returns a part of from, as a YAML list.
func (r random) some(from ...string) string {
	var items []string
	for _, item := range from {
		if r.IntN(2) == 0 {
			items = append(items, fmt.Sprintf("%q", item))
		}
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func (r random) roles() string { return r.some("admin", "developer", "readonly", "ci", "lead") }
func (r random) level() string { return pick(r, "untrusted", "verified", "trusted") }
func (r random) permissions() string {
	return r.some("task:read", "config:read", "config:write", "admin:all")
}

// entries returns a list of which each item has some of the keys.
func (r random) entries(key string, names []string, values map[string]func() string) string {
	var items []string
	for _, name := range names {
		if r.IntN(2) == 0 {
			continue
		}
		item := fmt.Sprintf("{%s: %s", key, name)
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if r.IntN(3) == 0 {
				item += fmt.Sprintf(", %s: %s", k, values[k]())
			}
		}
		items = append(items, item+"}")
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// sections are the top-level keys and how their values can be.
func (r random) sections(kind policy.Kind) map[string]func() string {
	boolean := func() string { return pick(r, "true", "false") }
	rule := func() string {
		return pick(r, `'user != "bob"'`, `'!("env" in labels)'`, `'labels.env == "dev"'`, `'device.trust != "untrusted" || agent == ""'`)
	}
	all := map[string]func() string{
		"enforceTrust":      boolean,
		"minimumTrustLevel": r.level,
		"allowedRoles":      r.roles,
		"deniedRoles":       func() string { return r.some("ci", "lead") },
		"allowedUsers":      func() string { return r.some("ann", "bob") },
		"deniedUsers":       func() string { return r.some("ann", "bob") },
		"agentPolicies": func() string {
			return r.entries("agentId", []string{"a1", "a2"}, map[string]func() string{
				"allowedRoles": r.roles, "deniedRoles": r.roles, "requireDeviceTrust": r.level,
			})
		},
		"skillPolicies": func() string {
			return r.entries("skillId", []string{"s1", "s2"}, map[string]func() string{
				"allowedRoles": r.roles, "dangerous": boolean, "requiredPermissions": r.permissions, "requireDeviceTrust": r.level, "trustLevel": r.level,
			})
		},
		"customRules": func() string {
			expressions := map[string]string{"x": rule(), "y": rule()}
			var items []string
			for _, name := range []string{"x", "y"} {
				if r.IntN(3) == 0 {
					items = append(items, fmt.Sprintf("{name: %s, expression: %s}", name, expressions[name]))
				}
			}
			return "[" + strings.Join(items, ", ") + "]"
		},
	}
	if kind == policy.Organization {
		all["deviceTrust"] = func() string {
			return fmt.Sprintf("{minimumLevel: %s, autoTrustLocal: %s}", r.level(), boolean())
		}
		all["organizationPolicy"] = func() string {
			return fmt.Sprintf("{deniedSkills: %s, requiredSkills: %s}", r.some("s1", "s3"), r.some("s2"))
		}
	}
	return all
}

// text returns a document with about every second section.
func (r random) text(kind policy.Kind) map[string]string {
	text := map[string]string{}
	for _, key := range r.keys(kind) {
		if r.IntN(2) == 0 {
			text[key] = r.sections(kind)[key]()
		}
	}
	if kind == policy.Organization {
		text["roles"] = r.lead()
	}
	return text
}

func (r random) keys(kind policy.Kind) []string {
	return slices.Sorted(maps.Keys(r.sections(kind)))
}

func (r random) lead() string {
	return fmt.Sprintf("{lead: {inherits: %s, additionalPermissions: %s}}", pick(r, "developer", "readonly", "[]"), r.permissions())
}

// another returns text with one or two sections changed or left out.
func (r random) another(kind policy.Kind, text map[string]string) map[string]string {
	text = maps.Clone(text)
	for range 1 + r.IntN(2) {
		switch key := pick(r, r.keys(kind)...); {
		case kind == policy.Organization && r.IntN(8) == 0:
			text["roles"] = r.lead()
		case r.IntN(3) == 0:
			delete(text, key)
		default:
			text[key] = r.sections(kind)[key]()
		}
	}
	return text
}

func write(text map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(text)) {
		fmt.Fprintf(&b, "%s: %s\n", key, text[key])
	}
	return b.String()
}

func (r random) caller() policy.Caller {
	c := policy.Caller{UserID: pick(r, "ann", "bob", "cleo"), Local: r.IntN(4) == 0}
	for _, role := range []policy.Role{policy.Admin, policy.Developer, policy.ReadOnly, policy.CI, "lead"} {
		if r.IntN(3) == 0 {
			c.Roles = append(c.Roles, role)
		}
	}
	if r.IntN(3) > 0 {
		c.DeviceID, c.Trust = "laptop", policy.TrustLevel(r.IntN(3))
	}
	if r.IntN(8) == 0 {
		c.Scopes = []policy.Permission{pick(r, policy.Permissions...), policy.TaskRead}
	}
	return c
}

func (r random) request() policy.Request {
	req := policy.Request{Permission: pick(r, policy.Permissions...)}
	switch r.IntN(5) {
	case 0:
		return open
	case 1, 2:
		req.AgentID, req.AgentSkills = pick(r, "a1", "a2", "a3"), pick(r, nil, []string{"s1"}, []string{"s2"}, []string{"s2", "s3"})
	case 3:
		req.SkillID, req.SkillDangerous = pick(r, "s1", "s2", "s3"), r.IntN(4) == 0
	}
	if r.IntN(2) == 0 {
		req.Labels = map[string]string{"env": pick(r, "dev", "prod")}
	}
	return req
}

// eachSeed runs a property on many random values, the same in every run.
func eachSeed(t *testing.T, n uint64, property func(t *testing.T, r random)) {
	t.Helper()
	for seed := range n {
		if property(t, random{rand.New(rand.NewPCG(seed, 1))}); t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func TestAProjectDocumentNeverAllowsMore(t *testing.T) {
	t.Parallel()
	var narrowed, allowed int
	eachSeed(t, 400, func(t *testing.T, r random) {
		var o *policy.Document
		orgText := write(r.text(policy.Organization))
		if o = org(t, orgText); r.IntN(10) == 0 {
			orgText, o = "", org(t, "roles: {lead: {}}")
		}
		projectText := write(r.text(policy.Project))
		options := policy.Options{EnforceTrust: r.IntN(2) == 0}
		without, with := compile(t, o, nil, options), compile(t, o, project(t, projectText), options)
		for range 60 {
			c, req := r.caller(), r.request()
			before, after := without.Decide(c, req), with.Decide(c, req)
			switch {
			case after.Allowed && !before.Allowed:
				t.Fatalf("%+v asks %+v\nwithout %+v\n%s\nwith %+v\n%s", c, req, before, orgText, after, projectText)
			case after.Allowed:
				allowed++
			case before.Allowed:
				narrowed++
			}
			if after.Layer == "" || after.Reason == "" {
				t.Fatalf("a decision that does not say why: %+v", after)
			}
		}
	})
	if narrowed < 500 || allowed < 200 {
		t.Errorf("the documents meet too few requests: %d decisions narrowed, %d allowed", narrowed, allowed)
	}
}

func TestADocumentThatDoesNotWeakenAllowsNoMore(t *testing.T) {
	t.Parallel()
	for _, kind := range []policy.Kind{policy.Organization, policy.Project} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			same, weaker := 0, 0
			eachSeed(t, 800, func(t *testing.T, r random) {
				fromText := r.text(kind)
				toText := r.another(kind, fromText)
				from, to := parse(t, "from", write(fromText), kind), parse(t, "to", write(toText), kind)
				if policy.Weakens(from, to) != nil {
					weaker++
					return
				}
				same++
				options := policy.Options{EnforceTrust: r.IntN(2) == 0}
				var before, after *policy.Policy
				if kind == policy.Organization {
					p := project(t, write(r.text(policy.Project)))
					before, after = compile(t, from, p, options), compile(t, to, p, options)
				} else {
					o := org(t, write(r.text(policy.Organization)))
					before, after = compile(t, o, from, options), compile(t, o, to, options)
				}
				for range 60 {
					c, req := r.caller(), r.request()
					if d := after.Decide(c, req); d.Allowed && !before.Decide(c, req).Allowed {
						t.Fatalf("%+v asks %+v\nbefore %+v\n%s\nafter %+v\n%s", c, req, before.Decide(c, req), write(fromText), d, write(toText))
					}
				}
			})
			if same < 100 || weaker < 100 {
				t.Errorf("%d documents were not weaker and %d were", same, weaker)
			}
		})
	}
}
