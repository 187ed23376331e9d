package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/worker/executor"
)

const key = "sk-very-secret"

// endpoint starts a server that answers with h and returns an executor for it.
func endpoint(t *testing.T, h http.HandlerFunc) *executor.OpenAI {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	e, err := executor.NewOpenAI(executor.OpenAIOptions{BaseURL: s.URL + "/v1/", APIKey: key, Model: "small", HTTPClient: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// asked is what an endpoint reads of a question.
type asked struct {
	Model    string
	Messages []struct{ Role, Content string }
	Stream   bool
	Effort   *string                `json:"reasoning_effort"`
	Options  *struct{ Usage *bool } `json:"stream_options"`
}

func read(t *testing.T, r *http.Request) asked {
	t.Helper()
	var a asked
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		t.Error(err)
	}
	return a
}

// streams answers with the pieces as they are, each sent at once.
func streams(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, p := range pieces {
			io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

func text(s string) string {
	content, _ := json.Marshal(s)
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", content)
}

func finish(reason string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":%q}]}\n\n", reason)
}

const done = "data: [DONE]\n\n"

var question = executor.Job{Task: api.Task{Description: "Review it", Input: "the code"}, Agent: api.Agent{ID: "a", SystemPrompt: "You review."}}

func TestAModelIsAskedWhatTheTaskSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		task  api.Task
		agent api.Agent
		want  string // model, effort, messages
	}{
		"everything in its place": {
			api.Task{Description: "Review it", Input: "the code", SkillID: "code-review"}, api.Agent{SystemPrompt: "You review."},
			"small – system: You review. user: # Task\n\nReview it\n\nUse the skill \"code-review\" for it.\n\n# Input\n\nthe code\n",
		},
		"without input and prompt": {api.Task{Description: "Review it", Input: " \n"}, api.Agent{}, "small – user: # Task\n\nReview it\n"},
		"the agent's model":        {api.Task{Description: "x"}, api.Agent{Model: "large", Thinking: "low"}, "large low user: # Task\n\nx\n"},
		"the task's model":         {api.Task{Description: "x", Model: "huge", Thinking: "high"}, api.Agent{Model: "large", Thinking: "low"}, "huge high user: # Task\n\nx\n"},
		"no thinking":              {api.Task{Description: "x", Thinking: "off"}, api.Agent{Thinking: "low"}, "small none user: # Task\n\nx\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer "+key {
					t.Errorf("%s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
				}
				a := read(t, r)
				if !a.Stream || a.Options == nil {
					t.Error("asked without streaming or usage")
				}
				got := a.Model + " –"
				if a.Effort != nil {
					got = a.Model + " " + *a.Effort
				}
				for _, m := range a.Messages {
					got += " " + m.Role + ": " + m.Content
				}
				if got != c.want {
					t.Errorf("asked %q, want %q", got, c.want)
				}
				streams(text("ok"), finish("stop"), done)(w, r)
			})
			if output, err := e.Run(t.Context(), executor.Job{Task: c.task, Agent: c.agent}, newListener()); err != nil || output != "ok" {
				t.Errorf("output %q, %v", output, err)
			}
		})
	}
}

