package executor

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
)

// maxEvent bounds one line of a streamed answer, in bytes.
const maxEvent = 1 << 20

// answer gathers what a model says.
type answer struct {
	sink     Sink
	text     strings.Builder
	finish   string // why the model stopped; "": it did not yet
	reasoned bool
	usage    json.RawMessage
}

// chunk is a piece of a streamed answer, or a whole one.
type chunk struct {
	Choices []struct {
		Delta        words  `json:"delta"`
		Message      words  `json:"message"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage json.RawMessage `json:"usage"`
}

type words struct {
	Content   string `json:"content"`
	Refusal   string `json:"refusal"`
	Reasoning string `json:"reasoning"`
	// The same by another name.
	ReasoningContent string `json:"reasoning_content"`
}

var errTooLong = &Failure{Message: "the model endpoint sent an event of more than 1 MiB"}

// errEnough ends an answer that is as long as an output can be.
var errEnough = errors.New("the answer is long enough")

// stream reads a streamed answer. heard is called whenever something came.
func (a *answer) stream(body io.Reader, heard func()) error {
	for data, err := range events(body, heard) {
		switch {
		case err != nil && a.finish != "":
			return nil // what is missing is no part of the answer
		case err != nil:
			return err
		case string(data) == "[DONE]":
			return nil
		}
		if err := a.take(data); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if a.finish == "" {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// events yields the data of server-sent events. It ends after an error.
func events(body io.Reader, heard func()) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		lines := bufio.NewScanner(body)
		lines.Buffer(make([]byte, 0, 8<<10), maxEvent)
		var data []byte
		for lines.Scan() {
			heard()
			if line := lines.Bytes(); len(line) > 0 {
				if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
					data = append(append(data, value...), '\n')
				}
				if len(data) > maxEvent {
					yield(nil, errTooLong)
					return
				}
				continue
			}
			if event := bytes.TrimSpace(data); len(event) > 0 && !yield(event, nil) {
				return
			}
			data = data[:0]
		}
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(nil, errTooLong)
		} else if err != nil {
			yield(nil, err)
		} else if event := bytes.TrimSpace(data); len(event) > 0 {
			yield(event, nil) // not every endpoint writes the last empty line
		}
	}
}

// whole reads an answer that an endpoint gave at once, though asked to stream.
func (a *answer) whole(body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return err
	}
	if err := a.take(data); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// take adds one piece.
func (a *answer) take(data []byte) error {
	if c, ok := complaintIn(data); ok {
		return c.failure(c.status)
	}
	var c chunk
	if err := json.Unmarshal(data, &c); err != nil {
		return &Failure{Message: "the model endpoint sent something that is not a chat completion", Retryable: true}
	}
	if len(c.Usage) > 0 && c.Usage[0] == '{' {
		a.usage = c.Usage
	}
	if len(c.Choices) == 0 {
		return nil
	}
	choice := c.Choices[0]
	if choice.FinishReason != "" {
		a.finish = choice.FinishReason
	}
	for _, w := range []words{choice.Delta, choice.Message} {
		if !a.reasoned && w.Reasoning+w.ReasoningContent != "" {
			a.reasoned = true
			a.sink.Note("the model is thinking", nil)
		}
		if text := w.Content + w.Refusal; text != "" {
			a.text.WriteString(text)
			a.sink.Output(text)
		}
	}
	if a.text.Len() > maxOutput {
		a.finish = "length"
		return errEnough
	}
	return nil
}

// remark tells what else is to be known of the answer.
func (a *answer) remark() {
	switch a.finish {
	case "length":
		a.sink.Note("the answer is cut off: it reached the limit of its length", nil)
	case "content_filter":
		a.sink.Note("the answer is cut off: the endpoint's content filter stopped it", nil)
	case "tool_calls", "function_call":
		a.sink.Note("the model asked for a tool, and has none here", nil)
	}
	if a.usage != nil {
		a.sink.Note("tokens used", struct {
			Usage json.RawMessage `json:"usage"`
		}{a.usage})
		var tokens struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
			Total      int64 `json:"total_tokens"`
		}
		if json.Unmarshal(a.usage, &tokens) == nil {
			if used, ok := (spent{Tokens: cmp.Or(tokens.Total, tokens.Prompt+tokens.Completion)}).usage(); ok {
				a.sink.Used("", used)
			}
		}
	}
}

// complaint is what an endpoint says is wrong.
type complaint struct {
	message string
	param   string
	status  int // 0: not said
}

// complaintIn finds a complaint in the forms that endpoints use: {"error":
// {"message", "code", "param"}}, {"error": "…"}, {"object": "error",
// "message": "…"} and {"detail": "…"}.
func complaintIn(data []byte) (complaint, bool) {
	var whole struct {
		Error   json.RawMessage `json:"error"`
		Object  string          `json:"object"`
		Message string          `json:"message"`
		Detail  any             `json:"detail"`
		Code    any             `json:"code"`
	}
	if json.Unmarshal(data, &whole) != nil {
		return complaint{}, false
	}
	if len(whole.Error) > 0 && string(whole.Error) != "null" {
		var e struct {
			Message string `json:"message"`
			Param   any    `json:"param"`
			Code    any    `json:"code"`
		}
		var text string
		if json.Unmarshal(whole.Error, &e) != nil && json.Unmarshal(whole.Error, &text) == nil {
			e.Message = text
		}
		param, _ := e.Param.(string)
		return complaint{message: e.Message, param: param, status: statusIn(e.Code)}, true
	}
	if whole.Object == "error" {
		return complaint{message: whole.Message, status: statusIn(whole.Code)}, true
	}
	if detail, ok := whole.Detail.(string); ok {
		return complaint{message: detail}, true
	}
	return complaint{}, false
}

func statusIn(code any) int {
	if n, ok := code.(float64); ok && n >= 400 && n < 600 {
		return int(n)
	}
	return 0
}

// names reports whether the complaint is about the parameter.
func (c complaint) names(parameter string) bool {
	return c.param == parameter || strings.Contains(c.message, parameter)
}

// failure is the complaint as the failure of an attempt. Status 0, in the
// middle of an answer, may pass.
func (c complaint) failure(status int) *Failure {
	text := c.message
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "") + " …"
	}
	what := "the model endpoint failed"
	retryable := true
	switch {
	case status == http.StatusTooManyRequests:
		what = "the model endpoint has had too many requests"
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusTooEarly, status >= 500:
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		what, retryable = "the model endpoint does not accept the key", false
	case status >= 300:
		what, retryable = "the model endpoint refused the request", false
	}
	if status != 0 {
		what = fmt.Sprintf("%s (%d)", what, status)
	}
	if text != "" {
		what += ": " + text
	}
	return &Failure{Message: what, Retryable: retryable}
}
