package audit

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
)

// Options are what a Log needs beside the database.
type Options struct {
	Logger *slog.Logger
	// Key signs checkpoints. Without one this server seals nothing.
	Key *Key
	// CheckpointFile is where checkpoints are kept, outside of the database;
	// empty: nowhere.
	CheckpointFile string
	// WitnessURL is where each checkpoint is posted to, as text/plain; empty:
	// nowhere. Of checkpoints that follow each other fast it gets the newest.
	WitnessURL string
	// Witness posts them; nil: a client with bounds of its own.
	Witness *http.Client
}

// Log is the audit log of one database, as one server sees it.
type Log struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	key  *Key
	file checkpointFile

	queue  queue
	floods floods

	poked   chan struct{} // something may have been written
	flooded chan struct{} // entries are held back
	offers  chan Checkpoint
	witness witness

	mu     sync.Mutex
	anchor *Checkpoint // what this server knows to be the log; nil: nothing yet
	state  sealState

	numbers numbers
}

// sealState is what Stats tells of sealing.
type sealState struct {
	size        int64
	sealedAt    time.Time
	behindSince time.Time // since when there is something unsealed; zero: there is nothing
	tampered    error
}

// numbers count since the start.
type numbers struct {
	recorded, lost, heldBack                         atomic.Int64
	sealed, sealFailures, fileFailures, postFailures atomic.Int64
	fileSize, postedSize                             atomic.Int64
}

// Stats are the numbers of a Log: counts are since its start, sizes are
// numbers of entries.
type Stats struct {
	Recorded int64 // entries that Record has written
	Lost     int64 // entries that Record could not write, and logged instead
	HeldBack int64 // failed authentications that stand in an entry with others

	Sealed       int64         // entries that this server has sealed
	Size         int64         // of the log, when this server looked last
	SealedAt     time.Time     // when this server sealed last; zero: never
	UnsealedAge  time.Duration // for how long there have been unsealed entries
	SealFailures int64

	FileSize     int64 // of the newest checkpoint in the file
	FileFailures int64
	PostedSize   int64 // of the newest checkpoint that the witness has taken
	PostFailures int64

	Tampered bool // see Log.Tampered
}

// New returns the log in a database with the schema of package migrations.
// Record works at once, all else while Run does.
func New(pool *pgxpool.Pool, o Options) *Log {
	l := &Log{
		pool: pool, log: o.Logger, key: o.Key, file: checkpointFile{path: o.CheckpointFile},
		poked: make(chan struct{}, 1), flooded: make(chan struct{}, 1), offers: make(chan Checkpoint, 1),
		witness: witness{url: o.WitnessURL, client: o.Witness},
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.witness.client == nil {
		l.witness.client = witnessClient()
	}
	l.queue.flush = l.write
	return l
}

// Verifier returns the public key of this server's checkpoints, or "" if it
// signs none.
func (l *Log) Verifier() string {
	if l.key == nil {
		return ""
	}
	return l.key.Public()
}

func (l *Log) verifier() note.Verifier {
	v, err := note.NewVerifier(l.key.Public())
	if err != nil {
		panic(err) // it was one when the key was loaded
	}
	return v
}

// Tampered returns how the database contradicts what this server has signed
// before: it was changed by other means, or restored from a backup. Nothing is
// sealed meanwhile; everything else goes on. nil: it does not.
//
// To go on from what the database holds now, keep the checkpoint file
// elsewhere, as the evidence that it is, and start the server anew.
func (l *Log) Tampered() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.tampered
}

// Stats returns the numbers as they stand.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	state := l.state
	l.mu.Unlock()
	n := &l.numbers
	s := Stats{
		Recorded: n.recorded.Load(), Lost: n.lost.Load(), HeldBack: n.heldBack.Load(),
		Sealed: n.sealed.Load(), Size: state.size, SealedAt: state.sealedAt, SealFailures: n.sealFailures.Load(),
		FileSize: n.fileSize.Load(), FileFailures: n.fileFailures.Load(),
		PostedSize: n.postedSize.Load(), PostFailures: n.postFailures.Load(),
		Tampered: state.tampered != nil,
	}
	if !state.behindSince.IsZero() {
		s.UnsealedAge = time.Since(state.behindSince)
	}
	return s
}

// Poke says that entries may have been committed, so that they are sealed
// soon. It never blocks. Without it, the sealer finds them within 10 s.
func (l *Log) Poke() {
	if l.key == nil {
		return
	}
	l.mu.Lock()
	if l.state.behindSince.IsZero() {
		l.state.behindSince = time.Now()
	}
	l.mu.Unlock()
	poke(l.poked)
}

const (
	// sealInterval is the least time from one seal to the next.
	sealInterval = time.Second
	// lookInterval bounds how late entries are noticed that nobody spoke of.
	lookInterval = 30 * time.Second
	// tidyInterval is how often partitions are looked after.
	tidyInterval = time.Hour
)

// Run seals entries, at most once a second and only if there are any, tells
// the witness, writes what was held back of floods and makes partitions, until
// ctx ends. Faults are logged and tried again.
func (l *Log) Run(ctx context.Context) error {
	var witness sync.WaitGroup
	if l.witness.url != "" {
		witness.Go(func() { l.tellWitness(ctx) })
	}
	defer witness.Wait()
	defer l.file.close()

	var seal <-chan time.Time
	if l.key != nil {
		seal = time.After(0)
	}
	var soonest time.Time // of the next seal
	var release <-chan time.Time
	tidy := time.NewTicker(tidyInterval)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			l.enqueue(context.WithoutCancel(ctx), l.floods.release(time.Time{})...)
			return nil
		case <-l.poked:
			seal = time.After(time.Until(soonest))
		case <-seal:
			wait := lookInterval
			if l.sealAll(ctx) {
				wait = sealInterval
			}
			soonest = time.Now().Add(sealInterval)
			seal = time.After(wait)
		case <-l.flooded:
			if release == nil {
				release = time.After(floodWindow)
			}
		case now := <-release:
			if release = nil; l.floods.pending(now) {
				release = time.After(floodWindow / 4)
			}
			l.enqueue(ctx, l.floods.release(now)...)
		case <-tidy.C:
			if err := l.Prepare(ctx); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "partitions of the audit log were not made", "error", err)
			}
		}
	}
}

// sealAll seals until nothing is left that can be sealed now. It reports
// whether to come back soon.
func (l *Log) sealAll(ctx context.Context) (soon bool) {
	for {
		left, err := l.seal(ctx)
		var contradiction inconsistency
		switch {
		case ctx.Err() != nil:
			return false
		case errors.As(err, &contradiction):
			l.setTampered(ctx, contradiction)
			return false
		case err != nil:
			l.numbers.sealFailures.Add(1)
			l.log.WarnContext(ctx, "the audit log was not sealed; will try again", "error", err)
			return true
		}
		l.setTampered(ctx, nil)
		if left != someMore {
			return left == someLater
		}
	}
}

// setTampered notes whether the log contradicts itself, and says so once.
func (l *Log) setTampered(ctx context.Context, err error) {
	l.mu.Lock()
	before := l.state.tampered
	l.state.tampered = err
	l.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		l.log.ErrorContext(ctx, "THE AUDIT LOG WAS TAMPERED WITH OR RESTORED FROM A BACKUP: nothing more is sealed; run coderclawd audit verify",
			"contradiction", err, "file", l.file.path)
	case err == nil && before != nil:
		l.log.WarnContext(ctx, "the audit log is consistent again")
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
