package app_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// run runs a command of the server to its end.
func (in *installation) run(args ...string) (output string, code int) {
	in.t.Helper()
	return in.runWith(nil, args...)
}

// runWith is run with a standard input.
func (in *installation) runWith(stdin io.Reader, args ...string) (output string, code int) {
	in.t.Helper()
	path, err := build()
	if err != nil {
		in.t.Fatal(err)
	}
	cmd := exec.CommandContext(patient(in.t), path, args...)
	cmd.Env = in.env
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		in.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// sealed waits until the checkpoint file tells of so many entries.
func (in *installation) sealed(file string, entries int) {
	in.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		text, err := os.ReadFile(file)
		if err == nil {
			for checkpoint := range strings.SplitSeq(string(text), "\n\n") {
				// Origin, size and root stand in lines of their own.
				if lines := strings.Split(strings.TrimSpace(checkpoint), "\n"); len(lines) > 2 {
					if size, err := strconv.Atoi(lines[1]); err == nil && size >= entries {
						return
					}
				}
			}
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("nothing is sealed: %s, %v", text, err)
		}
		select {
		case <-in.t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// shows waits until /metrics says all that of the server: what is counted
// after something has happened comes after it.
func (in *installation) shows(wants ...string) {
	in.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		req, err := http.NewRequestWithContext(in.t.Context(), http.MethodGet, "http://"+in.address+"/metrics", nil)
		if err != nil {
			in.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			in.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			in.t.Fatal(err)
		}
		missing := slices.DeleteFunc(slices.Clone(wants), func(want string) bool {
			return strings.Contains(string(text), "\ncoderclaw_"+want+"\n")
		})
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("/metrics does not say: %v", missing)
		}
		select {
		case <-in.t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestAuditVerifyFindsWhatWasChangedBehindTheServersBack(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	url := pgtest.EmptyURL(t)
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+url)
	checkpoints := filepath.Join(in.home, "data", "audit", "checkpoints")
	server := in.serving("serve")
	owner, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	var size int
	var checkpoint string // while the log was shorter
	for n := range 3 {
		if _, err := in.client().SubmitTask(ctx, api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual}); err != nil {
			t.Fatal(err)
		}
		in.sealed(checkpoints, n+1)
		if n == 0 {
			if err := owner.QueryRow(ctx, `SELECT size, checkpoint FROM audit_seal`).Scan(&size, &checkpoint); err != nil {
				t.Fatal(err)
			}
		}
	}
	in.shows(
		"audit_entries 3", "audit_sealed_total 3", "audit_checkpoint_file_entries 3", "audit_checkpoint_file_failures_total 0", "audit_witness_entries 0", "audit_witness_failures_total 0",
		"audit_recorded_total 0", "audit_lost_total 0", "audit_held_back_total 0", "audit_seal_failures_total 0", "audit_unsealed_age_seconds 0", "audit_tampered 0",
	)
	if err := server.stop(t, os.Interrupt); err != nil {
		t.Fatal(err)
	}

	verify := func(wantCode int, want string, args ...string) {
		t.Helper()
		out, code := in.run(append([]string{"audit", "verify"}, args...)...)
		if code != wantCode || !strings.Contains(out, want) {
			t.Errorf("audit verify %v: exit code %d, want %d and %q:\n%s", args, code, wantCode, want, out)
		}
	}
	verify(0, "is what was sealed", "--checkpoint", checkpoints)
	verify(0, "it does not show whether the end was cut off")
	verify(1, "no such file", "--checkpoint", checkpoints+".not")
	verify(1, "there is no checkpoint", "--checkpoint", os.DevNull)
	copied, err := os.Open(checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if out, code := in.runWith(copied, "audit", "verify", "--checkpoint", "-"); code != 0 || !strings.Contains(out, "compared with 3 checkpoints") {
		t.Errorf("audit verify < checkpoints: exit code %d\n%s", code, out)
	}
	verify(1, "is not a public key", "--key", "mine")

	tamper := func(sql string, args ...any) {
		t.Helper()
		if _, err := owner.Exec(ctx, `SET session_replication_role = replica`); err != nil { // past the triggers
			t.Fatal(err)
		}
		if _, err := owner.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	tamper(`CREATE TEMP TABLE before AS SELECT * FROM audit_entries`)
	var last string
	if err := owner.QueryRow(ctx, `SELECT entry_id::text FROM audit_leaves WHERE seq = 2`).Scan(&last); err != nil {
		t.Fatal(err)
	}
	tamper(`UPDATE audit_entries SET user_id = 'local:eve' WHERE id = $1`, last)
	verify(1, "changed at 2 (entry "+last+")", "--checkpoint", checkpoints)
	tamper(`UPDATE audit_entries e SET user_id = b.user_id FROM before b WHERE b.id = e.id`)
	verify(0, "is what was sealed", "--checkpoint", checkpoints)

	// Set everything in the database back to what it was when the log was
	// shorter: only what was kept elsewhere tells.
	tamper(`DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_leaves WHERE seq >= $1)`, size)
	tamper(`DELETE FROM audit_leaves WHERE seq >= $1`, size)
	tamper(`UPDATE audit_seal SET size = $1, checkpoint = $2`, size, checkpoint)
	verify(0, "it does not show whether the end was cut off")
	verify(1, "truncated", "--checkpoint", checkpoints)
}

func TestAuditVerifyReadsAPrivateDatabaseWhetherItRunsOrNot(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	verify := func(when string, wantCode int, want string, args ...string) {
		t.Helper()
		if out, code := in.run(append([]string{"audit", "verify"}, args...)...); code != wantCode || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", when, code, wantCode, want, out)
		}
	}
	checkpoints := filepath.Join(in.home, "data", "audit", "checkpoints")
	verify("before there is a key", 1, "--key")
	verify("before there is a database", 1, "there is no database", "--key", "k")
	if made, err := filepath.Glob(filepath.Join(in.home, "data", "*")); err != nil || made != nil {
		t.Errorf("looking for a database made %v, %v", made, err)
	}
	server := in.serving("dev")
	if _, err := in.client().SubmitTask(patient(t), api.NewTask{Description: "d", Dispatch: api.DispatchManual}); err != nil {
		t.Fatal(err)
	}
	in.sealed(checkpoints, 1)
	verify("beside the server", 0, "1 entries sealed", "--checkpoint", checkpoints)
	verify("as JSON", 0, `"covered":1`, "--checkpoint", checkpoints, "--json")
	if err := server.stop(t, os.Interrupt); err != nil {
		t.Fatal(err)
	}
	verify("after the server", 0, "1 entries sealed", "--checkpoint", checkpoints)
}

func TestRetentionDropsOldMonthsButNoEvidence(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	url := pgtest.EmptyURL(t)
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+url)
	checkpoints := filepath.Join(in.home, "data", "audit", "checkpoints")
	server := in.serving("serve")
	owner, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	months := []time.Time{time.Date(2024, 5, 10, 0, 0, 0, 0, time.UTC), time.Date(2024, 6, 10, 0, 0, 0, 0, time.UTC)}
	for _, month := range months {
		err := pgx.BeginFunc(ctx, owner, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT add_audit_partition($1)`, month); err != nil {
				return err
			}
			return audit.Append(ctx, tx, writtenAt(month))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	submit := func() { // whose entry has those before it sealed at once
		t.Helper()
		if _, err := in.client().SubmitTask(ctx, api.NewTask{Description: "d", Dispatch: api.DispatchManual}); err != nil {
			t.Fatal(err)
		}
	}
	submit()
	in.sealed(checkpoints, 3)
	if err := server.stop(t, os.Interrupt); err != nil {
		t.Fatal(err)
	}

	in.env = append(in.env, "CODERCLAW_AUDIT_RETENTION_DAYS=365")
	setReason := func(reason string) {
		t.Helper()
		_, err := owner.Exec(ctx, `SET session_replication_role = replica`) // past the triggers
		if err == nil {
			_, err = owner.Exec(ctx, `UPDATE audit_entries SET reason = $1 WHERE id < audit_first_id('2024-07-01') AND id >= audit_first_id('2024-06-01')`, reason)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setReason("another")
	server = in.serving("serve")
	in.sealed(checkpoints, 4) // one entry says that May is gone
	out, code := in.run("audit", "verify", "--checkpoint", checkpoints)
	if code != 1 || !strings.Contains(out, "2024-05: 1 entries were dropped by system") || !strings.Contains(out, "changed at 1") || strings.Contains(out, "2024-06") {
		t.Errorf("audit verify: exit code %d\n%s", code, out)
	}
	if err := server.stop(t, os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(server.log.String(), "keeps a month whose time is over") {
		t.Errorf("the server does not say that June stays:\n%s", server.log)
	}

	setReason("")
	in.serving("serve")
	in.sealed(checkpoints, 5)
	out, code = in.run("audit", "verify", "--checkpoint", checkpoints)
	if code != 0 || !strings.Contains(out, "2024-06: 1 entries were dropped by system") {
		t.Errorf("audit verify after the repair: exit code %d\n%s", code, out)
	}
}

// writtenAt is an entry as it was written at a time.
func writtenAt(at time.Time) audit.Entry {
	e := audit.NewEntry(policy.Caller{UserID: "local:alice"}, "task.submit", "task", "", policy.Decision{Allowed: true})
	e.CreatedAt = at
	for i := range 6 { // a UUIDv7 begins with its time in ms
		e.ID[i] = byte(at.UnixMilli() >> (40 - 8*i))
	}
	return e
}
