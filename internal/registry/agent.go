package registry

// Agent is something that can be asked to run a task. Its slices and what it
// points to may be shared; whoever gets one must not change what they hold.
type Agent struct {
	ID           string
	Name         string
	Description  string
	Capabilities []string
	Skills       []string // ids of known skills
	SystemPrompt string
	Model        string // used when a task names none
	Thinking     Thinking
	Executor     Executor
	Process      *Process // with ExecutorProcess and ExecutorACP only
	HTTP         *HTTP    // with ExecutorHTTP only
	Source       Source
	Available    bool
	Unavailable  string // if not Available: what to configure
}

// Process is a command-line agent.
type Process struct {
	Command     []string // program and arguments, with placeholders; never given to a shell
	Input       Input    // with ExecutorProcess only
	Resume      []string // likewise: goes on once people have answered what the program asked; none: it cannot ask
	Directory   string   // relative to the workspace root; empty: up to the task
	Environment []string // names of variables that are passed on
}

// HTTP is an agent that is a service.
type HTTP struct {
	URL        string
	SecretFile string // on the worker's machine; in agents.yaml only
}

// Skill is something that an agent may do beyond answering. Its slice may be
// shared; whoever gets it must not change what it holds.
type Skill struct {
	ID                  string
	Name                string
	Description         string
	Version             string
	Dangerous           bool // its use can do harm that is hard to undo
	RequiredPermissions []string
	Enabled             bool // whether it may be used at all
}

// Source is where an agent's definition comes from.
type Source string

// The sources; a definition hides those of the same id from the ones before.
const (
	SourceBuiltin Source = "builtin"
	SourceFile    Source = "file"
	SourceAPI     Source = "api"
)

// Executor is how a worker runs an agent.
type Executor string

// The executors.
const (
	ExecutorProcess Executor = "process"
	ExecutorACP     Executor = "acp"
	ExecutorHTTP    Executor = "http"
	ExecutorOpenAI  Executor = "openai"
	ExecutorBuiltin Executor = "builtin"
)

// Thinking is how much a model may reason before it answers; empty leaves it
// to the model.
type Thinking string

// The degrees of thinking.
const (
	ThinkingOff     Thinking = "off"
	ThinkingMinimal Thinking = "minimal"
	ThinkingLow     Thinking = "low"
	ThinkingMedium  Thinking = "medium"
	ThinkingHigh    Thinking = "high"
)

// Input is how a task's input reaches a process.
type Input string

// The ways of input; a definition that names none means InputStdin.
const (
	InputStdin    Input = "stdin"
	InputArgument Input = "argument"
	InputNone     Input = "none"
)

// definition is an agent as agents.yaml and the table agents hold it.
type definition struct {
	ID           string   `yaml:"id" json:"-"`
	Name         string   `yaml:"name" json:"name"`
	Description  string   `yaml:"description" json:"description"`
	Capabilities []string `yaml:"capabilities" json:"capabilities,omitempty"`
	Skills       []string `yaml:"skills" json:"skills,omitempty"`
	SystemPrompt string   `yaml:"systemPrompt" json:"systemPrompt,omitempty"`
	Model        string   `yaml:"model" json:"model,omitempty"`
	Thinking     Thinking `yaml:"thinking" json:"thinking,omitempty"`
	Executor     Executor `yaml:"executor" json:"executor"`
	Process      *process `yaml:"process" json:"process,omitempty"`
	HTTP         *service `yaml:"http" json:"http,omitempty"`
}

type service struct {
	URL        string `yaml:"url" json:"url"`
	SecretFile string `yaml:"secretFile" json:"-"`
}

type process struct {
	Command     []string `yaml:"command" json:"command"`
	Input       Input    `yaml:"input" json:"input,omitempty"`
	Resume      []string `yaml:"resume" json:"resume,omitempty"`
	Directory   string   `yaml:"directory" json:"directory,omitempty"`
	Environment []string `yaml:"environment" json:"environment,omitempty"`
}

func definitionOf(a Agent) definition {
	return definition{
		ID: a.ID, Name: a.Name, Description: a.Description, Capabilities: a.Capabilities, Skills: a.Skills,
		SystemPrompt: a.SystemPrompt, Model: a.Model, Thinking: a.Thinking,
		Executor: a.Executor, Process: (*process)(a.Process), HTTP: (*service)(a.HTTP),
	}
}

// agent returns d with its defaults filled in.
func (d definition) agent(source Source) Agent {
	if d.Name == "" {
		d.Name = d.ID
	}
	if d.Executor == ExecutorProcess && d.Process != nil && d.Process.Input == "" {
		p := *d.Process
		p.Input = InputStdin
		d.Process = &p
	}
	return Agent{
		ID: d.ID, Name: d.Name, Description: d.Description, Capabilities: d.Capabilities, Skills: d.Skills,
		SystemPrompt: d.SystemPrompt, Model: d.Model, Thinking: d.Thinking,
		Executor: d.Executor, Process: (*Process)(d.Process), HTTP: (*HTTP)(d.HTTP), Source: source,
	}
}

// skillDefinition is a skill as the binary and the table skills hold it.
type skillDefinition struct {
	ID                  string   `yaml:"id" json:"-"`
	Name                string   `yaml:"name" json:"name"`
	Description         string   `yaml:"description" json:"description"`
	Version             string   `yaml:"version" json:"version,omitempty"`
	Dangerous           bool     `yaml:"dangerous" json:"dangerous,omitempty"`
	RequiredPermissions []string `yaml:"requiredPermissions" json:"requiredPermissions,omitempty"`
	Enabled             bool     `yaml:"enabled" json:"enabled,omitempty"`
}

// skill returns d with its defaults filled in.
func (d skillDefinition) skill() Skill {
	if d.Name == "" {
		d.Name = d.ID
	}
	return Skill(d)
}
