package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coderclaw/runtime/api"
)

var all = api.WatchOptions{After: new(int64)}

// torn serves the history to each reader and tears its first connection after
// so many bytes as the task's id in the path says.
func torn(events []api.Event, abort bool) http.Handler {
	var seen sync.Map
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		if after >= len(events) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		text := "retry: 1\n\n" + frames(events[after:]...)
		name := strings.Split(r.URL.Path, "/")[3]
		if _, again := seen.LoadOrStore(name, true); again {
			send(w, text)
			return
		}
		offset, _ := strconv.Atoi(name)
		send(w, text[:offset])
		if abort {
			panic(http.ErrAbortHandler)
		}
	})
}

func TestWatchTaskYieldsEachEventOnceWhereverTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	events := history(3)
	length := len("retry: 1\n\n" + frames(events...))
	for name, abort := range map[string]bool{"torn": true, "ended": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := onSocket(t, torn(events, abort))
			var readers sync.WaitGroup
			slots := make(chan struct{}, 64)
			for offset := range length + 1 {
				slots <- struct{}{}
				readers.Go(func() {
					defer func() { <-slots }()
					var got []int64
					for ev, err := range c.WatchTask(t.Context(), strconv.Itoa(offset), all) {
						if err != nil {
							t.Errorf("after %d bytes: %v", offset, err)
							return
						}
						got = append(got, ev.Seq)
					}
					if !slices.Equal(got, []int64{1, 2, 3}) {
						t.Errorf("after %d bytes: got %v", offset, got)
					}
				})
			}
			readers.Wait()
		})
	}
}

func TestWatchTaskGoesOnWhenEveryConnectionBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := history(40)
		c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			after, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
			text := frames(events[after:]...)
			send(w, text[:min(len(text), 400)]) // one event and a piece of the next
			panic(http.ErrAbortHandler)
		}))
		got, err := seqs(t.Context(), c, all)
		if err != nil || len(got) != 40 || !slices.IsSorted(got) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func TestWatchTaskStartsWhereItIsTold(t *testing.T) {
	t.Parallel()
	events := history(4)
	whole := &streams{answers: []func(http.ResponseWriter, *http.Request, string){
		func(w http.ResponseWriter, r *http.Request, lastID string) {
			after, err := strconv.Atoi(lastID)
			switch {
			case err != nil:
				send(w, frames(snapshot(events[1]))+frames(events[2:]...))
			case after >= len(events):
				w.WriteHeader(http.StatusNoContent)
			default:
				send(w, frames(events[after:]...))
			}
		}}}
	c := onSocket(t, whole)
	two, four := int64(2), int64(4)
	for name, tc := range map[string]struct {
		o    api.WatchOptions
		want []int64
	}{
		"nowhere: a snapshot, then what follows": {api.WatchOptions{}, []int64{2, 3, 4}},
		"after 0: all":                           {all, []int64{1, 2, 3, 4}},
		"after 2: the rest":                      {api.WatchOptions{After: &two}, []int64{3, 4}},
		"after the end: nothing":                 {api.WatchOptions{After: &four}, nil},
	} {
		if got, err := seqs(t.Context(), c, tc.o); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tc.want)
		}
	}
}

