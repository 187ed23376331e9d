package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

const (
	operatorToken   = "the-operators-token-of-this-test"
	strangersSecret = "correct horse battery staple"
)

// exposed is a server that wants credentials, on a database that faults befall.
type exposed struct {
	*installation
	t       *testing.T
	options embedded.Options
	cluster *embedded.Cluster
	session string
	task    api.Task // a manual one, which is running
}

func expose(t *testing.T, dir string) *exposed {
	t.Helper()
	x := &exposed{t: t, options: embedded.Options{
		Dir: dir, BinDir: os.Getenv("CODERCLAW_POSTGRES_BIN"), Settings: map[string]string{"fsync": "off", "min_wal_size": "32MB", "max_wal_size": "64MB"},
	}}
	x.startDatabase()
	t.Cleanup(func() { x.stopDatabase() })
	x.installation = newInstallation(t, "CODERCLAW_DATABASE_URL="+x.cluster.URL(embedded.Database), "CODERCLAW_TOKEN="+operatorToken)
	x.config("runtime.yaml", "security:\n  requireAuth: true\n")
	x.serving("serve")
	x.created("POST", "/v1/users", operatorToken, `{"login":"ann","password":"`+strangersSecret+`"}`, nil)
	x.created("POST", "/v1/users", operatorToken, `{"login":"bob","password":"`+strangersSecret+`"}`, nil)
	x.created("POST", "/v1/role-bindings", operatorToken, `{"userId":"local:ann","role":"admin"}`, nil)
	var opened api.OpenedSession
	x.created("POST", "/v1/sessions", "", `{"login":"ann","password":"`+strangersSecret+`"}`, &opened)
	x.session = opened.AccessToken
	x.created("POST", "/v1/tasks", x.session, `{"description":"there before","input":"i","dispatch":"manual"}`, &x.task)
	return x
}

func (x *exposed) startDatabase() {
	x.t.Helper()
	var err error
	if x.cluster, err = embedded.Start(patient(x.t), x.options); err != nil {
		x.t.Fatal(err)
	}
}

func (x *exposed) stopDatabase() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := x.cluster.Stop(ctx); err != nil {
		x.t.Error(err)
	}
}

// do sends a request and returns the answer's status, type and body.
func (x *exposed) do(method, path, token, body string) (status int, kind string, answer []byte) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(patient(x.t), method, "http://"+x.address+path, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer
}

func (x *exposed) created(method, path, token, body string, out any) {
	x.t.Helper()
	status, _, answer := x.do(method, path, token, body)
	if status != http.StatusCreated {
		x.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			x.t.Fatal(err)
		}
	}
}

// owner runs a statement as the database's owner, whatever befell the others.
func (x *exposed) owner(sql string) {
	x.t.Helper()
	conn := x.connect()
	defer conn.Close(context.Background())
	if _, err := conn.Exec(patient(x.t), sql); err != nil {
		x.t.Fatal(err)
	}
}

func (x *exposed) connect() *pgx.Conn {
	x.t.Helper()
	config, err := pgx.ParseConfig(x.cluster.URL(embedded.Database))
	if err != nil {
		x.t.Fatal(err)
	}
	config.RuntimeParams["default_transaction_read_only"] = "off"
	conn, err := pgx.ConnectConfig(patient(x.t), config)
	if err != nil {
		x.t.Fatal(err)
	}
	return conn
}

