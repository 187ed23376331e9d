package clawbench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) streamsCommand() *cobra.Command {
	var streams, tasks, events int
	var perSecond float64
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "Follow tasks: what an idle stream costs, and how soon an event arrives",
		Long: `Follow tasks: what an idle stream costs, and how soon an event arrives.

First one follower watches a task that is updated, one event at a time. Then the
streams are opened, as many at once as there are clients, and left idle for the
duration; the figures are of the time from connecting to the first event.

With --events-per-second all streams follow one task, to which events are written
at that rate, in turns with one that nobody follows.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tasks == 0 {
				tasks = streams
			}
			if streams < 1 || tasks < 1 || events < 1 {
				return errors.New("--streams, --tasks and --events must be positive")
			}
			if err := enoughFiles(streams); err != nil {
				return err
			}
			return b.run(cmd.Context(), "streams", "streams", nil, func(ctx context.Context, r *rig, res *result) error {
				if perSecond > 0 {
					res.Unit = "events"
					return b.deliver(ctx, r, res, streams, perSecond)
				}
				return b.streams(ctx, r, res, streams, tasks, events)
			})
		},
	}
	b.addFlags(cmd, 10*time.Second)
	b.addClientsFlag(cmd, 64)
	f := cmd.Flags()
	f.IntVar(&streams, "streams", 5000, "how many streams to open")
	f.IntVar(&streams, "followers", 5000, "the same")
	f.IntVar(&tasks, "tasks", 0, "how many tasks they follow (default: each its own)")
	f.IntVar(&events, "events", 500, "how many events to send to the one follower")
	f.Float64Var(&perSecond, "events-per-second", 0, "write events to one task at this rate, which all streams follow")
	f.IntVar(&b.rounds, "rounds", 3, "with --events-per-second, how often to measure with and without followers")
	return cmd
}

// enoughFiles looks at the limit on open files, which the Go runtime has raised
// as far as it may, here as in the server.
func enoughFiles(streams int) error {
	const others = 200
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("look at the limit on open files: %w", err)
	}
	if limit.Max < uint64(streams+others) {
		return fmt.Errorf("%d streams need %d open files, but no more than %d are allowed: raise the hard limit (ulimit -Hn) or open fewer",
			streams, streams+others, limit.Max)
	}
	return nil
}

func (b *bench) streams(ctx context.Context, r *rig, res *result, streams, tasks, events int) error {
	ids, err := submitMany(ctx, r.client, tasks)
	if err != nil {
		return err
	}
	b.say("sending %d events to one follower", events)
	arrivals, err := r.timeEvents(ctx, ids[0], events)
	if err != nil {
		return err
	}
	res.note("streams", float64(streams), "")
	res.note("eventP50Ms", arrivals.percentiles().P50, "ms from before the request that writes an event to its follower")
	res.note("eventP99Ms", arrivals.percentiles().P99, "ms")

	visible := r.own != nil && runtime.GOOS == "linux"
	var before int64
	if visible {
		if before, err = r.own.liveMemory(ctx); err != nil {
			return err
		}
	}
	b.say("opening %d streams of %d tasks", streams, tasks)
	f, end, err := r.openStreams(ctx, ids, streams, b.clients)
	defer func() { _ = end() }() // what is not told below has been told
	if err != nil {
		return err
	}
	b.say("leaving them idle for %s", b.duration)
	if !sleep(ctx, b.duration) {
		return ctx.Err()
	}
	if visible {
		uncollected, err := residentOf(r.own.pid())
		if err != nil {
			return err
		}
		after, err := r.own.liveMemory(ctx)
		if err != nil {
			return err
		}
		res.note("bytesPerStream", float64(after-before)/float64(streams), "bytes of the server's memory")
		res.note("bytesPerStreamUncollected", float64(uncollected-before)/float64(streams), "bytes, before a garbage collection")
	}
	res.Rows = append(res.Rows, row{Name: "opening", figures: f})
	return end()
}

// submitMany returns the ids of n new tasks.
func submitMany(ctx context.Context, c *api.Client, n int) ([]string, error) {
	const most = 1000 // of a batch
	var ids []string
	for len(ids) < n {
		batch := make([]api.NewTask, min(most, n-len(ids)))
		for i := range batch {
			batch[i] = payload()
		}
		made, err := c.SubmitTasks(ctx, batch)
		if err != nil {
			return nil, fmt.Errorf("submit tasks to follow: %w", err)
		}
		for _, t := range made {
			ids = append(ids, t.ID)
		}
	}
	return ids, nil
}

// timeEvents updates a task and tells how long each event took from the
// request that wrote it to a follower: an upper bound of what it took from the
// commit.
func (r *rig) timeEvents(ctx context.Context, id string, events int) (took timings, err error) {
	took = newTimings()
	follower, err := r.follow(ctx, id)
	if err != nil {
		return took, err
	}
	defer follower.close()
	writer, err := r.dial(ctx)
	if err != nil {
		return took, err
	}
	defer writer.close()
	type arrival struct {
		at  time.Time
		err error
	}
	arrivals := make(chan arrival, events)
	go func() {
		for range events {
			err := follower.next("progress")
			arrivals <- arrival{time.Now(), err}
			if err != nil {
				return
			}
		}
	}()
	for i := range events {
		body, err := encode(api.TaskPatch{Progress: new(i % 100), Message: strconv.Itoa(i)})
		if err != nil {
			return took, err
		}
		start := time.Now()
		if _, err := writer.do(http.MethodPatch, "/v1/tasks/"+id, body); err != nil {
			return took, err
		}
		a := <-arrivals
		if a.err != nil {
			return took, a.err
		}
		took.add(a.at.Sub(start))
	}
	return took, nil
}

// openStreams opens streams of the tasks in turn, several at once. end ends
// them; it returns an error if one has ended before. It may be called twice.
func (r *rig) openStreams(ctx context.Context, ids []string, streams, atOnce int) (f figures, end func() error, err error) {
	// The streams live until they are closed, not until all are open.
	ctx, cancel := context.WithCancelCause(ctx)
	var watch errgroup.Group
	end = func() error {
		cancel(errStreamsClosed)
		return watch.Wait()
	}
	var next atomic.Int64
	var mu sync.Mutex
	took := newTimings()
	began := time.Now()
	open, _ := errgroup.WithContext(ctx)
	for range atOnce {
		open.Go(func() error {
			for i := int(next.Add(1)) - 1; i < streams; i = int(next.Add(1)) - 1 {
				start := time.Now()
				s, err := r.follow(ctx, ids[i%len(ids)])
				if err != nil {
					cancel(err)
					return err
				}
				mu.Lock()
				took.add(time.Since(start))
				mu.Unlock()
				watch.Go(func() error {
					defer s.close()
					_, err := io.Copy(io.Discard, s.body) // a comment now and then
					if errors.Is(context.Cause(ctx), errStreamsClosed) {
						return nil
					}
					return fmt.Errorf("a stream ended while it was idle: %w", errors.Join(err, io.ErrUnexpectedEOF))
				})
			}
			return nil
		})
	}
	if err := open.Wait(); err != nil {
		return f, end, err
	}
	elapsed := time.Since(began)
	f = took.percentiles()
	f.PerSecond = float64(streams) / elapsed.Seconds()
	return f, end, nil
}

var errStreamsClosed = errors.New("streams closed")

// follower reads a stream.
type follower struct {
	*connection
	body *bufio.Reader
	data []byte // of the last event
}

// follow opens a stream of a task and returns once the snapshot is there.
func (r *rig) follow(ctx context.Context, id string) (*follower, error) {
	f, err := r.openStream(ctx, "/v1/tasks/"+id+"/stream")
	if err != nil {
		return nil, err
	}
	if err := f.next("snapshot"); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// openStream opens any stream.
func (r *rig) openStream(ctx context.Context, path string) (*follower, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.send(http.MethodGet, path, "Accept: text/event-stream\r\n", nil); err != nil {
		c.close()
		return nil, err
	}
	_, body, err := c.receive(http.MethodGet, path)
	if err != nil {
		c.close()
		return nil, err
	}
	return &follower{connection: c, body: bufio.NewReaderSize(body, 512)}, nil
}

// next reads up to the end of the next event, which must be of the kind.
func (f *follower) next(kind string) error {
	got, _, err := f.read()
	if err == nil && got != kind {
		return fmt.Errorf("a stream sent %s where %s was due", got, kind)
	}
	return err
}

// read returns the kind and the data of the next event, as far as the data fit
// the buffer. They last until the next call.
func (f *follower) read() (kind string, data []byte, err error) {
	for within := false; ; {
		line, more, err := f.body.ReadLine()
		if err != nil {
			return "", nil, fmt.Errorf("read a stream: %w", err)
		}
		begins := !within
		within = more
		if !begins {
			continue // the rest of a line that is longer than the buffer
		}
		if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			kind = string(name)
		}
		if text, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			f.data = append(f.data[:0], text...)
		}
		if len(line) == 0 && kind != "" {
			return kind, f.data, nil
		}
	}
}

// liveMemory returns how many bytes of the server are in memory once garbage is
// collected and the figure has settled.
func (p *process) liveMemory(ctx context.Context) (int64, error) {
	if err := p.collectGarbage(); err != nil {
		return 0, err
	}
	last := int64(-1)
	for {
		now, err := residentOf(p.pid())
		if err != nil {
			return 0, err
		}
		if last >= 0 && max(now, last)-min(now, last) < now/100 {
			return now, nil
		}
		last = now
		if !sleep(ctx, 200*time.Millisecond) {
			return 0, ctx.Err()
		}
	}
}
