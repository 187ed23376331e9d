package api

// Agent is something that can be asked to run a task.
type Agent struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Description  string       `json:"description"`
	Capabilities []string     `json:"capabilities"`
	Skills       []string     `json:"skills" doc:"Ids of the skills that it may use."`
	SystemPrompt string       `json:"systemPrompt,omitempty"`
	Model        string       `json:"model,omitempty" doc:"The model used when a task names none."`
	Thinking     Thinking     `json:"thinking,omitempty" enum:"off,minimal,low,medium,high"`
	Executor     ExecutorKind `json:"executor" enum:"process,acp,http,openai,builtin" doc:"How a worker runs it."`
	Process      *Process     `json:"process,omitempty" doc:"With executor process or acp: the command."`
	HTTP         *HTTP        `json:"http,omitempty" doc:"With executor http: where it is."`
	Source       AgentSource  `json:"source" enum:"builtin,file,api" doc:"Where the definition comes from; a later one hides an earlier one of the same id."`
	Available    bool         `json:"available" doc:"Whether something is there that can run it."`
	Unavailable  string       `json:"unavailableReason,omitempty" doc:"What to configure so that it becomes available."`
}

// AgentDefinition is the body of PUT /v1/agents/{id}.
type AgentDefinition struct {
	Name         string       `json:"name,omitempty" maxLength:"200"`
	Description  string       `json:"description" minLength:"1" maxLength:"2000"`
	Capabilities []string     `json:"capabilities,omitempty" maxItems:"64"`
	Skills       []string     `json:"skills,omitempty" maxItems:"64"`
	SystemPrompt string       `json:"systemPrompt,omitempty" maxLength:"65536"`
	Model        string       `json:"model,omitempty" maxLength:"200"`
	Thinking     Thinking     `json:"thinking,omitempty" enum:"off,minimal,low,medium,high"`
	Executor     ExecutorKind `json:"executor" enum:"process,acp,http,openai,builtin"`
	Process      *Process     `json:"process,omitempty"`
	HTTP         *HTTP        `json:"http,omitempty"`
}

// AgentSource is where an agent's definition comes from.
type AgentSource string

// The sources of agents, each hiding the ones before it.
const (
	SourceBuiltin AgentSource = "builtin"
	SourceFile    AgentSource = "file"
	SourceAPI     AgentSource = "api"
)

// ExecutorKind is how a worker runs an agent.
type ExecutorKind string

// The executors.
const (
	ExecutorProcess ExecutorKind = "process"
	ExecutorACP     ExecutorKind = "acp"  // speaks the Agent Client Protocol on its standard streams
	ExecutorHTTP    ExecutorKind = "http" // a service that takes tasks
	ExecutorOpenAI  ExecutorKind = "openai"
	ExecutorBuiltin ExecutorKind = "builtin"
)

// Process is a command-line agent. The command is never given to a shell.
type Process struct {
	Command     []string `json:"command" yaml:"command" minItems:"1" maxItems:"256" doc:"Program and arguments. {{input}}, {{description}}, {{model}}, {{thinking}}, {{taskId}} and {{systemPrompt}} within an argument are replaced. A program with a path but no leading slash is taken from the workspace root."`
	Input       string   `json:"input,omitempty" yaml:"input" enum:"stdin,argument,none" doc:"With executor process: how the task's input reaches the program: on standard input (default), as the last argument, or not at all (then name {{input}} in the command). An argument that would begin with a dash because of the task gets a space in front, unless the command has a -- before it."`
	Resume      []string `json:"resume,omitempty" yaml:"resume" maxItems:"256" doc:"With executor process: the program and arguments that go on once people have answered what the program asked, in the form of command. Without it a program cannot ask."`
	Directory   string   `json:"directory,omitempty" yaml:"directory" doc:"Working directory inside the workspace root. Default: the task's metadata.path, else the root."`
	Environment []string `json:"environment,omitempty" yaml:"environment" maxItems:"256" doc:"Names of the worker's environment variables that the program may see, besides PATH, HOME, LANG, LC_ALL, TERM, TMPDIR, TZ and USER."`
}

// HTTP is an agent that is a service.
type HTTP struct {
	URL        string `json:"url" yaml:"url" minLength:"1" maxLength:"2000" doc:"Where tasks are posted to: an http or https URL, at a public address unless agents.yaml of the worker defines the agent."`
	SecretFile string `json:"secretFile,omitempty" yaml:"secretFile" maxLength:"2000" doc:"In agents.yaml only: a file of the worker's machine that holds the bearer token."`
}

// AgentList is the answer to GET /v1/agents.
type AgentList struct {
	Items      []Agent `json:"items"`
	NextCursor string  `json:"nextCursor,omitempty"`
}

// Skill is something that an agent may do beyond answering.
type Skill struct {
	ID                  string   `json:"id"`
	Name                string   `json:"name"`
	Description         string   `json:"description"`
	Version             string   `json:"version"`
	Dangerous           bool     `json:"dangerous" doc:"Whether its use can do harm that is hard to undo."`
	RequiredPermissions []string `json:"requiredPermissions"`
	Enabled             bool     `json:"enabled"`
}

// SkillDefinition is the body of PUT /v1/skills/{id}.
type SkillDefinition struct {
	Name                string   `json:"name,omitempty" maxLength:"200"`
	Description         string   `json:"description" minLength:"1" maxLength:"2000"`
	Version             string   `json:"version,omitempty" maxLength:"64"`
	Dangerous           bool     `json:"dangerous,omitempty" doc:"Whether its use can do harm that is hard to undo."`
	RequiredPermissions []string `json:"requiredPermissions,omitempty" maxItems:"8" doc:"What its use takes besides skill:execute."`
	Enabled             *bool    `json:"enabled,omitempty" doc:"Default: true."`
}

// SkillList is the answer to GET /v1/skills.
type SkillList struct {
	Items      []Skill `json:"items"`
	NextCursor string  `json:"nextCursor,omitempty"`
}