// contents is all that the database holds but the audit log and what only says
// when something was seen.
func (x *exposed) contents() string {
	x.t.Helper()
	conn := x.connect()
	defer conn.Close(context.Background())
	rows, err := conn.Query(patient(x.t), `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			AND c.relname NOT LIKE 'audit%' AND c.relname <> 'workers' ORDER BY 1`)
	if err != nil {
		x.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		x.t.Fatal(tables, err)
	}
	var all strings.Builder
	for _, table := range tables {
		var text string
		if err := conn.QueryRow(patient(x.t), `SELECT coalesce(string_agg(row, E'\n' ORDER BY row), '')
			FROM (SELECT (to_jsonb(t) - '{last_seen_at,last_used_at,last_login_at}'::text[])::text AS row FROM `+pgx.Identifier{table}.Sanitize()+` t) rows`).Scan(&text); err != nil {
			x.t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s:\n%s\n", table, text)
	}
	return all.String()
}

// refusesAll tries everything that would change something.
func (x *exposed) refusesAll(problems ...string) {
	x.t.Helper()
	for _, m := range []struct{ method, path, body string }{
		{"POST", "/v1/tasks", `{"description":"d","input":"i","dispatch":"manual"}`},
		{"POST", "/v1/tasks/batch", `{"tasks":[{"description":"d","input":"i","dispatch":"manual"},{"description":"e","input":"i","dispatch":"manual"}]}`},
		{"PATCH", "/v1/tasks/" + x.task.ID, `{"status":"planning"}`},
		{"POST", "/v1/tasks/" + x.task.ID + "/cancel", ""},
		{"POST", "/v1/agents/architecture-advisor/invoke", `{"description":"d","input":"i","dispatch":"manual"}`},
		{"PUT", "/v1/agents/mine", `{"name":"mine","description":"mine","executor":"process","process":{"command":["true"]}}`},
		{"PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`},
		{"POST", "/v1/sessions", `{"login":"ann","password":"` + strangersSecret + `"}`},
		{"DELETE", "/v1/sessions/current", ""},
		{"POST", "/v1/users", `{"login":"eve","password":"` + strangersSecret + `"}`},
		{"DELETE", "/v1/users/local:bob", ""},
		{"POST", "/v1/role-bindings", `{"userId":"local:eve","role":"admin"}`},
		{"POST", "/v1/api-keys", `{"name":"k","expiresSeconds":3600,"personal":true}`},
		{"POST", "/v1/devices/enrolment-codes", `{}`},
		{"PUT", "/v1/sessions/current/memory/k", `{"value":1}`},
	} {
		token := x.session
		if m.path == "/v1/sessions" {
			token = ""
		}
		status, kind, answer := x.do(m.method, m.path, token, m.body)
		var p api.Problem
		if err := json.Unmarshal(answer, &p); status != http.StatusServiceUnavailable || err != nil || kind != "application/problem+json" {
			x.t.Errorf("%s %s: %d %s %s, want a problem with status 503", m.method, m.path, status, kind, answer)
			continue
		}
		if len(problems) > 0 && !strings.Contains(strings.Join(problems, " "), strings.TrimPrefix(p.Type, "/problems/")) {
			x.t.Errorf("%s %s: problem %s, want %v", m.method, m.path, p.Type, problems)
		}
		if strings.Contains(string(answer), "SQLSTATE") || strings.Contains(string(answer), "postgres") {
			x.t.Errorf("%s %s tells of the inside: %s", m.method, m.path, answer)
		}
	}
}

// recovered waits until the server takes tasks again, which it does by itself.
func (x *exposed) recovered() {
	x.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		status, _, answer := x.do("POST", "/v1/tasks", x.session, `{"description":"after","input":"i","dispatch":"manual"}`)
		if status == http.StatusCreated {
			return
		}
		if status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			x.t.Fatalf("the server does not recover: %d %s", status, answer)
		}
		select {
		case <-x.t.Context().Done():
			x.t.FailNow()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestNothingChangesWhereItCannotBeWrittenOrAudited(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "claw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	x := expose(t, dir)
	for _, fault := range []struct {
		name         string
		befall, mend func()
		problems     []string
	}{
		{name: "the audit log refuses entries",
			befall:   func() { x.owner(`REVOKE INSERT ON audit_entries FROM coderclaw_app`) },
			mend:     func() { x.owner(`GRANT INSERT ON audit_entries TO coderclaw_app`) },
			problems: []string{"audit-unavailable"}},
		{name: "the database is read-only",
			befall: func() {
				x.owner(`ALTER SYSTEM SET default_transaction_read_only = on`)
				x.owner(`SELECT pg_reload_conf()`)
				x.owner(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
			},
			mend: func() {
				x.owner(`ALTER SYSTEM RESET default_transaction_read_only`)
				x.owner(`SELECT pg_reload_conf()`)
				x.owner(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
			},
			problems: []string{"unavailable", "audit-unavailable"}},
		{name: "the database is gone",
			befall: x.stopDatabase, mend: x.startDatabase, problems: []string{"unavailable"}},
	} {
		before := x.contents()
		fault.befall()
		t.Logf("while %s", fault.name)
		x.refusesAll(fault.problems...)
		fault.mend()
		if after := x.contents(); after != before {
			t.Errorf("while %s something has changed:\n%s\nand before:\n%s", fault.name, after, before)
		}
		x.recovered()
	}
}

func TestAFullDiskLosesNothingAndLetsNothingPassUnaudited(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "claw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=320m,mode=0711"); err != nil {
		t.Skipf("only root can make a disk that gets full: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	x := expose(t, dir)
	ballast := filepath.Join(dir, "ballast")
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	free := int64(disk.Bavail) * disk.Bsize
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, int(free-4<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, refused := 0, 0
	body := `{"description":"much","dispatch":"manual","input":"` + strings.Repeat("0123456789abcdef", 16<<10) + `"}`
	for refused < 5 && taken < 1000 {
		switch status, kind, answer := x.do("POST", "/v1/tasks", x.session, body); {
		case status == http.StatusCreated:
			taken++
		case status == http.StatusServiceUnavailable && kind == "application/problem+json":
			refused++
		default:
			t.Fatalf("%d %s %.300s", status, kind, answer)
		}
	}
	if refused == 0 {
		t.Fatal("the disk did not get full")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	x.recovered()
	conn := x.connect()
	defer conn.Close(context.Background())
	var tasks, events, entries int
	if err := conn.QueryRow(patient(t), `SELECT
		(SELECT count(*) FROM tasks WHERE description = 'much'),
		(SELECT count(*) FROM task_events e JOIN tasks t ON t.id = e.task_id WHERE t.description = 'much'),
		(SELECT count(*) FROM audit_entries a JOIN tasks t ON t.id::text = a.resource_id WHERE t.description = 'much' AND a.action = 'task.submit')`).
		Scan(&tasks, &events, &entries); err != nil {
		t.Fatal(err)
	}
	// What was answered with 503 may have been committed after all.
	if tasks < taken || tasks > taken+refused || events != tasks || entries != tasks {
		t.Errorf("%d were acknowledged and %d refused: there are %d tasks, %d events, %d audit entries", taken, refused, tasks, events, entries)
	}
}
