package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// Registry is the part of the registry of agents and skills that the routes
// use.
type Registry interface {
	Agents(ctx context.Context) ([]registry.Agent, error)
	Agent(ctx context.Context, id string) (registry.Agent, error)
	PutAgent(ctx context.Context, c policy.Caller, a registry.Agent) (saved registry.Agent, created bool, err error)
	DeleteAgent(ctx context.Context, c policy.Caller, id string) error
	Skills(ctx context.Context) ([]registry.Skill, error)
	Skill(ctx context.Context, id string) (registry.Skill, error)
	PutSkill(ctx context.Context, c policy.Caller, sk registry.Skill) (saved registry.Skill, created bool, err error)
	DeleteSkill(ctx context.Context, c policy.Caller, id string) error
}

type (
	// NameInput names an agent or a skill.
	NameInput struct {
		ID string `path:"id" maxLength:"128"`
	}
	agentOutput struct {
		Status int
		Body   api.Agent
	}
	// WaitInput says how long the answer may wait for the task.
	WaitInput struct {
		Wait string `query:"wait" maxLength:"20" doc:"Answer when the task has ended, but after this time at the latest: a duration such as 30s, at most 60s." example:"30s"`
	}
	submittedOutput struct {
		Status   int
		Location string `header:"Location" doc:"The path of the new task."`
		Body     api.Task
	}
)

