package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/artifact"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// maxArtifact is the largest artifact of a test's server.
const maxArtifact = 24 << 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server on a socket, with a database of its own.
type rig struct {
	identity *identity.Service
	t        testing.TB
	url      string
	tasks    *task.Service
	webhooks *webhook.Service
	http     *httpapi.Server
	pool     *pgxpool.Pool
	log      *lockedBuffer
	audit    *audit.Log
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type options struct {
	access httpapi.Access
	ready  func(context.Context) error
	pool   *pgxpool.Pool
	bus    bus
}

type bus interface {
	Publish(...stream.Signal)
	Deliver(...stream.Signal)
	Subscribe(func(stream.Signal)) (cancel func())
}

var discard = slog.New(slog.DiscardHandler)

var anonymous = httpapi.Access{Anonymous: policy.Caller{UserID: "local", Roles: []policy.Role{policy.Admin}, AllProjects: true}}

func newRig(t testing.TB) *rig { return newRigWith(t, options{access: anonymous}) }

func newRigWith(t testing.TB, o options) *rig {
	t.Helper()
	if o.pool == nil {
		o.pool = pgtest.DB(t)
	}
	if o.ready == nil {
		o.ready = o.pool.Ping
	}
	r := &rig{t: t, pool: o.pool, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if o.bus == nil {
		o.bus = &stream.Memory{}
	}
	key, err := audit.LoadOrCreateKey(filepath.Join(t.TempDir(), "audit.key"), "test/audit")
	if err != nil {
		t.Fatal(err)
	}
	decisions := audit.New(o.pool, audit.Options{Logger: log, Key: key})
	r.audit = decisions
	agents := registry.New(o.pool, registry.Options{Runnable: func(registry.Agent) error { return nil }, Recorder: decisions, Bus: o.bus})
	server := httptest.NewUnstartedServer(nil)
	r.url = "http://" + server.Listener.Addr().String()
	r.identity, err = identity.New(o.pool, identity.Options{
		PublicURL: r.url, Policies: agents, Recorder: decisions, Bus: o.bus, Log: log, DefaultRoles: []policy.Role{policy.Developer},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.tasks = task.NewService(o.pool, task.Options{
		Agents: known{agents}, Access: agents, Submitters: r, Recorder: decisions, Bus: o.bus, Log: log,
		Contents: []task.Contents{artifact.NewChunks(o.pool)}, MaxArtifact: maxArtifact,
	})
	r.webhooks = webhook.NewService(o.pool, webhook.Options{Access: agents, Recorder: decisions, Bus: o.bus, Log: log, AllowPrivate: true})
	r.http, err = httpapi.New(httpapi.Options{
		Identity: r.identity, Policies: agents, Documents: agents, Recorder: decisions, Audit: decisions, PublicURL: r.url,
		Tasks: r.tasks, Workers: r.tasks, Artifacts: r.tasks, Limiter: r.tasks, Budgets: r.tasks, Webhooks: r.webhooks, Registry: agents, Bus: o.bus, Access: o.access, Hosts: []string{}, Ready: o.ready,
		Metrics: prometheus.NewRegistry(), Log: log, Version: "1.2.3", Mode: "local-only",
		Config: api.RuntimeConfig{Mode: "local-only", DefaultRoles: []string{"developer"}, PublicURL: r.url},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.http.Run(ctx) })
	server.Config.Handler = r.http
	server.Start()
	t.Cleanup(func() {
		r.http.EndStreams()
		http.DefaultClient.CloseIdleConnections()
		server.Close()
		cancel()
		running.Wait()
	})
	return r
}

// Submitter lets everybody's tasks run.
func (r *rig) Submitter(_ context.Context, userID, _, projectID string) (policy.Caller, error) {
	return policy.Caller{UserID: userID, DeviceID: "d", Trust: policy.Trusted, ProjectID: projectID, AllProjects: true, Roles: []policy.Role{policy.Developer}}, nil
}

// owner connects to the rig's database as the owner of its schema.
func (r *rig) owner(t testing.TB) *pgx.Conn {
	t.Helper()
	config := r.pool.Config().ConnConfig.Copy()
	delete(config.RuntimeParams, "role")
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

type known struct{ *registry.Registry }

func (k known) Runnable(ctx context.Context, id string) error {
	_, err := k.Agent(ctx, id)
	return err
}

// do sends a request and returns the answer with its body read.
func (r *rig) do(method, path, body string, headers ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(text)
}

// want sends a request and decodes the answer, which must have the status.
func want[T any](r *rig, status int, method, path, body string, headers ...string) (v T) {
	r.t.Helper()
	resp, text := r.do(method, path, body, headers...)
	if resp.StatusCode != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, path, resp.StatusCode, status, text)
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return v
}

// problem sends a request that must be refused, and checks the refusal's form.
func (r *rig) problem(status int, slug, method, path, body string, headers ...string) api.Problem {
	r.t.Helper()
	resp, text := r.do(method, path, body, headers...)
	var p api.Problem
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		r.t.Fatalf("%s %s: status %d: not a problem: %s", method, path, resp.StatusCode, text)
	}
	if resp.StatusCode != status || p.Type != "/problems/"+slug || p.Status != status || p.Title == "" || p.RequestID == "" {
		r.t.Errorf("%s %s: status %d, want %d %s: %s", method, path, resp.StatusCode, status, slug, text)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		r.t.Errorf("%s %s: a problem of type %q", method, path, ct)
	}
	return p
}

func (r *rig) submit(body string) api.Task {
	r.t.Helper()
	return want[api.Task](r, 201, "POST", "/v1/tasks", body)
}

func (r *rig) manual() api.Task {
	r.t.Helper()
	return r.submit(`{"description":"d","input":"i","dispatch":"manual"}`)
}

func TestTheSeedsLifecycleWorksOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	resp, text := r.do("POST", "/v1/tasks", `{"description":"Implement user authentication","input":"Add JWT-based auth to the API","agentId":"code-creator","dispatch":"manual","labels":{"team":"a"},"metadata":{"path":"."}}`)
	var created api.Task
	if err := json.Unmarshal([]byte(text), &created); err != nil || resp.StatusCode != 201 {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	path := "/v1/tasks/" + created.ID
	if resp.Header.Get("Location") != path {
		t.Errorf("Location is %q", resp.Header.Get("Location"))
	}
	for _, absent := range []string{"parentTaskId", "startedAt", "output", "null", "$schema"} {
		if strings.Contains(text, absent) {
			t.Errorf("a new task says %s: %s", absent, text)
		}
	}
	for _, patch := range []string{
		`{"status":"planning"}`, `{"status":"running"}`, `{"progress":25}`, `{"progress":100,"message":"nearly"}`,
		`{"output":"Authentication implemented successfully"}`, `{"status":"completed"}`,
	} {
		want[api.Task](r, 200, "PATCH", path, patch)
	}
	got := want[api.Task](r, 200, "GET", path, "")
	if got.Status != api.TaskCompleted || got.Progress != 100 || got.Output != "Authentication implemented successfully" || got.CompletedAt == nil {
		t.Errorf("got %+v", got)
	}
	r.problem(409, "invalid-transition", "PATCH", path, `{"status":"running"}`)
	r.problem(409, "invalid-transition", "POST", path+"/cancel", "")
	events := want[api.EventList](r, 200, "GET", path+"/events", "")
	if len(events.Items) != 7 || events.Items[6].Status != api.TaskCompleted || events.Items[4].Message != "nearly" || *events.Items[4].Progress != 100 {
		t.Errorf("events %+v", events.Items)
	}
	var paged []api.Event
	for cursor := "0"; cursor != ""; {
		page := want[api.EventList](r, 200, "GET", path+"/events?limit=2&cursor="+cursor, "")
		paged, cursor = append(paged, page.Items...), page.NextCursor
	}
	if len(paged) != 7 || paged[6].Seq != 7 {
		t.Errorf("paged events %+v", paged)
	}
}

func TestListsArePagedAndFiltered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 5 {
		r.submit(`{"description":"in","input":"","dispatch":"manual","labels":{"a":"1"},"sessionId":"s"}`)
	}
	r.submit(`{"description":"out","input":"","dispatch":"manual"}`)
	seen := map[string]bool{}
	pages := 0
	for cursor := ""; pages == 0 || cursor != ""; pages++ {
		page := want[api.TaskList](r, 200, "GET", "/v1/tasks?limit=2&status=pending,running&status=failed&label=a%3D1&sessionId=s&cursor="+cursor, "")
		for _, it := range page.Items {
			seen[it.ID] = true
		}
		cursor = page.NextCursor
	}
	if len(seen) != 5 || pages != 3 {
		t.Errorf("%d tasks on %d pages", len(seen), pages)
	}
	for _, query := range []string{"limit=0", "limit=501", "cursor=x", "status=lost", "label=x", "parentTaskId=1", "createdAfter=yesterday", "nonsense=1"} {
		r.problem(422, "invalid", "GET", "/v1/tasks?"+query, "")
	}
	if _, text := r.do("GET", "/v1/tasks?sessionId=nobody", ""); !strings.Contains(text, `"items":[]`) {
		t.Errorf("an empty list is %s", text)
	}
}

func TestTheSameKeyIsAnsweredTheSameOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := `{"description":"d","input":"i","dispatch":"manual","labels":{"x":"y"}}`
	first, one := r.do("POST", "/v1/tasks", body, "Idempotency-Key", "k1")
	id := strings.TrimPrefix(first.Header.Get("Location"), "/v1/tasks/")
	want[api.Task](r, 200, "POST", "/v1/tasks/"+id+"/cancel", "")
	second, two := r.do("POST", "/v1/tasks", ` {"input":"i","description":"d","labels":{"x":"y"},"dispatch":"manual"}`, "Idempotency-Key", "k1")
	if first.StatusCode != 201 || second.StatusCode != 201 || one != two {
		t.Errorf("%d %s\n%d %s", first.StatusCode, one, second.StatusCode, two)
	}
	r.problem(422, "idempotency-key-reused", "POST", "/v1/tasks", `{"description":"other","input":"i"}`, "Idempotency-Key", "k1")
}

func TestHostileBodiesAreRefusedAndNeverAFault(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	for name, c := range map[string]struct {
		status int
		slug   string
		body   string
		field  string
	}{
		"nothing":           {400, "bad-request", ``, ""},
		"not JSON":          {400, "bad-request", `{"description":`, "body"},
		"trailing data":     {400, "bad-request", `{"description":"d","input":"i"} x`, "body"},
		"an array":          {422, "invalid", `[]`, "body"},
		"null":              {422, "invalid", `null`, "body"},
		"unknown field":     {422, "invalid", `{"description":"d","input":"i","extra":1}`, "body.extra"},
		"wrong type":        {422, "invalid", `{"description":7,"input":"i"}`, "body.description"},
		"missing field":     {422, "invalid", `{"description":"d"}`, "body"},
		"empty description": {422, "invalid", `{"description":"","input":"i"}`, "body.description"},
		"long description":  {422, "invalid", `{"description":"` + strings.Repeat("x", 2001) + `","input":"i"}`, "body.description"},
		"long input":        {422, "invalid", `{"description":"d","input":"` + strings.Repeat("é", 200<<10) + `"}`, "body.input"},
		"huge body":         {413, "too-large", `{"description":"d","input":"` + strings.Repeat("x", 1<<20) + `"}`, ""},
		"U+0000 escaped":    {400, "bad-request", `{"description":"a\u0000b","input":"i"}`, "body"},
		"U+0000 in meta":    {400, "bad-request", `{"description":"d","input":"i","metadata":{"a":"\u0000"}}`, "body"},
		"broken UTF-8":      {400, "bad-request", "{\"description\":\"\xff\",\"input\":\"i\"}", "body"},
		"deep JSON":         {400, "bad-request", `{"description":"d","input":"i","metadata":{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}}`, "body"},
		"metadata array":    {422, "invalid", `{"description":"d","input":"i","metadata":[1]}`, "body.metadata"},
		"label not text":    {422, "invalid", `{"description":"d","input":"i","labels":{"a":1}}`, "body.labels.a"},
		"priority float":    {422, "invalid", `{"description":"d","input":"i","priority":1.5}`, "body.priority"},
		"priority huge":     {422, "invalid", `{"description":"d","input":"i","priority":1e300}`, "body.priority"},
		"bad parent":        {422, "invalid", `{"description":"d","input":"i","parentTaskId":"x"}`, "body.parentTaskId"},
		"bad time":          {422, "invalid", `{"description":"d","input":"i","runAfter":"soon"}`, "body.runAfter"},
		"year 10000":        {422, "invalid", `{"description":"d","input":"i","runAfter":"10000-01-01T00:00:00Z"}`, "body.runAfter"},
		"unknown agent":     {422, "invalid", `{"description":"d","input":"i","agentId":"nobody"}`, "body.agentId"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, url: r.url}
			p := r.problem(c.status, c.slug, "POST", "/v1/tasks", c.body)
			if c.field != "" && (len(p.Errors) == 0 || p.Errors[0].Location != c.field) {
				t.Errorf("the fault is at %+v, want %s", p.Errors, c.field)
			}
		})
	}
	r.problem(415, "unsupported-media-type", "POST", "/v1/tasks", `<a/>`, "Content-Type", "application/xml")
	r.problem(422, "invalid", "PATCH", "/v1/tasks/"+id, `{}`)
	r.problem(422, "invalid", "PATCH", "/v1/tasks/"+id, `{"status":"pending"}`)
	r.problem(422, "invalid", "PATCH", "/v1/tasks/"+id, `{"status":"flying"}`)
	r.problem(422, "invalid", "PATCH", "/v1/tasks/"+id, `{"progress":"NaN"}`)
	r.problem(422, "invalid", "GET", "/v1/tasks/nonsense", "")
	r.problem(404, "not-found", "GET", "/v1/tasks/0190b8a1-0000-7000-8000-000000000000", "")
	r.problem(400, "bad-request", "GET", "/v1/tasks?q=%00", "")
	r.problem(400, "bad-request", "GET", "/v1/tasks?q=%ff", "")
	r.problem(400, "bad-request", "GET", "/v1/agents/%00", "")
	r.problem(404, "not-found", "GET", "/v1/nothing", "")
	r.problem(405, "method-not-allowed", "DELETE", "/v1/tasks", "")
	if counts, err := r.tasks.Count(t.Context()); err != nil || counts.Total() != 1 {
		t.Errorf("refused tasks were kept: %v %v", counts, err)
	}
	if log := r.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors: %s", log)
	}
}

