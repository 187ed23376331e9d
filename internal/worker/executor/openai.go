package executor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coderclaw/runtime/api"
)

const (
	// firstWord is how long an endpoint may take to begin: it may be loading a
	// model, or thinking. idle is how long it may then be silent.
	firstWord = 5 * time.Minute
	idle      = time.Minute
	// maxAnswer bounds an answer that is not streamed, and maxErrorAnswer one
	// that says what is wrong.
	maxAnswer      = 4 << 20
	maxErrorAnswer = 64 << 10
)

// OpenAIOptions describe an OpenAI-compatible endpoint.
type OpenAIOptions struct {
	BaseURL string // up to and without /chat/completions, e.g. http://127.0.0.1:11434/v1
	APIKey  string // sent as a bearer token; empty: none
	Model   string // for tasks and agents that name none
	// HTTPClient makes the requests. Default: one of its own. Redirects are not
	// followed, for they would take the key elsewhere.
	HTTPClient *http.Client
}

// OpenAI asks a model behind an OpenAI-compatible chat-completions endpoint and
// passes its answer on as it comes.
type OpenAI struct {
	endpoint string
	key      string
	model    string
	client   http.Client
}

// NewOpenAI returns an executor for the endpoint. It does not connect.
func NewOpenAI(o OpenAIOptions) (*OpenAI, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("address of the model endpoint: want http://host/path or https://host/path")
	}
	e := &OpenAI{endpoint: u.JoinPath("chat/completions").String(), key: o.APIKey, model: o.Model}
	if o.HTTPClient != nil {
		e.client = *o.HTTPClient
	} else {
		e.client.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return e, nil
}

// runnable says what is missing to run the agent.
func (e *OpenAI) runnable(agent api.Agent) error {
	if cmp.Or(agent.Model, e.model) == "" {
		return fmt.Errorf("agent %s needs the name of a model: set CODERCLAW_LLM_MODEL, or model in agents.yaml", agent.ID)
	}
	return nil
}

// Run asks the model. Whatever may pass (a rate limit, an overloaded or
// unreachable endpoint, an answer that breaks off) fails retryably.
func (e *OpenAI) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(firstWord, func() { cancel(errSilent) })
	defer silence.Stop()

	res, err := e.ask(ctx, e.question(job), sink)
	if err != nil {
		return "", e.failure(ctx, err)
	}
	defer res.Body.Close()
	a := &answer{sink: sink}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "application/json" {
		err = a.whole(res.Body)
	} else {
		err = a.stream(res.Body, func() { silence.Reset(idle) })
	}
	if err != nil {
		return "", e.failure(ctx, err)
	}
	a.remark()
	return a.text.String(), nil
}

var errSilent = errors.New("the model endpoint went silent")

// failure turns an error of the conversation into one for the task.
func (e *OpenAI) failure(ctx context.Context, err error) error {
	var f *Failure
	var network *url.Error
	switch {
	case errors.As(err, &f):
		return &Failure{Message: e.withoutKey(f.Message), Retryable: f.Retryable}
	case errors.Is(context.Cause(ctx), errSilent):
		return &Failure{Message: errSilent.Error(), Retryable: true}
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &network):
		return &Failure{Message: e.withoutKey("the model endpoint cannot be reached: " + network.Err.Error()), Retryable: true}
	}
	return &Failure{Message: e.withoutKey("the model's answer broke off: " + err.Error()), Retryable: true}
}

func (e *OpenAI) withoutKey(s string) string {
	if e.key == "" {
		return s
	}
	return strings.ReplaceAll(s, e.key, "[key]")
}

// question is the body of a request.
type question struct {
	Model           string         `json:"model"`
	Messages        []message      `json:"messages"`
	Stream          bool           `json:"stream"`
	StreamOptions   *streamOptions `json:"stream_options,omitempty"`
	ReasoningEffort string         `json:"reasoning_effort,omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

func (e *OpenAI) question(job Job) question {
	q := question{
		Model:         cmp.Or(job.Task.Model, job.Agent.Model, e.model),
		Stream:        true,
		StreamOptions: &streamOptions{IncludeUsage: true},
	}
	switch thinking := cmp.Or(job.Task.Thinking, job.Agent.Thinking); thinking {
	case "off":
		// Leaving it out would mean the model's default, which is to think for
		// those that can.
		q.ReasoningEffort = "none"
	default:
		q.ReasoningEffort = string(thinking)
	}
	if job.Agent.SystemPrompt != "" {
		q.Messages = append(q.Messages, message{"system", job.Agent.SystemPrompt})
	}
	q.Messages = append(q.Messages, message{"user", prompt(job.Task)})
	return q
}

// prompt puts a task into words for a model.
func prompt(t api.Task) string {
	var b strings.Builder
	b.WriteString("# Task\n\n" + t.Description + "\n")
	if t.SkillID != "" {
		fmt.Fprintf(&b, "\nUse the skill %q for it.\n", t.SkillID)
	}
	if input := strings.TrimSpace(t.Input); input != "" && input != strings.TrimSpace(t.Description) {
		b.WriteString("\n# Input\n\n" + t.Input + "\n")
	}
	return b.String()
}

// ask sends the question and returns a successful response. Parameters that not
// every endpoint takes are left out when it says so.
func (e *OpenAI) ask(ctx context.Context, q question, sink Sink) (*http.Response, error) {
	for {
		res, err := e.send(ctx, q)
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusOK {
			return res, nil
		}
		said, err := refusal(res)
		if err != nil {
			return nil, err
		}
		bad := res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusUnprocessableEntity
		switch {
		case bad && q.ReasoningEffort != "" && said.names("reasoning_effort"):
			sink.Note(fmt.Sprintf("the model does not take reasoning_effort %q: asking without it", q.ReasoningEffort), nil)
			q.ReasoningEffort = ""
		case bad && q.StreamOptions != nil && said.names("stream_options"):
			q.StreamOptions = nil
		default:
			return nil, said.failure(res.StatusCode)
		}
	}
}

func (e *OpenAI) send(ctx context.Context, q question) (*http.Response, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream, application/json")
	req.Header.Set("User-Agent", "coderclaw")
	if e.key != "" {
		req.Header.Set("Authorization", "Bearer "+e.key)
	}
	return e.client.Do(req)
}

// refusal reads what an endpoint says is wrong, and closes the response.
func refusal(res *http.Response) (complaint, error) {
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxErrorAnswer))
	if err != nil && len(body) == 0 {
		return complaint{}, err
	}
	if c, ok := complaintIn(body); ok {
		return c, nil
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "text/plain" {
		return complaint{}, nil
	}
	return complaint{message: strings.TrimSpace(string(body))}, nil
}