func TestAStreamedAnswerIsReadInEveryFormThatItComesIn(t *testing.T) {
	t.Parallel()
	for name, pieces := range map[string][]string{
		"plain":                     {text("Hel"), text("lo"), finish("stop"), done},
		"comments and other fields": {": OPENROUTER PROCESSING\n\n", "event: message\nid: 1\n" + text("Hello"), ":\n", finish("stop"), done},
		"line ends of Windows":      {strings.ReplaceAll(text("Hel")+text("lo")+finish("stop")+done, "\n", "\r\n")},
		"no space":                  {strings.ReplaceAll(text("Hello"), "data: ", "data:"), finish("stop"), "data:[DONE]\n\n"},
		"cut anywhere":              strings.Split(text("Hello")+finish("stop")+done, ""),
		"no end mark":               {text("Hello"), finish("stop")},
		"no reason to finish":       {text("Hello"), done},
		"no last empty line":        {text("Hello"), finish("stop"), "data: [DONE]"},
		"nothing after the reason":  {text("Hello"), strings.TrimSpace(finish("stop"))},
		"data on two lines":         {"data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"Hello\"}}]}\n\n", done},
		"chunks without words":      {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n", "data: {\"choices\":[]}\n\n", text("Hello"), done},
		"after the end":             {text("Hello"), finish("stop"), done, text("never")},
		"a refusal":                 {"data: {\"choices\":[{\"delta\":{\"refusal\":\"Hello\"}}]}\n\n", finish("stop"), done},
	} {
		l := newListener()
		output, err := endpoint(t, streams(pieces...)).Run(t.Context(), question, l)
		if err != nil || output != "Hello" {
			t.Errorf("%s: output %q, %v", name, output, err)
		}
		if said := strings.ReplaceAll(strings.Join(l.all(), ""), "output: ", ""); said != "Hello" {
			t.Errorf("%s: said %q", name, l.all())
		}
	}
}

func TestWordsArePassedOnAsTheyCome(t *testing.T) {
	t.Parallel()
	l := newListener()
	heard := make(chan struct{})
	go func() {
		<-l.heard
		close(heard)
	}()
	e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		streams(text("first"))(w, r)
		select {
		case <-heard:
		case <-r.Context().Done():
			t.Error("the first word was not passed on while the answer went on")
		}
		streams(text(" second"), finish("stop"), done)(w, r)
	})
	if output, err := e.Run(t.Context(), question, l); err != nil || output != "first second" {
		t.Errorf("output %q, %v", output, err)
	}
}

func TestAnAnswerThatIsNotStreamedIsTakenToo(t *testing.T) {
	t.Parallel()
	e := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, `{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}`)
	})
	l := newListener()
	output, err := e.Run(t.Context(), question, l)
	if err != nil || output != "Hello" || !slices.Contains(l.all(), `note: tokens used {"usage":{"total_tokens":3}}`) {
		t.Errorf("output %q, %v, said %q", output, err, l.all())
	}
}

func TestWhatIsToBeKnownOfAnAnswerIsSaid(t *testing.T) {
	t.Parallel()
	usage := "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n"
	thinking := "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
	for reason, want := range map[string]string{
		"stop":           "",
		"length":         "note: the answer is cut off: it reached the limit of its length",
		"content_filter": "note: the answer is cut off: the endpoint's content filter stopped it",
		"tool_calls":     "note: the model asked for a tool, and has none here",
	} {
		l := newListener()
		output, err := endpoint(t, streams(thinking, thinking, text("x"), finish(reason), usage, done)).Run(t.Context(), question, l)
		said := []string{"note: the model is thinking", "output: x"}
		if want != "" {
			said = append(said, want)
		}
		said = append(said, `note: tokens used {"usage":{"prompt_tokens":7,"completion_tokens":2}}`, `used by "": {"tokens":9}`)
		if err != nil || output != "x" || !slices.Equal(l.all(), said) {
			t.Errorf("%s: output %q, %v, said %q", reason, output, err, l.all())
		}
	}
}

