package executor

import (
	"bufio"
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
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/outbound"
)

const (
	// httpSilence is how long an agent may say nothing.
	httpSilence = 30 * time.Minute
	// maxHTTPBody and maxHTTPLine bound what an agent answers, in bytes.
	maxHTTPBody = 256 << 20
	maxHTTPLine = 2 << 20
	maxSecret   = 16 << 10
)

// HTTP runs agents that are services: it posts the task to the agent's URL and
// takes the answer, at once or as a stream of events. An agent that answers 202
// (RFC 9110, section 15.3.3) reports to the server by itself.
//
// Agents that the worker's own agents.yaml defines may be anywhere and get a
// secret; all others are reached at public addresses only, on ports 80 and 443.
// Redirects and proxies are never followed.
type HTTP struct {
	own             []string // ids that the worker's own agents.yaml defines
	public, private *http.Client
	silence         time.Duration
}

// NewHTTP returns an executor of services. Own are the ids of the agents that
// the worker's own agents.yaml defines.
func NewHTTP(own []string) *HTTP {
	return &HTTP{
		own:     own,
		public:  outbound.Client(outbound.Public),
		private: outbound.Client(outbound.Any),
		silence: httpSilence,
	}
}

// trusted reports whether the operator of this machine has defined the agent.
func (e *HTTP) trusted(agent api.Agent) bool {
	return agent.Source == api.SourceFile && slices.Contains(e.own, agent.ID)
}

// runnable says what is missing to run the agent.
func (e *HTTP) runnable(agent api.Agent) error {
	if agent.HTTP == nil {
		return fmt.Errorf("agent %s has executor http and no URL", agent.ID)
	}
	if u, err := url.Parse(agent.HTTP.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return fmt.Errorf("agent %s: http.url is no http or https URL without a user", agent.ID)
	}
	if agent.HTTP.SecretFile != "" {
		if !e.trusted(agent) {
			return fmt.Errorf("agent %s: http.secretFile is read for agents of the worker's own agents.yaml only", agent.ID)
		}
		if _, err := secretIn(agent.HTTP.SecretFile); err != nil {
			return fmt.Errorf("agent %s: http.secretFile: %w", agent.ID, err)
		}
	}
	return nil
}

func secretIn(name string) (string, error) {
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxSecret) {
		err = fmt.Errorf("%s is no file of at most %d bytes", name, maxSecret)
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no secret of visible ASCII characters", name)
	}
	return secret, nil
}

