package task_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
)

// readAll reads the log from a place to its end.
func (r rig) readAll(t *testing.T, p task.Position) (entries []task.LogEntry, end task.Position, unsettled bool) {
	t.Helper()
	for {
		found, more, u, err := r.ReadLog(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, found...)
		if n := len(found); n > 0 {
			p = found[n-1].Position
		}
		if !more {
			return entries, p, u
		}
	}
}

// readUntil reads the log from a place until it has shown as many events: what
// other databases of the cluster are writing holds it up now and then.
func (r rig) readUntil(t *testing.T, p task.Position, n int) (entries []task.LogEntry, end task.Position) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		found, place, _ := r.readAll(t, p)
		entries, p = append(entries, found...), place
		if len(entries) >= n {
			return entries, p
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log shows %d events, want %d", len(entries), n)
		}
	}
}

func TestTheLogSkipsNoEventWhoseTransactionCommitsLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	early, late := r.manual(t), r.manual(t)
	_, start := r.readUntil(t, task.Position{}, 2)

	// A writer gets its transaction id and its place first …
	tx, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	_, err = tx.Exec(t.Context(), `
		WITH c AS (UPDATE tasks SET last_seq = last_seq + 1, last_txid = pg_current_xact_id() WHERE id = $1 RETURNING *)
		INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message)
		SELECT id, last_seq, last_txid, now(), 'log', status, 'committed late' FROM c`, late.ID)
	if err != nil {
		t.Fatal(err)
	}
	// … a second one comes after it and commits before it.
	if _, err := r.Update(t.Context(), ann, early.ID, task.Patch{Message: "committed early"}); err != nil {
		t.Fatal(err)
	}
	before, place, unsettled := r.readAll(t, start)
	if len(before) != 0 || !unsettled {
		t.Errorf("the log gave %d events (unsettled %v) while an earlier writer was busy", len(before), unsettled)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, _ := r.readUntil(t, place, 2)
	if len(after) != 2 || after[0].Message != "committed late" || after[1].Message != "committed early" {
		t.Errorf("after the commit the log gave %+v", after)
	}
}

func TestEveryReaderOfTheLogSeesEachEventOnceInTheSameOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const writers, writes = 8, 40
	ids := make([]uuid.UUID, 4)
	for i := range ids {
		ids[i] = r.manual(t).ID
	}
	writing, stop := context.WithCancel(t.Context())
	var write, read sync.WaitGroup
	for w := range writers {
		write.Go(func() {
			for n := range writes {
				_, err := r.Update(t.Context(), ann, ids[rand.N(len(ids))], task.Patch{Message: fmt.Sprint(w, ".", n)})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make([][]task.LogEntry, 3)
	for i := range seen {
		read.Go(func() {
			var p task.Position
			for {
				done := writing.Err() != nil
				entries, end, unsettled := r.readAll(t, p)
				seen[i], p = append(seen[i], entries...), end
				if done && !unsettled {
					return
				}
			}
		})
	}
	write.Wait()
	stop()
	read.Wait()
	for i, entries := range seen {
		if len(entries) != writers*writes+len(ids) {
			t.Fatalf("reader %d saw %d events, want %d", i, len(entries), writers*writes+len(ids))
		}
		next := map[uuid.UUID]int64{}
		for k, e := range entries {
			if e.Position != seen[0][k].Position {
				t.Fatalf("readers differ at event %d", k)
			}
			if next[e.TaskID]++; e.Seq != next[e.TaskID] {
				t.Fatalf("reader %d saw event %d of a task where %d was due", i, e.Seq, next[e.TaskID])
			}
		}
	}
}

// A transaction may get its id first and the task's row last. Its event must
// still come after the one that was there before it.
func TestATasksEventsKeepTheirOrderInTheLogWhateverTheTransactionIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	older, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer older.Rollback(context.WithoutCancel(t.Context()))
	var txid uint64
	if err := older.QueryRow(t.Context(), `SELECT pg_current_xact_id()`).Scan(&txid); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), ann, id, task.Patch{Message: "second"}); err != nil {
		t.Fatal(err)
	}
	_, err = older.Exec(t.Context(), `
		WITH c AS (UPDATE tasks SET last_seq = last_seq + 1, last_txid = greatest(last_txid, pg_current_xact_id()) WHERE id = $1 RETURNING *)
		INSERT INTO task_events (task_id, seq, txid, created_at, type, status, message)
		SELECT id, last_seq, last_txid, now(), 'log', status, 'third' FROM c`, id)
	if err == nil {
		err = older.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	entries, _ := r.readUntil(t, task.Position{}, 3)
	if len(entries) != 3 || entries[1].Message != "second" || entries[2].Message != "third" {
		t.Errorf("the log says %+v", entries)
	}
}

func TestARestoredDatabaseKeepsItsOrderOfEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	// What a dump from a cluster with many more transactions would bring.
	_, err := r.pool.Exec(t.Context(), `WITH t AS (UPDATE tasks SET last_txid = '4000000000000') UPDATE task_events SET txid = '4000000000000'`)
	if err != nil {
		t.Fatal(err)
	}
	if entries, _, unsettled := r.readAll(t, task.Position{}); len(entries) != 0 || !unsettled {
		t.Fatalf("the test restored nothing: %v %v", entries, unsettled)
	}
	if err := r.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.to(t, id, task.Planning)
	entries, _ := r.readUntil(t, task.Position{}, 2)
	if len(entries) != 2 || entries[0].Seq != 1 || entries[1].Seq != 2 {
		t.Errorf("the log says %+v", entries)
	}
}

func TestALostSignalIsMadeUpForByLooking(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	heard := make(chan stream.Signal, 100)
	bus := &stream.Memory{}
	bus.Subscribe(func(s stream.Signal) { heard <- s })
	deaf := task.NewService(r.pool, task.Options{Agents: anyAgent{}, Access: r.rights, Submitters: r.rights, Recorder: r.rights, Bus: bus, Log: slog.New(slog.DiscardHandler), Shared: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = deaf.Run(ctx); close(done) }()
	id := r.manual(t).ID
	for heardOf := false; !heardOf; {
		// Written by another process, whose bus this one does not hear.
		if _, err := r.Update(ctx, ann, id, task.Patch{Message: "again"}); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-heard:
			heardOf = s == stream.Signal{Topic: stream.TaskChanged, ID: id.String()}
		case <-time.After(50 * time.Millisecond):
		}
	}
	cancel()
	<-done
}