func TestAnEndpointsRefusalFailsTheTaskInItsOwnWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		kind   string
		body   string
		want   string
		retry  bool
	}{
		"wrong key":          {401, "application/json", `{"error":{"message":"Incorrect API key provided: ` + key + `","code":"invalid_api_key"}}`, "the model endpoint does not accept the key (401): Incorrect API key provided: [key]", false},
		"no right":           {403, "application/json", `{"error":"not allowed"}`, "the model endpoint does not accept the key (403): not allowed", false},
		"wrong request":      {400, "application/json", `{"error":{"message":"bad messages"}}`, "the model endpoint refused the request (400): bad messages", false},
		"no such model":      {404, "application/json", `{"object":"error","message":"model small does not exist"}`, "the model endpoint refused the request (404): model small does not exist", false},
		"unprocessable":      {422, "application/json", `{"detail":"no"}`, "the model endpoint refused the request (422): no", false},
		"no credit":          {402, "text/plain", "pay first", "the model endpoint refused the request (402): pay first", false},
		"a page":             {404, "text/html", "<html>" + strings.Repeat("x", 1<<20), "the model endpoint refused the request (404)", false},
		"elsewhere":          {302, "text/html", "", "the model endpoint refused the request (302)", false},
		"too many requests":  {429, "application/json", `{"error":{"message":"slow down"}}`, "the model endpoint has had too many requests (429): slow down", true},
		"overloaded":         {503, "application/json", `{"error":{"message":"overloaded"}}`, "the model endpoint failed (503): overloaded", true},
		"broken":             {500, "application/json", `{`, "the model endpoint failed (500)", true},
		"timed out":          {408, "text/plain; charset=utf-8", "", "the model endpoint failed (408)", true},
		"a long explanation": {400, "text/plain", strings.Repeat("x", 5000), "the model endpoint refused the request (400): " + strings.Repeat("x", 1000) + " …", false},
	} {
		e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("a redirect was followed")
			}
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		_, err := e.Run(t.Context(), question, newListener())
		if f := failure(t, err); f.Message != c.want || f.Retryable != c.retry {
			t.Errorf("%s: %+v, want %q, retryable %v", name, f, c.want, c.retry)
		}
	}
}

func TestAnAnswerThatBreaksOffMayBeTriedAgain(t *testing.T) {
	t.Parallel()
	cut := func(pieces ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			streams(pieces...)(w, r)
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
		retry  bool
	}{
		"the connection":         {cut(text("Hel")), "the model's answer broke off: unexpected EOF", true},
		"within an event":        {cut(text("Hel")[:20]), "the model's answer broke off: unexpected EOF", true},
		"an end without finish":  {streams(text("Hel")), "the model's answer broke off: unexpected EOF", true},
		"nothing at all":         {streams(), "the model's answer broke off: unexpected EOF", true},
		"broken JSON":            {streams(text("Hel"), "data: {\"choices\":[{\n\n", done), "the model endpoint sent something that is not a chat completion", true},
		"an error in the middle": {streams(text("Hel"), "data: {\"error\":{\"message\":\"out of memory near "+key+"\"}}\n\n", done), "the model endpoint failed: out of memory near [key]", true},
		"an error with a number": {streams(text("Hel"), "data: {\"error\":{\"message\":\"flagged\",\"code\":403}}\n\n"), "the model endpoint does not accept the key (403): flagged", false},
		"an error of vLLM":       {streams("data: {\"object\":\"error\",\"message\":\"too long\",\"code\":400}\n\n"), "the model endpoint refused the request (400): too long", false},
		"a line without end":     {streams("data: " + strings.Repeat("x", 2<<20)), "the model endpoint sent an event of more than 1 MiB", false},
		"an event without end":   {streams(strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 2000)), "the model endpoint sent an event of more than 1 MiB", false},
	} {
		_, err := endpoint(t, c.answer).Run(t.Context(), question, newListener())
		if f := failure(t, err); f.Message != c.want || f.Retryable != c.retry {
			t.Errorf("%s: %+v, want %q, retryable %v", name, f, c.want, c.retry)
		}
	}
	if output, err := endpoint(t, cut(text("Hello"), finish("stop"))).Run(t.Context(), question, newListener()); err != nil || output != "Hello" {
		t.Errorf("after the last word: %q, %v", output, err)
	}
}

func TestAnEndpointThatIsNotThereMayBeTriedAgain(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(nil)
	s.Close()
	e, err := executor.NewOpenAI(executor.OpenAIOptions{BaseURL: s.URL, APIKey: key, Model: "small", HTTPClient: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Run(t.Context(), question, newListener())
	if f := failure(t, err); !f.Retryable || !strings.HasPrefix(f.Message, "the model endpoint cannot be reached: ") {
		t.Errorf("%+v", f)
	}
}

func TestParametersThatAnEndpointDoesNotTakeAreLeftOut(t *testing.T) {
	t.Parallel()
	requests := 0
	e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		a := read(t, r)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case a.Effort != nil:
			w.WriteHeader(400)
			io.WriteString(w, `{"error":{"message":"Unrecognized request argument supplied: reasoning_effort"}}`)
		case a.Options != nil:
			w.WriteHeader(422)
			io.WriteString(w, `{"error":{"message":"extra fields","param":"stream_options"}}`)
		default:
			streams(text("ok"), done)(w, r)
		}
	})
	j := question
	j.Task.Thinking = "off"
	l := newListener()
	output, err := e.Run(t.Context(), j, l)
	if err != nil || output != "ok" || requests != 3 || !slices.Contains(l.all(), `note: the model does not take reasoning_effort "none": asking without it`) {
		t.Errorf("output %q, %v after %d requests, said %q", output, err, requests, l.all())
	}

	stubborn := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "reasoning_effort and stream_options", 400)
	})
	if _, err := stubborn.Run(t.Context(), j, newListener()); failure(t, err).Retryable {
		t.Errorf("an endpoint that always complains: %v", err)
	}
}