func TestALargeBatchIsAcceptedAndAnOversizedOneNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one := `{"description":"d","input":"i","dispatch":"manual"}`
	batch := want[api.TaskBatch](r, 201, "POST", "/v1/tasks/batch", `{"tasks":[`+strings.Repeat(one+",", 999)+one+`]}`)
	if len(batch.Items) != 1000 {
		t.Errorf("%d tasks", len(batch.Items))
	}
	p := r.problem(422, "invalid", "POST", "/v1/tasks/batch", `{"tasks":[`+strings.Repeat(one+",", 1000)+one+`]}`)
	if p.Errors[0].Location != "body.tasks" {
		t.Errorf("the fault is at %+v", p.Errors)
	}
	p = r.problem(422, "invalid", "POST", "/v1/tasks/batch", `{"tasks":[`+one+`,{"description":"","input":""}]}`)
	if p.Errors[0].Location != "body.tasks[1].description" {
		t.Errorf("the fault is at %+v", p.Errors)
	}
	p = r.problem(422, "invalid", "POST", "/v1/tasks/batch", `{"tasks":[{"description":"d","input":"i","agentId":"nobody"}]}`)
	if p.Errors[0].Location != "body.tasks[0].agentId" {
		t.Errorf("the fault is at %+v", p.Errors)
	}
}

func TestFaultsOfTheDatabaseAreNotShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := r.owner(t).Exec(t.Context(), `ALTER TABLE tasks RENAME COLUMN description TO secret_column`); err != nil {
		t.Fatal(err)
	}
	p := r.problem(500, "internal", "POST", "/v1/tasks", `{"description":"d","input":"i","dispatch":"manual"}`)
	if strings.Contains(p.Detail, "column") || len(p.Errors) != 0 {
		t.Errorf("the answer tells of the database: %+v", p)
	}
	if log := r.log.String(); !strings.Contains(log, "secret_column") && !strings.Contains(log, "description") {
		t.Errorf("the log does not tell why: %s", log)
	}
}

func TestWithoutADatabaseTheAnswerIs503(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := newRigWith(t, options{access: anonymous, pool: pool})
	r.manual()
	pool.Close()
	r.problem(503, "unavailable", "GET", "/readyz", "")
	if resp, _ := r.do("GET", "/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("healthz is %d", resp.StatusCode)
	}
	if st := want[api.Status](r, 200, "GET", "/v1/status", ""); st.Healthy {
		t.Error("the status says healthy")
	}
}

func TestAccessNeedsTheTokenWhereOneIsRequired(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, options{access: httpapi.Access{Token: "correct horse battery"}})
	for _, headers := range [][]string{nil, {"Authorization", "Bearer wrong"}, {"Authorization", "Basic correct horse battery"}, {"Authorization", "Bearer"}} {
		r.problem(401, "unauthenticated", "GET", "/v1/tasks", "", headers...)
	}
	// The credential is looked at before the body.
	r.problem(401, "unauthenticated", "POST", "/v1/tasks", `{"nonsense":true}`)
	if resp, _ := r.do("GET", "/v1/tasks", ""); !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
	}
	me := want[api.Me](r, 200, "GET", "/v1/me", "", "Authorization", "bearer correct horse battery")
	if me.UserID != "operator" || len(me.Permissions) != len(policy.Permissions) {
		t.Errorf("me is %+v", me)
	}
	for _, open := range []string{"/healthz", "/readyz", "/v1/status", "/metrics", "/openapi.yaml", "/openapi-3.0.json", "/docs/"} {
		if resp, text := r.do("GET", open, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", open, resp.StatusCode, text)
		}
	}
}

