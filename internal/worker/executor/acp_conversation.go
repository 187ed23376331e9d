package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/acp-go-sdk"
)

// conversation is what is said between the worker and an agent during one
// attempt.
type conversation struct {
	job         Job
	sink        Sink
	asking      context.Context // while a person's answer still matters
	peer        *peer
	report      report
	files       files
	terminals   terminals
	sessions    sessions
	limits      acpLimits
	environment []string // the agent's
	directory   string   // that it works in

	pending  outcomes // of what the agent had asked before it was suspended
	patience *time.Timer
	session  atomic.Pointer[acp.SessionId] // nil until the prompt
}

// talk brings the agent to do the task and returns how its turn ended.
func (c *conversation) talk(ctx context.Context) (answer acp.PromptResponse, err error) {
	var agent acp.InitializeResponse
	err = c.peer.call(ctx, acp.AgentMethodInitialize, acp.InitializeRequest{
		ProtocolVersion:    acp.ProtocolVersionNumber,
		ClientInfo:         &acp.Implementation{Name: "coderclaw", Version: "1"},
		ClientCapabilities: acp.ClientCapabilities{Fs: acp.FileSystemCapabilities{ReadTextFile: true, WriteTextFile: true}, Terminal: true},
	}, &agent)
	if err != nil {
		return answer, err
	}
	if agent.ProtocolVersion != acp.ProtocolVersionNumber {
		return answer, &Failure{Message: fmt.Sprintf("the agent speaks version %d of the Agent Client Protocol, and this worker version %d", agent.ProtocolVersion, acp.ProtocolVersionNumber)}
	}
	session, resumed, err := c.open(ctx, agent)
	if e, ok := errors.AsType[*acp.RequestError](err); ok && e.Code == acp.NewAuthRequired(nil).Code {
		if err := c.logIn(ctx, agent.AuthMethods); err != nil {
			return answer, err
		}
		session, resumed, err = c.open(ctx, agent)
	}
	if err != nil {
		return answer, err
	}
	c.report.source = usageSource(string(session))
	c.session.Store(&session)
	c.heard()
	if agent.AgentCapabilities.LoadSession {
		c.sink.Resumable(func() string { return c.state(session) })
	}
	err = c.peer.call(ctx, acp.AgentMethodSessionPrompt, acp.PromptRequest{SessionId: session, Prompt: c.prompt(resumed)}, &answer)
	return answer, err
}

// open continues the session of an attempt that broke off, or begins one.
func (c *conversation) open(ctx context.Context, agent acp.InitializeResponse) (session acp.SessionId, resumed bool, err error) {
	mine := record{Agent: c.job.Agent.ID, Command: c.job.Agent.Process.Command, Directory: c.directory}
	if agent.AgentCapabilities.LoadSession {
		if was, ok := c.before(); ok && was.like(mine) {
			err := c.peer.call(ctx, acp.AgentMethodSessionLoad, acp.LoadSessionRequest{SessionId: was.Session, Cwd: c.directory, McpServers: []acp.McpServer{}}, nil)
			if err == nil {
				c.sink.Note("the agent continues its session", map[string]any{"session": was.Session})
				if c.job.Resume != nil {
					c.pending.fill(c.job.Resume.Outcomes)
				}
				return was.Session, true, nil
			}
			if _, ok := errors.AsType[*acp.RequestError](err); !ok {
				return "", false, err
			}
		}
	}
	if c.job.Resume != nil {
		c.sink.Note("the agent cannot continue its session and begins anew", nil)
	}
	var created acp.NewSessionResponse
	if err := c.peer.call(ctx, acp.AgentMethodSessionNew, acp.NewSessionRequest{Cwd: c.directory, McpServers: []acp.McpServer{}}, &created); err != nil {
		return "", false, err
	}
	c.sink.Note("the agent began a session", map[string]any{"session": created.SessionId})
	if agent.AgentCapabilities.LoadSession {
		mine.Session = created.SessionId
		c.sessions.keep(c.job.Task.ID, mine)
	}
	return created.SessionId, false, nil
}

// before is the session that the attempt was suspended in, or that of one that
// broke off.
func (c *conversation) before() (was record, ok bool) {
	if r := c.job.Resume; r != nil {
		return was, json.Unmarshal([]byte(r.State), &was) == nil
	}
	return c.sessions.find(c.job.Task.ID)
}

// state is what the attempt could go on from; "" while a command runs, which
// would be lost.
func (c *conversation) state(session acp.SessionId) string {
	if c.terminals.running() {
		return ""
	}
	text, err := json.Marshal(record{Agent: c.job.Agent.ID, Command: c.job.Agent.Process.Command, Directory: c.directory, Session: session})
	if err != nil {
		return ""
	}
	return string(text)
}

