package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
)

// CustomRule is a condition that every request has to meet.
type CustomRule struct {
	Name string `yaml:"name"`
	// Expression is CEL: true allows, false or an error denies. It is over
	// user, project, agent, skill, action, permission and device.trust (text,
	// empty for what a request has not), roles (a list), device.local (boolean)
	// and labels (a map, text to text).
	Expression string `yaml:"expression"`
	Message    string `yaml:"message"` // the reason of a denial

	program cel.Program
}

// maxNesting bounds an expression: checking a hundred maps within each other
// takes seconds, and a document has room for many of those.
const maxNesting = 40

// maxCost ends an expression that loops in loops after some milliseconds.
const maxCost = 10_000

var environment = sync.OnceValues(func() (*cel.Env, error) {
	text := cel.StringType
	return cel.NewEnv(
		cel.OptionalTypes(),
		cel.ParserRecursionLimit(maxNesting),
		cel.Variable("user", text),
		cel.Variable("roles", cel.ListType(text)),
		cel.Variable("project", text),
		cel.Variable("agent", text),
		cel.Variable("skill", text),
		cel.Variable("action", text),
		cel.Variable("permission", text),
		// As names of their own, for a misspelt field of a map would compile.
		cel.Variable("device.trust", text),
		cel.Variable("device.local", cel.BoolType),
		cel.Variable("labels", cel.MapType(text, text)),
	)
})

// compile makes r ready to be evaluated. The error says what is wrong with the
// expression, on one line.
func (r *CustomRule) compile() error {
	env, err := environment()
	if err != nil {
		return err
	}
	ast, issues := env.Compile(r.Expression)
	if issues.Err() != nil {
		var faults []string
		for _, e := range issues.Errors() {
			place := ""
			if e.Location.Line() > 0 {
				place = fmt.Sprintf("%d:%d: ", e.Location.Line(), e.Location.Column()+1)
			}
			faults = append(faults, place+e.Message)
		}
		return errors.New(strings.Join(faults, "; "))
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) {
		return fmt.Errorf("it yields %s, and must yield bool", t)
	}
	r.program, err = env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	return err
}

// holds evaluates r.
func (r *CustomRule) holds(f *facts) (bool, error) {
	value, _, err := r.program.Eval(f)
	if err != nil {
		return false, err
	}
	return value.Value() == true, nil
}

// facts are the variables of expressions. They are a copy: what the evaluator
// gets would otherwise cost every decision an allocation.
type facts struct {
	caller  Caller
	request Request
	trust   TrustLevel
}

func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "user":
		return f.caller.UserID, true
	case "roles":
		roles := make([]string, len(f.caller.Roles))
		for i, r := range f.caller.Roles {
			roles[i] = string(r)
		}
		return roles, true
	case "project":
		return f.request.ProjectID, true
	case "agent":
		return f.request.AgentID, true
	case "skill":
		return f.request.SkillID, true
	case "action":
		return f.request.Action, true
	case "permission":
		return string(f.request.Permission), true
	case "device.trust":
		return f.trust.String(), true
	case "device.local":
		return f.caller.Local, true
	case "labels":
		return f.request.Labels, true
	}
	return nil, false
}

func (*facts) Parent() cel.Activation { return nil }
