package executor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// arguments returns the program's arguments: the agent's command with the
// placeholders replaced, and the input as the last one if the agent says so.
//
// The text of a task must not pass for an option. An argument that begins with
// the task's description or input gets a space before it if it would begin with
// a dash, unless the command has a "--" of its own before it. A model whose name
// begins with a dash is refused.
func arguments(job Job) ([]string, error) {
	task, def := job.Task, job.Agent.Process
	model := cmp.Or(task.Model, job.Agent.Model)
	if strings.HasPrefix(model, "-") {
		return nil, &Failure{Message: fmt.Sprintf("the model %q is none: it begins with a dash", model)}
	}
	// One pass: what a task brings in is not looked at again.
	fill := strings.NewReplacer(
		"{{input}}", task.Input,
		"{{description}}", task.Description,
		"{{model}}", model,
		"{{thinking}}", string(cmp.Or(task.Thinking, job.Agent.Thinking)),
		"{{taskId}}", task.ID,
		"{{systemPrompt}}", job.Agent.SystemPrompt,
	)
	templates := def.Command[1:]
	if def.Input == "argument" {
		templates = append(slices.Clone(templates), "{{input}}")
	}
	var args []string
	literal := false // after "--"
	for _, template := range templates {
		arg := fill.Replace(template)
		free := strings.HasPrefix(template, "{{input}}") || strings.HasPrefix(template, "{{description}}")
		if free && !literal && strings.HasPrefix(arg, "-") {
			arg = " " + arg
		}
		if strings.ContainsRune(arg, 0) {
			return nil, &Failure{Message: "an argument of a program cannot hold the character U+0000"}
		}
		literal = literal || template == "--"
		args = append(args, arg)
	}
	return args, nil
}
