package clawctl

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/coderclaw/runtime/api"
)

// asker is a view of a task that also puts what the agent asks to the person at
// the terminal, one question after the other.
type asker struct {
	view
	cli    *cli
	client *api.Client
	task   string
	typed  io.Reader
	heard  chan struct{}   // holds one element if there may be other questions
	passed map[string]bool // those that the person cannot answer
	stop   context.CancelFunc
	done   chan struct{}

	// What is typed while nothing is asked answers nothing: it was not meant for
	// a question that had not been seen.
	asking atomic.Bool
	lines  chan string // what is typed while something is asked; closed at the end
}

// newAsker asks until it is closed.
func newAsker(ctx context.Context, c *cli, client *api.Client, task string, v view, typed io.Reader) *asker {
	ctx, stop := context.WithCancel(ctx)
	a := &asker{
		view: v, cli: c, client: client, task: task, typed: typed, stop: stop,
		heard: make(chan struct{}, 1), passed: map[string]bool{}, done: make(chan struct{}),
		lines: make(chan string, 16),
	}
	go a.read()
	go func() {
		defer close(a.done)
		a.run(ctx)
	}()
	return a
}

func (a *asker) event(ev api.Event) {
	a.view.event(ev)
	if ev.Type == api.EventQuestion || ev.Status == api.TaskWaiting {
		select {
		case a.heard <- struct{}{}:
		default:
		}
	}
}

func (a *asker) close() {
	a.stop()
	<-a.done
	a.view.close()
}

// run asks what is open whenever that may have changed.
func (a *asker) run(ctx context.Context) {
	for {
		select {
		case <-a.heard:
		case <-ctx.Done():
			return
		}
		for {
			open, err := a.open(ctx)
			if err != nil || len(open) == 0 {
				break // the next event tries again
			}
			a.view.hold(true)
			more := a.put(ctx, open[len(open)-1])
			a.view.hold(false)
			if !more {
				return
			}
		}
	}
}

// open returns the open questions that are not passed, newest first.
func (a *asker) open(ctx context.Context) ([]api.Question, error) {
	all, _, err := take(a.client.Questions(ctx, api.QuestionFilter{TaskID: a.task}), 0)
	return slices.DeleteFunc(all, func(q api.Question) bool { return a.passed[q.ID] }), err
}

// put asks until the question is open no more. It returns false when nothing is
// typed any more, or ctx has ended.
func (a *asker) put(ctx context.Context, q api.Question) bool {
	for len(a.lines) > 0 {
		<-a.lines
	}
	a.asking.Store(true)
	defer a.asking.Store(false)
	a.show(q)
	d := dialog{q: q}
	a.prompt(&d)
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				return false
			}
			if d.hear(strings.TrimSpace(line)) {
				if a.reply(ctx, q, d.answer) {
					return true
				}
				d = dialog{q: q}
			}
			a.prompt(&d)
		case <-a.heard:
			open, err := a.open(ctx)
			if err == nil && !slices.ContainsFunc(open, func(o api.Question) bool { return o.ID == q.ID }) {
				a.cli.err.printf("\nThat is no longer asked.\n")
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// read passes on what is typed. It ends with the process: a read from a terminal
// cannot be interrupted.
func (a *asker) read() {
	defer close(a.lines)
	in := bufio.NewReader(a.typed)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if a.asking.Load() {
			select {
			case a.lines <- line:
			default: // nobody types so fast
			}
		}
	}
}

func (a *asker) show(q api.Question) {
	s := a.cli.err
	title := "The agent asks"
	if q.Kind == api.QuestionApproval {
		title = "The agent asks for leave"
	}
	if q.Risk != "" {
		title += ", risk " + string(q.Risk)
	}
	s.printf("%s\n%s\n", s.style(bold, cleanLine(title)+":"), strings.TrimRight(cleanText(q.Text), "\n"))
	if q.Tool != nil {
		s.printf("%s %s\n", cleanLine(q.Tool.Name), cleanLine(q.Tool.Title))
		if q.Tool.Input != nil {
			s.printf("%s\n", cleanText(string(q.Tool.Input)))
		}
	}
	for i, c := range q.Choices {
		s.printf("  %d  %s  %s\n", i+1, cleanLine(c.ID), cleanLine(c.Label))
	}
	if q.Schema != nil {
		s.printf("As a JSON object like this: %s\n", cleanText(string(q.Schema)))
	}
}

func (a *asker) prompt(d *dialog) {
	a.cli.err.printf("%s", a.cli.err.style(bold, d.prompt()))
}

// reply sends the answer. It returns false if another one is to be typed.
func (a *asker) reply(ctx context.Context, q api.Question, answer api.Answer) (settled bool) {
	_, err := a.client.AnswerQuestion(ctx, q.ID, answer)
	if err == nil {
		return true
	}
	a.cli.report(err)
	var refused *api.Error
	if !errors.As(err, &refused) {
		return false
	}
	a.passed[q.ID] = refused.Status == http.StatusForbidden
	return refused.Status == http.StatusForbidden || refused.Status == http.StatusConflict || refused.Status == http.StatusNotFound
}
