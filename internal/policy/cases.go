package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

const maxCasesBytes = 1 << 20

// Case is an example of what a policy should decide.
type Case struct {
	Name        string            `yaml:"name"`
	User        string            `yaml:"user"`
	Roles       []Role            `yaml:"roles"`
	Project     string            `yaml:"project"`
	Device      *TrustLevel       `yaml:"device"` // of the caller's device; nil: it shows none
	Local       bool              `yaml:"local"`
	Permission  Permission        `yaml:"permission"`
	Action      string            `yaml:"action"`
	Agent       string            `yaml:"agent"`
	AgentSkills []string          `yaml:"agentSkills"`
	Skill       string            `yaml:"skill"`
	Labels      map[string]string `yaml:"labels"`
	Approving   string            `yaml:"approving"` // who submitted the task for which the caller approves something
	Expect      Outcome           `yaml:"expect"`
	Layer       Layer             `yaml:"layer"`  // that should decide; empty: any
	Reason      string            `yaml:"reason"` // a part of it
	// Place is where the case stands, as file:line:column.
	Place string
}

// Outcome is how a case should be decided.
type Outcome string

// The outcomes.
const (
	Allowed Outcome = "allowed"
	Denied  Outcome = "denied"
)

var layers = []Layer{
	LayerSession, LayerDevice, LayerProject, LayerPermission, LayerAgent, LayerSkill, LayerOrganization, LayerCustom,
}

// Failure is a case that a policy decides in another way.
type Failure struct {
	Case     Case
	Decision Decision
	Message  string // what was expected and what came
}

// ParseCases reads the list under the key cases. The error is as that of
// ParseDocument.
func ParseCases(data []byte, filename string) ([]Case, error) {
	var file struct {
		Cases []Case `yaml:"cases"`
	}
	c := checker{strictyaml.Decode(filename, data, maxCasesBytes, &file)}
	names := map[string]bool{}
	for i := range file.Cases {
		k := &file.Cases[i]
		k.Place = c.Place(k)
		c.once(names, "cases", "name", i, k, &k.Name)
		c.oneOf(k, &k.Permission, "permission", texts(Permissions), string(k.Permission))
		c.oneOf(k, &k.Expect, "expect", []string{string(Allowed), string(Denied)}, string(k.Expect))
		if c.Has(&k.Layer) {
			c.oneOf(k, &k.Layer, "layer", texts(layers), string(k.Layer))
		}
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	return file.Cases, nil
}

// oneOf refuses a value that is missing from entry, or none of those that there
// are.
func (c checker) oneOf(entry, value any, key string, known []string, got string) {
	switch {
	case got == "":
		c.Refuse(entry, "%s is missing: one of %s", key, strings.Join(known, ", "))
	case !slices.Contains(known, got):
		c.Refuse(value, "%s: %.40q is not one of %s", key, got, strings.Join(known, ", "))
	}
}

// RunCases returns the cases that p decides in another way than they expect,
// and those that name a role which p does not know.
func RunCases(p *Policy, cases []Case) (failures []Failure) {
	for _, k := range cases {
		if i := slices.IndexFunc(k.Roles, func(r Role) bool { return !p.KnownRole(r) }); i >= 0 {
			failures = append(failures, Failure{Case: k, Message: fmt.Sprintf("there is no role %s", k.Roles[i])})
			continue
		}
		d := p.Decide(k.caller(), k.request())
		if message := k.misses(d); message != "" {
			failures = append(failures, Failure{k, d, message})
		}
	}
	return failures
}

func (k *Case) caller() Caller {
	c := Caller{UserID: k.User, Roles: k.Roles, ProjectID: k.Project, Local: k.Local}
	if k.Device != nil {
		c.DeviceID, c.Trust = "device", *k.Device
	}
	return c
}

func (k *Case) request() Request {
	return Request{
		Permission: k.Permission, Action: k.Action, ProjectID: k.Project,
		AgentID: k.Agent, AgentSkills: k.AgentSkills, SkillID: k.Skill, Labels: k.Labels, Approving: k.Approving,
	}
}

// misses says how d is not what is expected; empty: it is.
func (k *Case) misses(d Decision) string {
	got := Denied
	if d.Allowed {
		got = Allowed
	}
	because := d.Reason
	if d.Rule != "" {
		because += " (" + d.Rule + ")"
	}
	switch {
	case got != k.Expect:
		return fmt.Sprintf("expected %s, and it is %s by the %s layer: %s", k.Expect, got, d.Layer, because)
	case k.Layer != "" && d.Layer != k.Layer:
		return fmt.Sprintf("%s as expected, but by the %s layer and not by %s: %s", got, d.Layer, k.Layer, because)
	case !strings.Contains(d.Reason, k.Reason):
		return fmt.Sprintf("%s as expected, but the reason does not say %q: %s", got, k.Reason, because)
	}
	return ""
}