func TestRolesWithoutThePermissionGetTheReason(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, options{access: httpapi.Access{Anonymous: policy.Caller{UserID: "local", Roles: []policy.Role{policy.ReadOnly}}}})
	p := r.problem(403, "forbidden", "POST", "/v1/tasks", `{"nonsense":true}`)
	if !strings.Contains(p.Detail, "task:submit") || !strings.Contains(p.Detail, "readonly") {
		t.Errorf("the reason is %q", p.Detail)
	}
	want[api.TaskList](r, 200, "GET", "/v1/tasks", "")
}

func TestALoopbackServerServesNoOtherSitesPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	host := strings.TrimPrefix(r.url, "http://")
	for name, headers := range map[string][]string{
		"rebound name":       {"Host", "evil.example"},
		"name with a prefix": {"Host", "127.0.0.1.evil.example:7433"},
		"foreign origin":     {"Origin", "http://evil.example"},
		"null origin":        {"Origin", "null"},
		"other port":         {"Origin", "http://127.0.0.1:1"},
		"cross-site stream":  {"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"},
		"cross-site post":    {"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Origin", "null"},
	} {
		if resp, text := r.do("GET", "/v1/tasks", "", headers...); resp.StatusCode != 403 {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
	for name, headers := range map[string][]string{
		"curl": nil, "own page": {"Origin", r.url, "Sec-Fetch-Site", "same-origin"},
		"by name": {"Host", "localhost:7433"}, "by IPv6": {"Host", "[::1]:7433"}, "followed link": {"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"},
		"own host": {"Host", host},
	} {
		if resp, text := r.do("GET", "/v1/tasks", "", headers...); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
}

func TestAgentsCanBeDefinedHiddenAndDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	agents := want[api.AgentList](r, 200, "GET", "/v1/agents", "")
	if len(agents.Items) != 10 {
		t.Errorf("%d built-in agents", len(agents.Items))
	}
	body := `{"description":"mine","executor":"process","process":{"command":["echo","{{input}}"],"input":"none"}}`
	if got := want[api.Agent](r, 201, "PUT", "/v1/agents/mine", body); got.Source != api.SourceAPI || got.Process.Command[0] != "echo" {
		t.Errorf("got %+v", got)
	}
	want[api.Agent](r, 200, "PUT", "/v1/agents/mine", body)
	r.problem(422, "invalid", "PUT", "/v1/agents/mine", `{"description":"mine","executor":"process"}`)
	want[struct{}](r, 204, "DELETE", "/v1/agents/mine", "")
	r.problem(404, "not-found", "GET", "/v1/agents/mine", "")
	r.problem(409, "conflict", "DELETE", "/v1/agents/code-creator", "")
	if skills := want[api.SkillList](r, 200, "GET", "/v1/skills", ""); len(skills.Items) == 0 {
		t.Error("there are no skills")
	}
}

// work makes a worker of the server's own known.
func (r *rig) work(id string) {
	r.t.Helper()
	if err := r.tasks.RegisterWorker(r.t.Context(), task.InProcess, task.NewWorker{ID: id, Instance: uuid.New(), Capacity: 10}); err != nil {
		r.t.Fatal(err)
	}
}

func TestInvokeAnswersWithTheFinishedTask(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.work("w")
	go func() {
		leases, _, err := r.tasks.Claim(context.Background(), task.InProcess, "w", 1, maxTestWait)
		if err != nil || len(leases) != 1 {
			t.Errorf("claim: %v %v", leases, err)
			return
		}
		for _, rep := range []task.Report{{Status: task.Running}, {Status: task.Completed, Output: &leases[0].AgentID}} {
			if err := r.tasks.Report(context.Background(), task.InProcess, leases[0].ID, leases[0].LeaseToken, rep); err != nil {
				t.Error(err)
			}
		}
	}()
	got := want[api.Task](r, 200, "POST", "/v1/agents/code-reviewer/invoke?wait=30s", `{"description":"d","input":"i"}`)
	if got.Status != api.TaskCompleted || got.Output != "code-reviewer" {
		t.Errorf("got %+v", got)
	}
	if got = want[api.Task](r, 201, "POST", "/v1/agents/code-reviewer/invoke", `{"description":"d","input":"i"}`); got.Status != api.TaskPending {
		t.Errorf("got %+v", got)
	}
	r.problem(404, "not-found", "POST", "/v1/agents/nobody/invoke", `{"description":"d","input":"i"}`)
	r.problem(422, "invalid", "POST", "/v1/agents/code-reviewer/invoke?wait=2h", `{"description":"d","input":"i"}`)
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, options{access: anonymous, ready: func(context.Context) error { panic("ouch") }})
	r.problem(500, "internal", "GET", "/readyz", "")
	if log := r.log.String(); !strings.Contains(log, "ouch") {
		t.Errorf("the log says %s", log)
	}
}

// maxTestWait is longer than anything here takes.
const maxTestWait = time.Minute
