package registry

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coderclaw/runtime/internal/policy"
)

// Limits on a definition, lengths in characters.
const (
	maxName         = 200
	maxVersion      = 64
	maxDescription  = 2_000
	maxSystemPrompt = 65_536
	maxItems        = 64 // of capabilities and of skills
	maxArguments    = 256
)

var (
	idForm       = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
	variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

	executors = []Executor{ExecutorProcess, ExecutorACP, ExecutorHTTP, ExecutorOpenAI, ExecutorBuiltin}
	thinking  = []Thinking{ThinkingOff, ThinkingMinimal, ThinkingLow, ThinkingMedium, ThinkingHigh}
	inputs    = []Input{InputStdin, InputArgument, InputNone}
)

// refusal takes a fault: a pointer to the faulty value within the definition,
// its path there, and what is wrong, to be read after the path.
type refusal func(value any, path, message string)

// check refuses every fault of d. Skills are those that it may name.
func (d *definition) check(skills map[string]Skill, refuse refusal) {
	refuse.id(&d.ID)
	refuse.line(&d.Name, "name", 0, maxName)
	refuse.text(&d.Description, "description", 1, maxDescription)
	refuse.text(&d.SystemPrompt, "systemPrompt", 0, maxSystemPrompt)
	refuse.line(&d.Model, "model", 0, maxName)

	if len(d.Capabilities) > maxItems {
		refuse(&d.Capabilities, "capabilities", fmt.Sprintf("must not have more than %d items", maxItems))
	}
	for i := range d.Capabilities {
		refuse.line(&d.Capabilities[i], fmt.Sprintf("capabilities[%d]", i), 1, maxName)
	}
	if len(d.Skills) > maxItems {
		refuse(&d.Skills, "skills", fmt.Sprintf("must not have more than %d items", maxItems))
	}
	for i := range d.Skills {
		if _, ok := skills[d.Skills[i]]; !ok {
			refuse(&d.Skills[i], fmt.Sprintf("skills[%d]", i), fmt.Sprintf("names no known skill: %.40q", d.Skills[i]))
		}
	}
	if d.Thinking != "" {
		oneOf(refuse, &d.Thinking, "thinking", thinking)
	}
	oneOf(refuse, &d.Executor, "executor", executors)
	switch {
	case d.Executor == ExecutorHTTP && d.HTTP == nil:
		refuse(&d.HTTP, "http", "is missing: executor http needs its url")
	case d.Executor != ExecutorHTTP && d.HTTP != nil:
		refuse(&d.HTTP, "http", "is for executor http only")
	case d.HTTP != nil:
		d.HTTP.check(refuse)
	}
	runsProgram := d.Executor == ExecutorProcess || d.Executor == ExecutorACP
	switch {
	case runsProgram && d.Process == nil:
		refuse(&d.Process, "process", fmt.Sprintf("is missing: executor %s needs its command", d.Executor))
	case !runsProgram && d.Process != nil:
		refuse(&d.Process, "process", "is for executors process and acp only")
	case d.Process != nil:
		d.Process.check(refuse)
		if d.Executor == ExecutorACP && d.Process.Input != "" {
			refuse(&d.Process.Input, "process.input", "is for executor process only: an acp agent gets its task by the protocol")
		}
		if d.Executor == ExecutorACP && d.Process.Resume != nil {
			refuse(&d.Process.Resume, "process.resume", "is for executor process only: an acp agent is told of answers by the protocol")
		}
	}
}

func (s *service) check(refuse refusal) {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		refuse(&s.URL, "http.url", "must be an http or https URL")
	case u.User != nil:
		refuse(&s.URL, "http.url", "must not hold a user or password; a secret goes into http.secretFile")
	default:
		refuse.line(&s.URL, "http.url", 1, maxDescription)
	}
	refuse.line(&s.SecretFile, "http.secretFile", 0, maxDescription)
	if s.SecretFile != "" && !filepath.IsAbs(s.SecretFile) {
		refuse(&s.SecretFile, "http.secretFile", "must be an absolute path")
	}
}

