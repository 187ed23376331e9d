package stream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	channel = "coderclaw"
	// Each NOTIFY takes a lock of the whole database at commit, so signals
	// that come close together share one.
	notifyInterval = 5 * time.Millisecond
	// PostgreSQL refuses payloads of 8,000 bytes and more.
	maxPayload = 7900
)

// Postgres is a bus between processes that share a database: what one
// publishes, all hear.
type Postgres struct {
	local Memory
	pool  *pgxpool.Pool
	log   *slog.Logger
	self  string // marks our own notifications, which were delivered locally

	mu      sync.Mutex
	pending map[Signal]struct{}
	wake    chan struct{}
}

// NewPostgres returns a bus that sends through pool and listens on a
// connection of its own once Run is called.
func NewPostgres(pool *pgxpool.Pool, log *slog.Logger) *Postgres {
	return &Postgres{
		pool: pool, log: log,
		self:    strconv.FormatUint(rand.Uint64(), 36),
		pending: map[Signal]struct{}{},
		wake:    make(chan struct{}, 1),
	}
}

// Publish delivers the signals within the process and, soon after, to the
// others. It never blocks.
func (p *Postgres) Publish(signals ...Signal) {
	p.local.Publish(signals...)
	p.mu.Lock()
	for _, s := range signals {
		p.pending[s] = struct{}{}
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Deliver tells only the subscribers within the process.
func (p *Postgres) Deliver(signals ...Signal) { p.local.Deliver(signals...) }

// Subscribe is as in Memory.
func (p *Postgres) Subscribe(f func(Signal)) (cancel func()) { return p.local.Subscribe(f) }

// Run sends and listens until ctx ends. Lost connections are made anew, and a
// Resync is published after each: what was said meanwhile was not heard.
func (p *Postgres) Run(ctx context.Context) error {
	var g sync.WaitGroup
	g.Go(func() { p.send(ctx) })
	g.Go(func() {
		for backoff := time.Duration(0); ; backoff = min(2*backoff+100*time.Millisecond, 5*time.Second) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
			heard, err := p.listen(ctx)
			if ctx.Err() != nil {
				return
			}
			if heard {
				backoff = 0
			}
			p.log.WarnContext(ctx, "notifications interrupted", "error", err)
		}
	})
	g.Wait()
	return nil
}

func (p *Postgres) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.mu.Lock()
		signals := p.pending
		p.pending = map[Signal]struct{}{}
		p.mu.Unlock()
		if len(signals) == 0 {
			continue
		}
		// A failure is not retried: the receivers' own look-again finds what
		// was not told.
		if _, err := p.pool.Exec(ctx, `SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload`,
			channel, p.payloads(signals)); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "notification not sent", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(notifyInterval):
		}
	}
}

// payloads packs signals as "<sender>\n<topic> <id>\n…".
func (p *Postgres) payloads(signals map[Signal]struct{}) []string {
	var out []string
	var b strings.Builder
	for s := range signals {
		line := "\n" + string(s.Topic) + " " + s.ID
		if b.Len() > 0 && b.Len()+len(line) > maxPayload {
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() == 0 {
			b.WriteString(p.self)
		}
		b.WriteString(line)
	}
	return append(out, b.String())
}

// listen reports whether it got as far as listening, and why it ended.
func (p *Postgres) listen(ctx context.Context) (heard bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig)
	if err != nil {
		return false, fmt.Errorf("connect to listen: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	p.local.Publish(Signal{Topic: Resync})
	for {
		// Wake up now and then to find out about a connection that died silently.
		wait, cancel := context.WithTimeout(ctx, 15*time.Second)
		n, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			p.receive(n.Payload)
		case quiet && !conn.IsClosed():
			ping, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = conn.Ping(ping)
			cancel()
			if err != nil {
				return true, fmt.Errorf("ping: %w", err)
			}
		default:
			return true, err
		}
	}
}

func (p *Postgres) receive(payload string) {
	sender, rest, _ := strings.Cut(payload, "\n")
	if sender == p.self {
		return
	}
	for line := range strings.SplitSeq(rest, "\n") {
		topic, id, _ := strings.Cut(line, " ")
		p.local.Publish(Signal{Topic: Topic(topic), ID: id})
	}
}
