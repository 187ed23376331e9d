package clawbench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coderclaw/runtime/api"
)

func (b *bench) streamsCommand() *cobra.Command {
	var streams, tasks, events int
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "Follow tasks: what an idle stream costs, and how soon an event arrives",
		Long: `Follow tasks: what an idle stream costs, and how soon an event arrives.

First one follower watches a task that is updated, one event at a time. Then the
streams are opened, as many at once as there are clients, and left idle for the
duration; p50 and p99 are of the time from connecting to the first event.`,
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
			return b.run(cmd.Context(), func(ctx context.Context, r *rig) (result, error) {
				return b.streams(ctx, r, streams, tasks, events)
			})
		},
	}
	b.addFlags(cmd)
	cmd.Flags().IntVar(&streams, "streams", 5000, "how many streams to open")
	cmd.Flags().IntVar(&tasks, "tasks", 0, "how many tasks they follow (default: each its own)")
	cmd.Flags().IntVar(&events, "events", 500, "how many events to send to the one follower")
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

func (b *bench) streams(ctx context.Context, r *rig, streams, tasks, events int) (result, error) {
	ids, err := submitMany(ctx, r.client, max(tasks, 1))
	if err != nil {
		return result{}, err
	}
	b.say("sending %d events to one follower", events)
	took, err := r.timeEvents(ctx, ids[0], events)
	if err != nil {
		return result{}, err
	}
	event := percentiles(took)
	res := &streamFigures{Streams: streams, EventP50Ms: rounded(event.p50), EventP99Ms: rounded(event.p99)}

	visible := r.own != nil && runtime.GOOS == "linux"
	var before int64
	if visible {
		if before, err = r.own.liveMemory(ctx); err != nil {
			return result{}, err
		}
	}
	b.say("opening %d streams of %d tasks", streams, tasks)
	f, closeAll, err := r.openStreams(ctx, ids, streams, b.clients)
	defer func() { _ = closeAll() }() // what is not told below has been told
	if err != nil {
		return result{}, err
	}
	b.say("leaving them idle for %s", b.duration)
	select {
	case <-ctx.Done():
		return result{}, ctx.Err()
	case <-time.After(b.duration):
	}
	if visible {
		uncollected, err := r.own.memory()
		if err != nil {
			return result{}, err
		}
		after, err := r.own.liveMemory(ctx)
		if err != nil {
			return result{}, err
		}
		each := func(bytes int64) *float64 { return new(rounded(float64(bytes-before) / float64(streams))) }
		res.BytesPerStream, res.BytesPerStreamUncollected = each(after), each(uncollected)
	}
	if err := closeAll(); err != nil {
		return result{}, err
	}
	out := resultOf("streams", "streams", []round{{server: f}})
	out.streamFigures = res
	return out, nil
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

// timeEvents updates a task and returns how long each event took from the
// request that wrote it to a follower: an upper bound of what it took from the
// commit.
func (r *rig) timeEvents(ctx context.Context, id string, events int) ([]time.Duration, error) {
	follower, err := r.follow(ctx, id)
	if err != nil {
		return nil, err
	}
	defer follower.close()
	writer, err := r.dial(ctx)
	if err != nil {
		return nil, err
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
	took := make([]time.Duration, events)
	for i := range took {
		body, err := encode(api.TaskPatch{Progress: new(i % 100), Message: strconv.Itoa(i)})
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := writer.do(http.MethodPatch, "/v1/tasks/"+id, body); err != nil {
			return nil, err
		}
		a := <-arrivals
		if a.err != nil {
			return nil, a.err
		}
		took[i] = a.at.Sub(start)
	}
	return took, nil
}

// openStreams opens streams of the tasks in turn, several at once. closeAll ends
// them; it returns an error if one has ended before. It may be called twice.
func (r *rig) openStreams(ctx context.Context, ids []string, streams, atOnce int) (f figures, closeAll func() error, err error) {
	// The streams live until they are closed, not until all are open.
	ctx, cancel := context.WithCancelCause(ctx)
	var watch errgroup.Group
	closeAll = func() error {
		cancel(errStreamsClosed)
		return watch.Wait()
	}
	var next atomic.Int64
	took := make([]time.Duration, streams)
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
				took[i] = time.Since(start)
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
		return figures{}, closeAll, err
	}
	elapsed := time.Since(began)
	f = percentiles(took)
	f.perSecond = float64(streams) / elapsed.Seconds()
	return f, closeAll, nil
}

var errStreamsClosed = errors.New("streams closed")

// follower reads a stream.
type follower struct {
	*connection
	body *bufio.Reader
}

// follow opens a stream and returns once the snapshot is there.
func (r *rig) follow(ctx context.Context, id string) (*follower, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	path := "/v1/tasks/" + id + "/stream"
	if err := c.send(http.MethodGet, path, "text/event-stream", nil); err != nil {
		c.close()
		return nil, err
	}
	_, body, err := c.receive(http.MethodGet, path)
	if err != nil {
		c.close()
		return nil, err
	}
	f := &follower{c, bufio.NewReaderSize(body, 512)}
	if err := f.next("snapshot"); err != nil {
		c.close()
		return nil, err
	}
	return f, nil
}

// next reads up to the end of the next event, which must be of the kind.
func (f *follower) next(kind string) error {
	got := ""
	for within := false; ; {
		line, more, err := f.body.ReadLine()
		if err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		begins := !within
		within = more
		if !begins {
			continue // the rest of a line that is longer than the buffer
		}
		if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			got = string(name)
		}
		if len(line) > 0 || got == "" {
			continue
		}
		if got != kind {
			return fmt.Errorf("a stream sent %s where %s was due", got, kind)
		}
		return nil
	}
}

// memory returns how many bytes of the server are in memory.
func (p *process) memory() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("look at the server's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("look at the server's memory: the system does not tell")
}

// liveMemory returns how many bytes of the server are in memory once garbage is
// collected and the figure has settled.
func (p *process) liveMemory(ctx context.Context) (int64, error) {
	if err := p.collectGarbage(); err != nil {
		return 0, err
	}
	last := int64(-1)
	for {
		now, err := p.memory()
		if err != nil {
			return 0, err
		}
		if last >= 0 && max(now, last)-min(now, last) < now/100 {
			return now, nil
		}
		last = now
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