func TestWatchTaskEndsWithTheSnapshotOfATaskThatHasEnded(t *testing.T) {
	t.Parallel()
	events := history(4)
	c := onSocket(t, &streams{answers: []func(http.ResponseWriter, *http.Request, string){hang(frames(snapshot(events[3])))}})
	if got, err := seqs(t.Context(), c, api.WatchOptions{}); err != nil || !slices.Equal(got, []int64{4}) {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestWatchTaskReconnectsWhenTheConnectionGoesSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := history(3)
		beats := func(w http.ResponseWriter, r *http.Request, _ string) {
			send(w, frames(events[1]))
			for range 40 { // ten minutes
				time.Sleep(15 * time.Second)
				send(w, ": beat\n\n")
			}
			<-r.Context().Done()
		}
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){hang(frames(events[0])), beats, say(frames(events[2]))}}
		var reasons []string
		began := time.Now()
		o := all
		o.Reconnecting = func(err error) {
			reasons = append(reasons, fmt.Sprintf("%v: %v", time.Since(began).Truncate(time.Minute), err))
		}
		got, err := seqs(t.Context(), inMemory(t, s), o)
		if err != nil || !slices.Equal(got, []int64{1, 2, 3}) {
			t.Fatalf("got %v, %v", got, err)
		}
		want := []string{"0s: stream: the connection was silent for 45 s", "11m0s: stream: the connection was silent for 45 s"}
		if !slices.Equal(reasons, want) || !slices.Equal(s.lastIDs(), []string{"0", "1", "2"}) {
			t.Fatalf("reconnected for %q with %q", reasons, s.lastIDs())
		}
	})
}

func TestWatchTaskAllowsASlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){say(frames(history(3)...))}}
		c := inMemory(t, s)
		for _, err := range c.WatchTask(t.Context(), taskID, all) {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if asked := s.lastIDs(); len(asked) != 1 {
			t.Fatalf("connected with %q", asked)
		}
	})
}

func TestWatchTaskWaitsBeforeItReconnects(t *testing.T) {
	t.Parallel()
	down := refuse(http.StatusBadGateway, "unavailable")
	overloaded := func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Retry-After", "90")
		problem(w, http.StatusServiceUnavailable, "unavailable")
	}
	end := say(frames(history(1)...))
	for name, tc := range map[string]struct {
		first    []func(http.ResponseWriter, *http.Request, string)
		from, to time.Duration
	}{
		"two seconds when the server says nothing": {[]func(http.ResponseWriter, *http.Request, string){say("")}, 2 * time.Second, 3 * time.Second},
		"what the server says":                     {[]func(http.ResponseWriter, *http.Request, string){say("retry: 7000\n\n")}, 7 * time.Second, 11 * time.Second},
		"never less than a moment":                 {[]func(http.ResponseWriter, *http.Request, string){say("retry: 0\n\n")}, 100 * time.Millisecond, 200 * time.Millisecond},
		"longer while there is no server":          {[]func(http.ResponseWriter, *http.Request, string){say(""), down, down, down}, (2 + 2 + 4 + 8) * time.Second, (3 + 3 + 6 + 12) * time.Second},
		"what an overloaded server says":           {[]func(http.ResponseWriter, *http.Request, string){say(""), overloaded}, 92 * time.Second, 140 * time.Second},
		"never much longer than half a minute":     {[]func(http.ResponseWriter, *http.Request, string){say(""), down, down, down, down, down, down, down}, (2 + 2 + 4 + 8 + 16 + 30 + 30 + 30) * time.Second, 190 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := inMemory(t, &streams{answers: append(tc.first, end)})
				if got, err := seqs(t.Context(), c, all); err != nil || len(got) != 1 {
					t.Fatalf("got %v, %v", got, err)
				}
				if took := time.Since(began); took < tc.from || took > tc.to {
					t.Fatalf("took %v, want %v to %v", took, tc.from, tc.to)
				}
			})
		})
	}
}

func TestWatchTaskSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	events := history(4)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	first := &http.Server{Handler: &streams{answers: []func(http.ResponseWriter, *http.Request, string){hang("retry: 1\n\n" + frames(events[:2]...))}}}
	go first.Serve(l)
	second := &http.Server{Handler: &streams{answers: []func(http.ResponseWriter, *http.Request, string){say(frames(events[2:]...))}}}
	defer second.Close()

	lost := 0
	o := all
	o.Reconnecting = func(error) {
		if lost++; lost != 3 {
			return
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		go second.Serve(l)
	}
	var got []int64
	for ev, err := range newClient(t, "http://"+address).WatchTask(t.Context(), taskID, o) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, ev.Seq); ev.Seq == 2 {
			first.Close()
		}
	}
	if !slices.Equal(got, []int64{1, 2, 3, 4}) {
		t.Fatalf("got %v", got)
	}
}