func TestAnAnswerWithoutEndIsEnded(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		for r.Context().Err() == nil {
			streams(text(strings.Repeat("x", 10_000)))(w, r)
		}
	})
	l := newListener()
	output, err := e.Run(t.Context(), question, l)
	if err != nil || len(output) <= 1<<20 || len(output) > 1<<20+10_000 {
		t.Errorf("output of %d bytes, %v", len(output), err)
	}
	if !slices.Contains(l.all(), "note: the answer is cut off: it reached the limit of its length") {
		t.Error("nothing says that it is cut off")
	}
	<-left
}

func TestCancellationHangsUp(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]string{"before the first word": nil, "in the middle": {text("Hel")}} {
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		e := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(left)
			if before != nil {
				streams(before...)(w, r)
			}
			io.Copy(io.Discard, r.Body) // so that the server watches the connection
			cancel()
			<-r.Context().Done()
		})
		if _, err := e.Run(ctx, question, newListener()); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: ended with %v", name, err)
		}
		<-left
	}
}

// roundTrip is an http.RoundTripper made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// drip is a body that gives one piece after each pause, and then nothing until
// the request is given up.
type drip struct {
	ctx    context.Context
	pause  time.Duration
	pieces []string
}

func (d *drip) Read(p []byte) (int, error) {
	wait := time.Hour
	if len(d.pieces) > 0 {
		wait = d.pause
	}
	select {
	case <-time.After(wait):
		n := copy(p, d.pieces[0])
		d.pieces = d.pieces[1:]
		return n, nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func (d *drip) Close() error { return nil }

func TestASlowAnswerIsWaitedForAndASilentOneIsNot(t *testing.T) {
	t.Parallel()
	words := slices.Concat([]string{text("slow")}, slices.Repeat([]string{": still here\n"}, 20), []string{text("ly"), finish("stop"), done})
	for name, c := range map[string]struct {
		first, pause time.Duration
		pieces       []string
		want         string        // or silence,
		patience     time.Duration // for so long
	}{
		"a word in 50 s":        {0, 50 * time.Second, words, "slowly", 0},
		"four minutes to load":  {4 * time.Minute, time.Second, words, "slowly", 0},
		"silent from the start": {6 * time.Minute, time.Second, words, "", 5 * time.Minute},
		"silent in the middle":  {0, time.Second, words[:2], "", 62 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(c.first):
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
					return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}},
						Body: &drip{r.Context(), c.pause, slices.Clone(c.pieces)}}, nil
				})}
				e, err := executor.NewOpenAI(executor.OpenAIOptions{BaseURL: "http://model/v1", Model: "small", HTTPClient: client})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				output, err := e.Run(t.Context(), question, newListener())
				if c.want != "" {
					if err != nil || output != c.want {
						t.Errorf("output %q, %v", output, err)
					}
					return
				}
				if f := failure(t, err); !f.Retryable || f.Message != "the model endpoint went silent" || time.Since(began) != c.patience {
					t.Errorf("%+v after %v", f, time.Since(began))
				}
			})
		})
	}
}

func TestAnAddressThatIsNoneIsRefusedWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "model", "ftp://user:secret@host", "http://", "http://[secret"} {
		if _, err := executor.NewOpenAI(executor.OpenAIOptions{BaseURL: address}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