// httpTask is the body of the request.
type httpTask struct {
	TaskID       string          `json:"taskId"`
	Attempt      int             `json:"attempt"`
	AgentID      string          `json:"agentId"`
	Description  string          `json:"description"`
	Input        string          `json:"input,omitempty"`
	SkillID      string          `json:"skillId,omitempty"`
	Model        string          `json:"model,omitempty"`
	Thinking     api.Thinking    `json:"thinking,omitempty"`
	SystemPrompt string          `json:"systemPrompt,omitempty"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	ReportURL    string          `json:"reportUrl,omitempty"`
	Token        string          `json:"token,omitempty"`
}

// httpEvent is an answer, or a line of one.
type httpEvent struct {
	Type     string   `json:"type"`
	Message  string   `json:"message"`
	Progress *float64 `json:"progress"`
	Text     string   `json:"text"`
	Usage    *spent   `json:"usage"` // in all

	Output    *string `json:"output"`
	Error     *string `json:"error"`
	Retryable bool    `json:"retryable"`
}

// errHTTPSilent ends an agent that says nothing.
var errHTTPSilent = errors.New("the agent went silent")

// Run posts the task and returns what the agent answers.
func (e *HTTP) Run(ctx context.Context, job Job, sink Sink) (string, error) {
	if err := e.runnable(job.Agent); err != nil {
		return "", &Failure{Message: err.Error()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var patience *time.Timer
	patience = time.AfterFunc(e.silence, func() {
		if sink.Held() { // what it says waits
			patience.Reset(e.silence)
			return
		}
		cancel(errHTTPSilent)
	})
	defer patience.Stop()

	output, secrets, err := e.exchange(ctx, job, sink, func() { patience.Reset(e.silence) })
	var f *Failure
	var network *url.Error
	switch {
	case err == nil:
		return output, nil
	case errors.Is(context.Cause(ctx), errHTTPSilent):
		f = &Failure{Message: fmt.Sprintf("the agent said nothing for %v", e.silence), Retryable: true}
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, errReported):
		return "", err
	case errors.As(err, &f):
	case errors.Is(err, outbound.ErrRefused):
		f = &Failure{Message: "the agent is not at a public address on port 80 or 443; only the worker's own agents.yaml may name another"}
	case errors.As(err, &network):
		f = &Failure{Message: "the agent cannot be reached: " + network.Err.Error(), Retryable: true}
	default:
		f = &Failure{Message: "the agent's answer broke off: " + err.Error(), Retryable: true}
	}
	for _, secret := range secrets {
		f = &Failure{Message: strings.ReplaceAll(f.Message, secret, "[secret]"), Retryable: f.Retryable}
	}
	return "", f
}

// exchange posts the task and reads the answer, or waits until the agent has
// reported the end. It returns the secrets that were sent, too, which nobody may
// see.
func (e *HTTP) exchange(ctx context.Context, job Job, sink Sink, heard func()) (output string, secrets []string, err error) {
	t, agent := job.Task, job.Agent
	wire := httpTask{
		TaskID: t.ID, Attempt: t.Attempt, AgentID: agent.ID, Description: t.Description, Input: t.Input, SkillID: t.SkillID,
		Model: cmp.Or(t.Model, agent.Model), Thinking: cmp.Or(t.Thinking, agent.Thinking), SystemPrompt: agent.SystemPrompt, Metadata: t.Metadata,
	}
	if h := job.Handover; h != nil {
		wire.ReportURL, wire.Token = h.URL, h.Token
		secrets = append(secrets, h.Token)
	}
	body, err := json.Marshal(wire)
	if err != nil {
		return "", nil, fmt.Errorf("encode task: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, agent.HTTP.URL, bytes.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/x-ndjson, application/json, text/plain")
	req.Header.Set("User-Agent", "coderclaw")
	client := e.public
	if e.trusted(agent) {
		client = e.private
		if agent.HTTP.SecretFile != "" {
			secret, err := secretIn(agent.HTTP.SecretFile)
			if err != nil {
				return "", nil, err
			}
			req.Header.Set("Authorization", "Bearer "+secret)
			secrets = append(secrets, secret)
		}
	}
	res, err := client.Do(req)
	if err != nil {
		return "", secrets, err
	}
	defer res.Body.Close()
	heard()
	switch {
	case res.StatusCode == http.StatusAccepted && job.Handover != nil:
		return "", secrets, accepted(ctx, client, res, job.Handover, sink, heard)
	case res.StatusCode != http.StatusOK:
		return "", secrets, refusedBy(res)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch kind {
	case "application/x-ndjson", "application/jsonl":
		output, err = follow(res.Body, sink, heard)
	default:
		output, err = whole(res.Body, kind)
	}
	return output, secrets, err
}

// refusedBy is the failure that an answer other than 200 means.
func refusedBy(res *http.Response) error {
	f := &Failure{Message: fmt.Sprintf("the agent answered %s", res.Status)}
	switch code := res.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		f.Retryable = true
	case code >= 300 && code < 400:
		f.Message += ": redirects are not followed"
	case code == http.StatusAccepted:
		f.Message += ": it cannot report by itself, for the server has no address at which it could; CODERCLAW_PUBLIC_URL names one"
	case code < 300:
		f.Message += ": it has to answer 200 with its output or with a stream of events"
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorTail))
	if said := strings.TrimSpace(strings.ToValidUTF8(string(text), "")); said != "" {
		f.Message += ": " + said
	}
	return f
}

// whole reads an answer that is given at once.
func whole(body io.Reader, kind string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(body, maxHTTPLine+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxHTTPLine:
		return "", &Failure{Message: fmt.Sprintf("the agent's answer has more than %d MiB", maxHTTPLine>>20)}
	case kind != "application/json":
		return string(text), nil
	}
	var e httpEvent
	if json.Unmarshal(text, &e) != nil || e.Output == nil && e.Error == nil {
		return "", &Failure{Message: `the agent's answer is no JSON object with "output" or "error"`}
	}
	return e.end()
}

// end is what an event says of the end of the task.
func (e httpEvent) end() (string, error) {
	if e.Error != nil {
		return "", &Failure{Message: shortened(*e.Error, maxOutput), Retryable: e.Retryable}
	}
	return *e.Output, nil
}

// follow reads events, a line each, to the one that ends the task.
func follow(body io.Reader, sink Sink, heard func()) (string, error) {
	lines := bufio.NewScanner(io.LimitReader(body, maxHTTPBody))
	lines.Buffer(make([]byte, 0, 8<<10), maxHTTPLine)
	for lines.Scan() {
		heard()
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue // keeps the connection alive
		}
		var e httpEvent
		if json.Unmarshal(line, &e) != nil {
			return "", &Failure{Message: "the agent sent a line that is no JSON object: " + shortened(string(line), maxComplaint)}
		}
		if e.Output != nil || e.Error != nil {
			return e.end()
		}
		switch e.Type {
		case "progress":
			if e.Progress != nil {
				sink.Progress(int(min(max(*e.Progress, 0), 100)), e.Message)
			}
		case "output":
			sink.Output(e.Text)
		case "log":
			sink.Log("", e.Message)
		case "usage":
			if e.Usage == nil {
				continue
			}
			if used, ok := e.Usage.usage(); ok {
				sink.Used("", used)
			}
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return "", &Failure{Message: fmt.Sprintf("the agent sent a line of more than %d MiB", maxHTTPLine>>20)}
	case err != nil:
		return "", err
	}
	return "", io.ErrUnexpectedEOF
}