func TestWatchTaskStopsWhenTheServerRefuses(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 410, 422} {
		for name, before := range map[string][]func(http.ResponseWriter, *http.Request, string){
			"at once": nil,
			"later":   {say("retry: 1\n\n" + frames(history(2)[:1]...))},
		} {
			s := &streams{answers: append(before, refuse(status, "because"))}
			_, err := seqs(t.Context(), onSocket(t, s), all)
			var answer *api.Error
			if !errors.As(err, &answer) || answer.Status != status || len(s.lastIDs()) != len(before)+1 {
				t.Errorf("%d %s: got %v after %q", status, name, err, s.lastIDs())
			}
		}
	}
}

func TestWatchTaskGivesUpWhenItNeverConnected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){refuse(503, "unavailable")}}
		_, err := seqs(t.Context(), inMemory(t, s, api.WithRetries(2)), all)
		var answer *api.Error
		if !errors.As(err, &answer) || answer.Status != 503 || len(s.lastIDs()) != 3 {
			t.Fatalf("got %v after %d attempts", err, len(s.lastIDs()))
		}
	})
}

func TestWatchTaskStopsAtWhatIsNoStream(t *testing.T) {
	t.Parallel()
	s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){
		func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, "<h1>Sign in</h1>")
		}}}
	_, err := seqs(t.Context(), onSocket(t, s), all)
	if err == nil || !strings.Contains(err.Error(), `no CoderClaw server: it answered with "text/html"`) {
		t.Fatalf("got %v", err)
	}
}

func TestWatchTaskAsksAgainForMissingEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ev := history(5)
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){
			hang(frames(ev[0], ev[1], ev[3], ev[4])),                                       // without 3
			hang(frames(ev[2]) + strings.Replace(frames(ev[3]), "data: {", "data: {{", 1)), // 4 damaged
			say(frames(ev[1], ev[2], ev[3], ev[4])),                                        // with some it has
		}}
		got, err := seqs(t.Context(), inMemory(t, s), all)
		if err != nil || !slices.Equal(got, []int64{1, 2, 3, 4, 5}) || !slices.Equal(s.lastIDs(), []string{"0", "2", "3"}) {
			t.Fatalf("got %v, %v with %q", got, err, s.lastIDs())
		}
	})
}

func TestWatchTaskSaysWhenEventsStayMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ev := history(5)
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){say(frames(ev[0], ev[1])), say(frames(ev[3], ev[4]))}}
		got, err := seqs(t.Context(), inMemory(t, s), all)
		if !slices.Equal(got, []int64{1, 2}) || err == nil || !strings.Contains(err.Error(), "after 2 of task "+taskID+" came 4") {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func TestWatchTaskPassesResetOnAndStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ev := history(9)
		const reset = "event: reset\ndata: {\"taskId\":\"" + taskID + "\"}\n\n"
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){
			say(frames(ev[0]) + reset), // torn before the snapshot
			say(frames(snapshot(ev[6]), ev[7], ev[8])),
		}}
		var got []string
		for ev, err := range inMemory(t, s).WatchTask(t.Context(), taskID, all) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(ev.Type, " ", ev.Seq))
		}
		if want := []string{"progress 1", "reset 0", "snapshot 7", "progress 8", "status 9"}; !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if want := []string{"0", "-"}; !slices.Equal(s.lastIDs(), want) {
			t.Fatalf("connected with %q, want %q", s.lastIDs(), want)
		}
	})
}

