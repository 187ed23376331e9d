package audit_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

func TestEntriesGoWithTheTransactionOfTheirEffect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	err := postgres.InTx(t.Context(), r.pool, func(tx pgx.Tx) error {
		if err := audit.Append(t.Context(), tx, entries(3)...); err != nil {
			return err
		}
		return fault.New(fault.Conflict, "no")
	})
	if fault.CodeOf(err) != fault.Conflict {
		t.Fatal(err)
	}
	if got, _, err := r.Search(t.Context(), audit.Query{}, uuid.Max, 10); err != nil || len(got) != 0 {
		t.Errorf("a rollback left %d entries, %v", len(got), err)
	}
	r.append(t, entry(1))
	r.seal(t, 1)
	r.clean(t, 1)
}

func TestRefusedEntryIsAuditUnavailable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.owner.Exec(t.Context(), `REVOKE INSERT ON audit_entries FROM coderclaw_app`); err != nil {
		t.Fatal(err)
	}
	err := postgres.InTx(t.Context(), r.pool, func(tx pgx.Tx) error { return audit.Append(t.Context(), tx, entry(1)) })
	if fault.CodeOf(err) != fault.AuditUnavailable {
		t.Errorf("Append = %v", err)
	}
	r.Record(t.Context(), entry(2))
	if s := r.Stats(); s.Lost != 1 || s.Recorded != 0 {
		t.Errorf("the numbers are %+v", s)
	}
	if !strings.Contains(r.said.String(), "an entry is missing from the audit log") || !strings.Contains(r.said.String(), "request2") {
		t.Errorf("what was lost is not in the log: %s", r.said)
	}
}

func TestWhatClientsSendFits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := entry(1)
	e.ResourceID = strings.Repeat("ü", 100_000)
	e.Reason = "nul \x00, broken \xff\xfe, esc \x1b[31m"
	r.append(t, e)
	r.seal(t, 1)
	r.clean(t, 1)
	got, _, err := r.Search(t.Context(), audit.Query{ResourceID: e.ResourceID}, uuid.Max, 10)
	if err != nil || len(got) != 1 || len(got[0].ResourceID) > audit.MaxTextBytes || !utf8.ValidString(got[0].Reason) {
		t.Errorf("found %d, %v", len(got), err)
	}
}

func TestRefusalsShareCommits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var writers sync.WaitGroup
	for w := range 20 {
		writers.Go(func() {
			for i := range 10 {
				e := entry(w*10 + i)
				e.Result = audit.Denied
				r.Record(t.Context(), e)
			}
		})
	}
	writers.Wait()
	if s := r.Stats(); s.Recorded != 200 || s.Lost != 0 {
		t.Errorf("the numbers are %+v", s)
	}
	var commits int
	if err := r.pool.QueryRow(t.Context(), `SELECT count(DISTINCT txid) FROM audit_entries`).Scan(&commits); err != nil || commits >= 200 {
		t.Errorf("200 refusals took %d commits, %v", commits, err)
	}
}

func TestRecordDoesNotWaitForADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.pool.Close()
	r.Record(t.Context(), entry(1))
	if s := r.Stats(); s.Lost != 1 {
		t.Errorf("the numbers are %+v", s)
	}
}

func failure(address string) audit.Entry {
	return audit.NewEntry(policy.Caller{Address: address}, "request.authenticate", "", "", policy.Decision{Reason: "no such key"})
}

func TestFloodOfFailuresIsOneEntry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	const each = 200
	for i := range each {
		r.Record(t.Context(), failure("192.0.2.1"))
		// One attacker has a whole /64.
		r.Record(t.Context(), failure(fmt.Sprintf("2001:db8::%x", i)))
	}
	r.Record(t.Context(), failure("192.0.2.2"))
	if s := r.Stats(); s.Recorded != 2*audit.FloodLimit+1 || s.HeldBack != 2*(each-audit.FloodLimit) {
		t.Errorf("the numbers are %+v", s)
	}
	cancel()
	if err := r.Run(ctx); err != nil { // ends at once, and tells what it held back
		t.Fatal(err)
	}
	got, _, err := r.Search(t.Context(), audit.Query{}, uuid.Max, 500)
	if err != nil || len(got) != 2*audit.FloodLimit+3 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for _, e := range got[:2] {
		if !strings.Contains(string(e.Details), fmt.Sprintf(`"count":%d`, each-audit.FloodLimit)) || e.Result != audit.Denied {
			t.Errorf("the flood is told as %+v, %s", e, e.Details)
		}
	}
}

func TestSearchFindsByEveryFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	all := entries(60)
	all[7].Action, all[7].ResourceType, all[7].ProjectID = "policy.update", "policy", "other"
	r.append(t, all...)
	for name, tc := range map[string]struct {
		q    audit.Query
		want func(audit.Entry) bool
	}{
		"all":      {audit.Query{}, func(audit.Entry) bool { return true }},
		"user":     {audit.Query{UserID: "local:user3"}, func(e audit.Entry) bool { return e.UserID == "local:user3" }},
		"session":  {audit.Query{SessionID: "session4"}, func(e audit.Entry) bool { return e.SessionID == "session4" }},
		"action":   {audit.Query{Action: "policy.update"}, func(e audit.Entry) bool { return e.ID == all[7].ID }},
		"type":     {audit.Query{ResourceType: "policy"}, func(e audit.Entry) bool { return e.ID == all[7].ID }},
		"resource": {audit.Query{ResourceID: all[9].ResourceID}, func(e audit.Entry) bool { return e.ID == all[9].ID }},
		"project":  {audit.Query{ProjectID: "other"}, func(e audit.Entry) bool { return e.ID == all[7].ID }},
		"result":   {audit.Query{Result: audit.Denied}, func(e audit.Entry) bool { return e.Result == audit.Denied }},
		"since":    {audit.Query{Since: all[40].CreatedAt}, func(e audit.Entry) bool { return !e.CreatedAt.Before(all[40].CreatedAt) }},
		"until":    {audit.Query{Until: all[40].CreatedAt}, func(e audit.Entry) bool { return e.CreatedAt.Before(all[40].CreatedAt) }},
		"two": {audit.Query{UserID: "local:user3", Result: audit.Allowed}, func(e audit.Entry) bool {
			return e.UserID == "local:user3" && e.Result == audit.Allowed
		}},
		"nobody": {audit.Query{UserID: "nobody"}, func(audit.Entry) bool { return false }},
	} {
		var want, got []uuid.UUID
		for _, e := range all {
			if tc.want(e) {
				want = append([]uuid.UUID{e.ID}, want...)
			}
		}
		for before, more := uuid.Max, true; more; {
			var page []audit.Entry
			var err error
			if page, more, err = r.Search(t.Context(), tc.q, before, 7); err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				got, before = append(got, e.ID), e.ID
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: found %v; want %v", name, got, want)
		}
	}
}

func TestSizesOfTheLogAreConsistent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.Checkpoint(t.Context()); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("the checkpoint of nothing: %v", err)
	}
	young := entry(0)
	r.append(t, young)
	if _, err := r.Proof(t.Context(), audit.Query{}, young.ID); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("the proof of a young entry: %v", err)
	}
	r.seal(t, 1)
	before, err := r.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.append(t, entries(40)...)
	r.seal(t, 41)
	p, err := r.Consistency(t.Context(), before.Size, 0)
	if err != nil {
		t.Fatal(err)
	}
	now, err := audit.OpenCheckpoint(p.Checkpoint, r.verifier(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.CheckTree(p.Hashes, now.Size, now.Root, before.Size, before.Root); err != nil {
		t.Error(err)
	}
	for _, sizes := range [][2]int64{{0, 1}, {-1, 0}, {3, 2}, {1, 42}} {
		if _, err := r.Consistency(t.Context(), sizes[0], sizes[1]); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("from %d to %d: %v", sizes[0], sizes[1], err)
		}
	}
	if _, err := r.Proof(t.Context(), audit.Query{}, uuid.New()); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("the proof of an unknown entry: %v", err)
	}
}

func TestKeyIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys", "audit.key")
	key, err := audit.LoadOrCreateKey(path, "claw.example.com/audit")
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.LoadOrCreateKey(path, "ignored")
	if err != nil || again.Public() != key.Public() {
		t.Errorf("loaded %v, %v", again, err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.Contains(s, "PRIVATE") || !strings.Contains(s, "secret") {
		t.Errorf("printed as %s", s)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o666, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.LoadOrCreateKey(path, "x"); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), path) {
			t.Errorf("with mode %o: %v", mode, err)
		}
	}
	for name, content := range map[string]string{"empty": "", "garbage": "PRIVATE+KEY+x+y+z\n", "truncated": "PRIVATE+KEY+claw.example.com/audit+00"} {
		other := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.LoadOrCreateKey(other, "x"); fault.CodeOf(err) != fault.Invalid || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := audit.LoadOrCreateKey(filepath.Join(t.TempDir(), "k"), "two words"); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a name with a space: %v", err)
	}
}

func TestWitnessGetsCheckpointsOnceItIsUp(t *testing.T) {
	t.Parallel()
	got := make(chan string, 100)
	var down sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		up := true
		down.Do(func() { up = false })
		if !up {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil || q.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("the witness got %q, %v", q.Header, err)
		}
		got <- string(body)
	}))
	defer server.Close()
	key := newKey(t)
	pool := pgtest.DB(t)
	l := audit.New(pool, audit.Options{Key: key, WitnessURL: server.URL, Witness: server.Client()})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	l.Record(t.Context(), entry(1))
	select {
	case note := <-got:
		if !strings.HasPrefix(note, "claw.example.com/audit\n1\n") {
			t.Errorf("the witness got %q", note)
		}
	case <-time.After(30 * time.Second):
		t.Error("the witness got nothing")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := l.Stats(); s.PostFailures != 1 || s.Size != 1 {
		t.Errorf("the numbers are %+v", s)
	}
}
