package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/coder/acp-go-sdk"
)

// errGone: the other end has closed the connection.
var errGone = errors.New("the connection is closed")

// peer is the other end of a JSON-RPC 2.0 connection on which each message is
// a line. What the other end sends is acted on in its order and before more is
// read: whoever is slow to take it slows the sender down. Only requests, which
// may wait for people and programs, are answered beside that.
//
// The connection of the ACP kit will not do: it reads ahead into a queue that
// ends the connection when it is full, starts as many goroutines as there are
// requests, and overlooks lines that are no messages.
type peer struct {
	ctx    context.Context // of the requests that are answered
	limits acpLimits
	out    io.Writer
	answer func(ctx context.Context, method string, params json.RawMessage) (any, error)
	notice func(method string, params json.RawMessage)
	heard  func()         // called for each message
	broken func(*Failure) // why nothing more is taken from the other end

	// Of the goroutine that reads.
	line     []byte
	deaf     bool
	messages int
	bytes    int64

	answering sync.WaitGroup
	writing   sync.Mutex

	mu    sync.Mutex
	calls map[int64]chan reply
	last  int64 // number of a call
	open  int   // requests that are being answered
	gone  bool
}

// rpcMessage is a request if it has an id and a method, a notification if it
// has only a method, and otherwise a response.
type rpcMessage struct {
	Version string            `json:"jsonrpc"`
	ID      json.RawMessage   `json:"id,omitempty"`
	Method  string            `json:"method,omitempty"`
	Params  json.RawMessage   `json:"params,omitempty"`
	Result  json.RawMessage   `json:"result,omitempty"`
	Error   *acp.RequestError `json:"error,omitempty"`
}

type reply struct {
	result json.RawMessage
	err    error
}

// call asks for method and decodes what is answered into result, unless it is
// nil. The error is errGone, ctx's, or the *acp.RequestError that came back.
func (p *peer) call(ctx context.Context, method string, params, result any) error {
	encoded, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	answered := make(chan reply, 1)
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return errGone
	}
	p.last++
	n := p.last
	p.calls[n] = answered
	p.mu.Unlock()
	p.send(rpcMessage{ID: fmt.Append(nil, n), Method: method, Params: encoded})

	var r reply
	select {
	case r = <-answered:
	case <-ctx.Done():
		select {
		case r = <-answered: // its last words, perhaps
		default:
			return context.Cause(ctx)
		}
	}
	if r.err != nil || result == nil {
		return r.err
	}
	if err := json.Unmarshal(r.result, result); err != nil {
		return &Failure{Message: fmt.Sprintf("the agent's answer to %s cannot be read: %s", method, shortened(err.Error(), maxComplaint))}
	}
	return nil
}

// notify tells the other end, which does not answer.
func (p *peer) notify(method string, params any) {
	if encoded, err := json.Marshal(params); err == nil {
		p.send(rpcMessage{Method: method, Params: encoded})
	}
}

// send writes a message. That it does not arrive is noticed when the other end,
// which has gone then, has gone.
func (p *peer) send(m rpcMessage) {
	m.Version = "2.0"
	line, err := json.Marshal(m)
	if err != nil {
		return
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	_, _ = p.out.Write(append(line, '\n'))
}

func (p *peer) write(b []byte) {
	for len(b) > 0 && !p.deaf {
		part, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		if len(p.line)+len(part) > p.limits.message {
			p.fail(&Failure{Message: fmt.Sprintf("the agent sent a message of more than %d bytes", p.limits.message)})
			return
		}
		p.line = append(p.line, part...)
		if whole {
			p.take(bytes.TrimSpace(p.line))
			p.line = p.line[:0]
			if cap(p.line) > maxOutput {
				p.line = nil
			}
		}
	}
}

func (p *peer) end() {
	if line := bytes.TrimSpace(p.line); len(line) > 0 && !p.deaf {
		p.take(line)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for n, answered := range p.calls {
		delete(p.calls, n)
		answered <- reply{err: errGone}
	}
}

func (p *peer) fail(f *Failure) {
	p.deaf, p.line = true, nil
	p.broken(f)
}

// take acts on one message.
func (p *peer) take(line []byte) {
	if len(line) == 0 {
		return
	}
	p.messages++
	p.bytes += int64(len(line))
	if p.messages > p.limits.messages || p.bytes > p.limits.bytes {
		p.fail(&Failure{Message: fmt.Sprintf("the agent sent more than %d messages or %d MiB", p.limits.messages, p.limits.bytes>>20)})
		return
	}
	var m rpcMessage
	if err := json.Unmarshal(line, &m); err != nil || m.Method == "" && m.ID == nil {
		p.fail(&Failure{Message: fmt.Sprintf("the agent wrote to its standard output what is no message of the Agent Client Protocol: %s", shortened(string(line), maxComplaint))})
		return
	}
	p.heard()
	switch {
	case m.Method == "":
		p.answered(m)
	case m.ID == nil:
		p.notice(m.Method, m.Params)
	default:
		p.asked(m)
	}
}

func (p *peer) answered(m rpcMessage) {
	var n int64
	if json.Unmarshal(m.ID, &n) != nil {
		return // not one of ours
	}
	r := reply{result: m.Result}
	if m.Error != nil {
		r.err = m.Error
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if answered, ok := p.calls[n]; ok {
		delete(p.calls, n)
		answered <- r
	}
}

func (p *peer) asked(m rpcMessage) {
	p.mu.Lock()
	p.open++
	tooMany := p.open > p.limits.requests
	p.mu.Unlock()
	if tooMany {
		p.fail(&Failure{Message: fmt.Sprintf("the agent asked for more than %d things at once", p.limits.requests)})
		return
	}
	p.answering.Go(func() {
		res := rpcMessage{ID: m.ID}
		result, err := p.answer(p.ctx, m.Method, m.Params)
		if err == nil {
			res.Result, err = json.Marshal(result)
		}
		if err != nil {
			res.Result, res.Error = nil, requestError(err)
		}
		p.mu.Lock()
		p.open--
		p.mu.Unlock()
		p.send(res)
	})
}

// busy reports whether the other end waits for us.
func (p *peer) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open > 0
}

// requestError is an error as the other end is told it.
func requestError(err error) *acp.RequestError {
	if e, ok := errors.AsType[*acp.RequestError](err); ok {
		return e
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return &acp.RequestError{Code: acp.NewInvalidParams(nil).Code, Message: f.Message}
	}
	return &acp.RequestError{Code: acp.NewInternalError(nil).Code, Message: err.Error()}
}

// shortened returns s in little more than limit bytes, with a mark where it was
// cut.
func shortened(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + " …"
}