// check refuses every fault of d.
func (d *skillDefinition) check(refuse refusal) {
	refuse.id(&d.ID)
	refuse.line(&d.Name, "name", 0, maxName)
	refuse.text(&d.Description, "description", 1, maxDescription)
	refuse.line(&d.Version, "version", 0, maxVersion)
	if len(d.RequiredPermissions) > len(policy.Permissions) {
		refuse(&d.RequiredPermissions, "requiredPermissions", fmt.Sprintf("must not have more than %d items", len(policy.Permissions)))
		return
	}
	for i := range d.RequiredPermissions {
		oneOf(refuse, (*policy.Permission)(&d.RequiredPermissions[i]), fmt.Sprintf("requiredPermissions[%d]", i), policy.Permissions)
	}
}

// command refuses a program and arguments that are none.
func (refuse refusal) command(c *[]string, path string) {
	switch {
	case len(*c) == 0 || (*c)[0] == "":
		refuse(c, path, "must name a program")
	case len(*c) > maxArguments:
		refuse(c, path, fmt.Sprintf("must not have more than %d items", maxArguments))
	case strings.Contains((*c)[0], "{{"):
		// What fills a placeholder comes from whoever submits a task.
		refuse(&(*c)[0], path+"[0]", "must not hold a placeholder: the task would choose the program")
	}
	for i := range *c {
		refuse.text(&(*c)[i], fmt.Sprintf("%s[%d]", path, i), 0, maxSystemPrompt)
	}
}

func (p *process) check(refuse refusal) {
	refuse.command(&p.Command, "process.command")
	if p.Resume != nil {
		refuse.command(&p.Resume, "process.resume")
	}
	if p.Input != "" {
		oneOf(refuse, &p.Input, "process.input", inputs)
	}
	refuse.line(&p.Directory, "process.directory", 0, maxDescription)
	if p.Directory != "" && !filepath.IsLocal(p.Directory) {
		refuse(&p.Directory, "process.directory", "must be a path relative to the workspace root and within it")
	}
	if len(p.Environment) > maxArguments {
		refuse(&p.Environment, "process.environment", fmt.Sprintf("must not have more than %d items", maxArguments))
	}
	for i := range p.Environment {
		name, path := &p.Environment[i], fmt.Sprintf("process.environment[%d]", i)
		switch {
		case !variableForm.MatchString(*name) || len(*name) > maxName:
			refuse(name, path, "must be the name of an environment variable, without a value")
		case strings.HasPrefix(*name, "CODERCLAW_"):
			// The runtime's own settings hold its token and its database's password.
			refuse(name, path, "must not name a setting of the runtime")
		}
	}
}

func (refuse refusal) id(value *string) {
	if !idForm.MatchString(*value) {
		refuse(value, "id", "must be 1 to 128 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")
	}
}

// text refuses what is too short or too long, or holds what PostgreSQL or an
// argument vector cannot carry.
func (refuse refusal) text(value *string, path string, least, most int) {
	n := utf8.RuneCountInString(*value)
	switch {
	case !utf8.ValidString(*value) || strings.ContainsRune(*value, 0):
		refuse(value, path, "must be UTF-8 text without U+0000")
	case n < least && n == 0:
		refuse(value, path, "must not be empty")
	case n > most:
		refuse(value, path, fmt.Sprintf("must not be longer than %d characters", most))
	}
}

// line is text without line breaks and other control characters.
func (refuse refusal) line(value *string, path string, least, most int) {
	if strings.ContainsFunc(*value, unicode.IsControl) {
		refuse(value, path, "must be one line without control characters")
		return
	}
	refuse.text(value, path, least, most)
}

func oneOf[T ~string](refuse refusal, value *T, path string, allowed []T) {
	if slices.Contains(allowed, *value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	refuse(value, path, "must be one of "+strings.Join(names, ", "))
}