func (s *Server) registerRegistry() {
	handle(s, operation{
		id: "listAgents", action: "agent.list", method: http.MethodGet, path: "/v1/agents", permission: policy.Admitted, workers: true, tag: "Registry",
		summary: "List agents",
	}, s.listAgents)
	handle(s, operation{
		id: "getAgent", action: "agent.read", method: http.MethodGet, path: "/v1/agents/{id}", permission: policy.Admitted, workers: true, tag: "Registry",
		summary: "Get an agent", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getAgent)
	handle(s, operation{
		id: "putAgent", action: "agent.put", method: http.MethodPut, path: "/v1/agents/{id}", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Define an agent", errors: []int{http.StatusUnprocessableEntity},
		detail: "Hides an agent of the same id that is built in or comes from agents.yaml. Answers 201 if no such definition was there before.",
	}, s.putAgent)
	handle(s, operation{
		id: "deleteAgent", action: "agent.delete", method: http.MethodDelete, path: "/v1/agents/{id}", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Delete an agent that was defined here", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteAgent)
	handle(s, operation{
		id: "invokeAgent", action: "task.submit", method: http.MethodPost, path: "/v1/agents/{id}/invoke", permission: policy.AgentInvoke, tag: "Registry", wait: maxWait,
		summary: "Submit a task to an agent and, if asked to, wait for it", status: http.StatusCreated,
		detail: "Answers 200 with the finished task if it ends within wait, else 201 with the task as it is.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.invokeAgent)
	handle(s, operation{
		id: "listSkills", action: "skill.list", method: http.MethodGet, path: "/v1/skills", permission: policy.Admitted, tag: "Registry",
		summary: "List skills",
	}, s.listSkills)
	handle(s, operation{
		id: "getSkill", action: "skill.read", method: http.MethodGet, path: "/v1/skills/{id}", permission: policy.Admitted, tag: "Registry",
		summary: "Get a skill", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getSkill)
	handle(s, operation{
		id: "putSkill", action: "skill.put", method: http.MethodPut, path: "/v1/skills/{id}", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Define a skill", errors: []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		detail: "Hides a skill of the same id that is built in. To have it ask for less than before is for administrators. Answers 201 if no such definition was there before.",
	}, s.putSkill)
	handle(s, operation{
		id: "deleteSkill", action: "skill.delete", method: http.MethodDelete, path: "/v1/skills/{id}", permission: policy.ConfigWrite, tag: "Registry",
		summary: "Delete a skill that was defined here", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteSkill)
	handle(s, operation{
		id: "executeSkill", action: "task.submit", method: http.MethodPost, path: "/v1/skills/{id}/execute", permission: policy.SkillExecute, tag: "Registry", wait: maxWait,
		summary: "Submit a task that uses a skill and, if asked to, wait for it", status: http.StatusCreated,
		detail: "Answers 200 with the finished task if it ends within wait, else 201 with the task as it is.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.executeSkill)
}

func (s *Server) listAgents(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.AgentList }, error) {
	agents, err := s.registry.Agents(ctx)
	if err != nil {
		return nil, err
	}
	list := api.AgentList{Items: make([]api.Agent, len(agents))}
	for i, a := range agents {
		list.Items[i] = WireAgent(a)
	}
	return &struct{ Body api.AgentList }{list}, nil
}

func (s *Server) getAgent(ctx context.Context, _ policy.Caller, in *NameInput) (*struct{ Body api.Agent }, error) {
	a, err := s.registry.Agent(ctx, in.ID)
	return &struct{ Body api.Agent }{WireAgent(a)}, err
}

func (s *Server) putAgent(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	Body api.AgentDefinition
}) (*agentOutput, error) {
	d := in.Body
	a := registry.Agent{
		ID: in.ID, Name: d.Name, Description: d.Description, Capabilities: d.Capabilities, Skills: d.Skills,
		SystemPrompt: d.SystemPrompt, Model: d.Model, Thinking: registry.Thinking(d.Thinking), Executor: registry.Executor(d.Executor),
	}
	if d.Process != nil {
		a.Process = &registry.Process{
			Command: d.Process.Command, Input: registry.Input(d.Process.Input), Resume: d.Process.Resume, Directory: d.Process.Directory, Environment: d.Process.Environment,
		}
	}
	a.HTTP = (*registry.HTTP)(d.HTTP)
	saved, created, err := s.registry.PutAgent(ctx, c, a)
	out := &agentOutput{Status: http.StatusOK, Body: WireAgent(saved)}
	if created {
		out.Status = http.StatusCreated
	}
	return out, err
}

func (s *Server) deleteAgent(ctx context.Context, c policy.Caller, in *NameInput) (*struct{}, error) {
	return nil, s.registry.DeleteAgent(ctx, c, in.ID)
}

func (s *Server) invokeAgent(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	IdempotencyInput
	WaitInput
	Body api.NewTask
}) (*submittedOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	if _, err := s.registry.Agent(ctx, in.ID); err != nil {
		return nil, err
	}
	if in.Body.AgentID != "" && in.Body.AgentID != in.ID {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.agentId", Message: "must be absent or the agent in the path"}})
	}
	in.Body.AgentID = in.ID
	n, err := newTask(in.Body, "body")
	if err != nil {
		return nil, err
	}
	n.By = policy.AgentInvoke
	return s.submitAndWait(ctx, c, n, in.Key, wait)
}

func (s *Server) executeSkill(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	IdempotencyInput
	WaitInput
	Body api.NewTask
}) (*submittedOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	skill, err := s.registry.Skill(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !skill.Enabled {
		return nil, fault.New(fault.Conflict, "skill %s is disabled", in.ID)
	}
	if in.Body.SkillID != "" && in.Body.SkillID != in.ID {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.skillId", Message: "must be absent or the skill in the path"}})
	}
	in.Body.SkillID = in.ID
	n, err := newTask(in.Body, "body")
	if err != nil {
		return nil, err
	}
	n.By = policy.SkillExecute
	return s.submitAndWait(ctx, c, n, in.Key, wait)
}

// submitAndWait submits a task and waits for its end, at most wait.
func (s *Server) submitAndWait(ctx context.Context, c policy.Caller, n task.New, key string, wait time.Duration) (*submittedOutput, error) {
	t, err := s.tasks.Submit(ctx, c, n, key)
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		t = s.awaitEnd(ctx, c, t, wait)
	}
	out := &submittedOutput{Status: http.StatusCreated, Location: "/v1/tasks/" + t.ID.String(), Body: WireTask(t)}
	if t.Status.Terminal() {
		out.Status = http.StatusOK
	}
	return out, nil
}

// maxWait bounds how long a request may wait for a task.
const maxWait = time.Minute

func (in *WaitInput) duration() (time.Duration, error) {
	if in.Wait == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(in.Wait)
	if err != nil || d < 0 || d > maxWait {
		return 0, fault.InvalidFields([]fault.Field{{Path: "query.wait", Message: "must be a duration from 0s to 60s"}})
	}
	return d, nil
}

// awaitEnd returns the task when it has ended, or as it was last seen after
// wait: it is submitted, whatever happens meanwhile.
func (s *Server) awaitEnd(ctx context.Context, c policy.Caller, t task.Task, wait time.Duration) task.Task {
	changed := make(chan struct{}, 1)
	f := s.taskHub.Follow(t.ID.String(), stream.Cursor{Pos: t.LastSeq}, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer f.Close()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		now, err := s.tasks.Get(ctx, c, t.ID)
		if err != nil {
			s.log.WarnContext(ctx, "a submitted task cannot be waited for", "task", t.ID, "error", err)
			return t
		}
		if t = now; t.Status.Terminal() {
			return t
		}
		select {
		case <-changed:
		case <-timeout.C:
			return t
		case <-s.stopping:
			return t
		case <-ctx.Done():
			return t
		}
	}
}

func (s *Server) listSkills(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.SkillList }, error) {
	skills, err := s.registry.Skills(ctx)
	if err != nil {
		return nil, err
	}
	list := api.SkillList{Items: make([]api.Skill, len(skills))}
	for i, sk := range skills {
		list.Items[i] = wireSkill(sk)
	}
	return &struct{ Body api.SkillList }{list}, nil
}

func (s *Server) getSkill(ctx context.Context, _ policy.Caller, in *NameInput) (*struct{ Body api.Skill }, error) {
	sk, err := s.registry.Skill(ctx, in.ID)
	return &struct{ Body api.Skill }{wireSkill(sk)}, err
}

type skillOutput struct {
	Status int
	Body   api.Skill
}

func (s *Server) putSkill(ctx context.Context, c policy.Caller, in *struct {
	NameInput
	Body api.SkillDefinition
}) (*skillOutput, error) {
	d := in.Body
	saved, created, err := s.registry.PutSkill(ctx, c, registry.Skill{
		ID: in.ID, Name: d.Name, Description: d.Description, Version: d.Version, Dangerous: d.Dangerous,
		RequiredPermissions: d.RequiredPermissions, Enabled: d.Enabled == nil || *d.Enabled,
	})
	out := &skillOutput{Status: http.StatusOK, Body: wireSkill(saved)}
	if created {
		out.Status = http.StatusCreated
	}
	return out, err
}

func (s *Server) deleteSkill(ctx context.Context, c policy.Caller, in *NameInput) (*struct{}, error) {
	return nil, s.registry.DeleteSkill(ctx, c, in.ID)
}

// WireAgent is an agent as clients and workers see it.
func WireAgent(a registry.Agent) api.Agent {
	w := api.Agent{
		ID: a.ID, Name: a.Name, Description: a.Description, Capabilities: notNil(a.Capabilities), Skills: notNil(a.Skills),
		SystemPrompt: a.SystemPrompt, Model: a.Model, Thinking: api.Thinking(a.Thinking), Executor: api.ExecutorKind(a.Executor),
		Source: api.AgentSource(a.Source), Available: a.Available, Unavailable: a.Unavailable,
	}
	if a.Process != nil {
		w.Process = &api.Process{
			Command: a.Process.Command, Input: string(a.Process.Input), Resume: a.Process.Resume, Directory: a.Process.Directory, Environment: a.Process.Environment,
		}
	}
	w.HTTP = (*api.HTTP)(a.HTTP)
	return w
}

func wireSkill(sk registry.Skill) api.Skill {
	return api.Skill{
		ID: sk.ID, Name: sk.Name, Description: sk.Description, Version: sk.Version, Dangerous: sk.Dangerous,
		RequiredPermissions: notNil(sk.RequiredPermissions), Enabled: sk.Enabled,
	}
}

// notNil is for lists, which are never null on the wire.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