func TestWatchTaskIgnoresUnknownControlFramesAndPassesUnknownEventsOn(t *testing.T) {
	t.Parallel()
	ev := history(3)
	ev[1].Type = "thought"
	c := onSocket(t, &streams{answers: []func(http.ResponseWriter, *http.Request, string){
		say("event: bye\ndata: see you\n\n" + frames(ev[0]) + "event: hello\ndata: {\"seq\":7}\n\n" + frames(ev[1:]...))}})
	var got []api.EventType
	for ev, err := range c.WatchTask(t.Context(), taskID, all) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ev.Type)
	}
	if want := []api.EventType{"progress", "thought", "status"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestWatchTaskHangsUpWhenItsConsumerLeaves(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	c := onSocket(t, &streams{answers: []func(http.ResponseWriter, *http.Request, string){
		func(w http.ResponseWriter, r *http.Request, _ string) {
			send(w, frames(history(2)[:1]...))
			<-r.Context().Done()
			close(left)
		}}})
	for range c.WatchTask(t.Context(), taskID, all) {
		break
	}
	<-left
}

func TestWatchTaskEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, string){
		"while it reads": hang(frames(history(2)[:1]...)),
		"while it waits": say("retry: 60000\n\n" + frames(history(2)[:1]...)),
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var last error
		for _, err := range onSocket(t, &streams{answers: []func(http.ResponseWriter, *http.Request, string){answer}}).WatchTask(ctx, taskID, all) {
			last = err
			cancel()
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("%s: got %v", name, last)
		}
		cancel()
	}
}

func TestWatchResumesAtItsCursorAndKeepsEachTaskInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		entry := func(cursor, task string, seq int64, status api.TaskStatus) string {
			return fmt.Sprintf("event: status\nid: %s\ndata: {\"taskId\":%q,\"seq\":%d,\"status\":%q}\n\n", cursor, task, seq, status)
		}
		var query atomic.Value
		s := &streams{answers: []func(http.ResponseWriter, *http.Request, string){
			say("id: c0\n\n"), // where the stream stands; nothing has happened yet
			say(entry("c1", "a", 4, "running") + entry("c2", "b", 1, "pending") + entry("c2", "b", 1, "pending") + "id: c3\n\n"),
			say(entry("c5", "a", 6, "running")), // a's 5 is missing
			say(entry("c4", "a", 5, "running") + entry("c5", "a", 6, "completed")),
			func(w http.ResponseWriter, r *http.Request, _ string) {
				query.Store(r.URL.RawQuery)
				problem(w, http.StatusUnauthorized, "unauthenticated")
			},
		}}
		var got []string
		var last error
		f := api.TaskFilter{AgentID: "code-reviewer", Labels: map[string]string{"team": "a b", "env": "ci"}, Limit: 7, Cursor: "page"}
		for ev, err := range inMemory(t, s).Watch(t.Context(), f, api.FeedOptions{}) {
			if err != nil {
				last = err
				continue
			}
			got = append(got, fmt.Sprintf("%s %s%d", ev.Cursor, ev.TaskID, ev.Seq))
		}
		if want := []string{"c1 a4", "c2 b1", "c4 a5", "c5 a6"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if want := []string{"-", "c0", "c3", "c3", "c5"}; !slices.Equal(s.lastIDs(), want) {
			t.Errorf("connected with %q, want %q", s.lastIDs(), want)
		}
		var answer *api.Error
		if !errors.As(last, &answer) || answer.Slug() != "unauthenticated" {
			t.Errorf("ended with %v", last)
		}
		if q := query.Load(); q != "agentId=code-reviewer&label=env%3Dci&label=team%3Da+b" {
			t.Errorf("asked for %q", q)
		}
	})
}

func TestWatchByStatusAllowsGaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text := "event: status\nid: c1\ndata: {\"taskId\":\"a\",\"seq\":2,\"status\":\"running\"}\n\n" +
			"event: status\nid: c2\ndata: {\"taskId\":\"a\",\"seq\":9,\"status\":\"running\"}\n\n"
		c := inMemory(t, &streams{answers: []func(http.ResponseWriter, *http.Request, string){say(text)}})
		var got []int64
		for ev, err := range c.Watch(t.Context(), api.TaskFilter{Status: []api.TaskStatus{api.TaskRunning}}, api.FeedOptions{After: "c0"}) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, ev.Seq); len(got) == 2 {
				break
			}
		}
		if !slices.Equal(got, []int64{2, 9}) {
			t.Fatalf("got %v", got)
		}
	})
}