// logIn has the agent authenticate, if it offers a way that needs nobody who
// types: by variables that it has, or the only one that it does itself.
func (c *conversation) logIn(ctx context.Context, offered []acp.AuthMethod) error {
	var chosen string
	var names, byItself []string
	for _, m := range offered {
		switch {
		case m.EnvVar != nil:
			names = append(names, m.EnvVar.Name)
			if chosen == "" && c.has(m.EnvVar.Vars) {
				chosen = m.EnvVar.Id
			}
		case m.Agent != nil:
			names = append(names, m.Agent.Name)
			byItself = append(byItself, m.Agent.Id)
		case m.Terminal != nil:
			names = append(names, m.Terminal.Name)
		}
	}
	if chosen == "" && len(byItself) == 1 {
		chosen = byItself[0]
	}
	why := ""
	if chosen != "" {
		err := c.peer.call(ctx, acp.AgentMethodAuthenticate, acp.AuthenticateRequest{MethodId: chosen}, nil)
		e, ok := errors.AsType[*acp.RequestError](err)
		if !ok {
			return err
		}
		why = ": " + complaintOf(e)
	}
	for i, name := range names {
		names[i] = shortened(name, 100)
	}
	offers := ""
	if len(names) > 0 {
		offers = "; it offers: " + shortened(strings.Join(names, ", "), maxComplaint)
	}
	return &Failure{Message: "the agent wants to be logged in" + why + ". Log in to it on the worker's machine as the worker's user, or name the variable with its key in process.environment" + offers}
}

// has reports whether the agent's environment has what the variables must be.
func (c *conversation) has(vars []acp.AuthEnvVar) bool {
	for _, v := range vars {
		set := slices.ContainsFunc(c.environment, func(e string) bool { return strings.HasPrefix(e, v.Name+"=") })
		if !set && !v.Optional {
			return false
		}
	}
	return true
}

// prompt is the task in the agent's words.
func (c *conversation) prompt(resumed bool) []acp.ContentBlock {
	text := prompt(c.job.Task)
	if c.job.Agent.SystemPrompt != "" {
		text = strings.TrimSpace(c.job.Agent.SystemPrompt) + "\n\n" + text
	}
	switch {
	case resumed && c.job.Resume != nil:
		text = "You were interrupted while you waited for people, who have decided meanwhile. Continue with the task below from there. If you were refused something only because of the interruption, ask for it again.\n\n" + text
	case resumed:
		text = "You were interrupted in the middle of the task below. See how far you got, and continue from there.\n\n" + text
	}
	return []acp.ContentBlock{acp.TextBlock(text)}
}

// heard is called for each message of the agent's.
func (c *conversation) heard() {
	if c.session.Load() != nil {
		c.patience.Reset(c.limits.silence)
	}
}

// hurry ends an agent that was waited for long enough, unless it waits for us.
func (c *conversation) hurry(end context.CancelCauseFunc) {
	switch {
	case c.session.Load() == nil:
		end(&Failure{Message: fmt.Sprintf("the agent had not begun a session after %v", c.limits.begin), Retryable: true})
	case c.peer.busy(), c.sink.Held():
		c.patience.Reset(c.limits.silence)
	default:
		end(&Failure{Message: fmt.Sprintf("the agent said nothing for %v", c.limits.silence), Retryable: true})
	}
}

// notice takes what the agent says while it does the task. What it says of
// other sessions, or repeats of one that it continues, is not of this attempt.
func (c *conversation) notice(method string, params json.RawMessage) {
	session := c.session.Load()
	if method != acp.ClientMethodSessionUpdate || session == nil {
		return
	}
	var n acp.SessionNotification
	if json.Unmarshal(params, &n) != nil {
		return // a kind that is newer than this
	}
	if n.SessionId == *session {
		c.report.update(n.Update)
	}
}

// answer does what the agent asks for.
func (c *conversation) answer(ctx context.Context, method string, params json.RawMessage) (any, error) {
	var of struct {
		SessionID acp.SessionId `json:"sessionId"`
	}
	session := c.session.Load()
	if json.Unmarshal(params, &of) != nil || session == nil || of.SessionID != *session {
		return nil, acp.NewInvalidParams("this is not of the session that does the task")
	}
	switch method {
	case acp.ClientMethodSessionRequestPermission:
		return serve(ctx, params, func(ctx context.Context, q acp.RequestPermissionRequest) (acp.RequestPermissionResponse, error) {
			return c.permit(ctx, exactly(q, params))
		})
	case acp.ClientMethodFsReadTextFile:
		return serve(ctx, params, c.files.read)
	case acp.ClientMethodFsWriteTextFile:
		return serve(ctx, params, c.files.write)
	case acp.ClientMethodTerminalCreate:
		return serve(ctx, params, c.terminals.create)
	case acp.ClientMethodTerminalOutput:
		return serve(ctx, params, c.terminals.output)
	case acp.ClientMethodTerminalWaitForExit:
		return serve(ctx, params, c.terminals.wait)
	case acp.ClientMethodTerminalKill:
		return serve(ctx, params, c.terminals.kill)
	case acp.ClientMethodTerminalRelease:
		return serve(ctx, params, c.terminals.release)
	}
	return nil, acp.NewMethodNotFound(shortened(method, maxComplaint))
}

func serve[Q, R any](ctx context.Context, params json.RawMessage, do func(context.Context, Q) (R, error)) (any, error) {
	var q Q
	if err := json.Unmarshal(params, &q); err != nil {
		return nil, acp.NewInvalidParams(shortened(err.Error(), maxComplaint))
	}
	return do(ctx, q)
}
