package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// rolePermissions are those of the built-in roles, as users are told.
var rolePermissions = map[string][]string{
	"admin":     {"task:submit", "task:read", "task:cancel", "agent:invoke", "skill:execute", "config:read", "config:write", "admin:all"},
	"developer": {"task:submit", "task:read", "task:cancel", "agent:invoke", "skill:execute"},
	"readonly":  {"task:read", "config:read"},
	"ci":        {"task:submit", "task:read", "agent:invoke"},
}

// public are the operations that need no credential: to log in, to see whether
// the server is there, and to check what it signs.
var public = []string{
	"beginLogin", "finishLogin", "getKeySet", "getStatus", "listLoginProviders", "openSession", "refreshSession", "returnFromLogin",
}

// whateverDevice are those for every principal from any device: to see where one
// stands, to have the device trusted, and to give up what one has.
var whateverDevice = []string{
	"checkPermission", "createDeviceChallenge", "enrollDevice", "getDevice", "getMe", "getSession", "listAPIKeys", "listDevices", "listSessions",
	"revokeAPIKey", "revokeDevice", "revokeSession", "updateDevice", "verifyDevice",
}

// alsoForWorkers are those that a worker's key opens besides work itself.
var alsoForWorkers = []string{"getAgent", "listAgents", "putArtifact", "updateTask"}

// forAgents are those that the token of a leased task's agent opens, of that
// task.
var forAgents = []string{"askQuestion", "getQuestion", "getTask", "reportTask", "reportUsage"}

// sample is how the matrix calls an operation, and what comes of it for those
// who hold its permission.
type sample struct {
	of    string // what {id} is the id of; "": it is not of a project or a user
	query string
	body  string                                        // may hold {project}
	write func(w *world, who *person, id string) string // makes the body
	needs func(p *person) bool                          // what it takes besides the permission
	other int                                           // for what is another project's; default 404
	want  int                                           // default 200
}

// unconfined is for what concerns the whole server.
func unconfined(p *person) bool { return p.project == "" }

var samples = map[string]sample{
	"submitTask":       {body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"submitTasks":      {body: `{"tasks":[{"description":"d","input":"i","dispatch":"manual"}]}`, want: 201},
	"listTasks":        {},
	"getTask":          {of: "task"},
	"updateTask":       {of: "own task", body: `{"message":"m"}`},
	"cancelTask":       {of: "task"},
	"listTaskEvents":   {of: "task"},
	"streamTask":       {of: "task"},
	"streamTasks":      {},
	"answerTask":       {of: "waiting task", body: `{"input":"x"}`},
	"listApprovals":    {},
	"retryTask":        {of: "cancelled task", want: 201},
	"getTaskTree":      {of: "task"},
	"cancelTasks":      {query: "?q=no-such-task"},
	"askQuestion":      {of: "task", body: `{"id":"0190b8a1-0000-4000-8000-000000000001","kind":"input","text":"t"}`, want: 422}, // without a lease
	"getQuestion":      {of: "task", want: 422},
	"authorizeSkill":   {of: "task", body: `{"questionId":"0190b8a1-0000-4000-8000-000000000001"}`, want: 422},
	"answerQuestion":   {of: "question", body: `{"approve":true}`},
	"listGrants":       {},
	"revokeGrant":      {of: "grant", want: 204},
	"listTaskAttempts": {of: "task"},

	"createSchedule":  {body: `{"name":"n","intervalSeconds":3600,"task":{"description":"d","input":"i","dispatch":"manual"}}`, want: 201},
	"listSchedules":   {},
	"getSchedule":     {of: "schedule"},
	"updateSchedule":  {of: "schedule", body: `{"paused":true}`},
	"deleteSchedule":  {of: "schedule", want: 204},
	"triggerSchedule": {of: "schedule", want: 201},

	"listArtifacts":  {of: "task"},
	"getArtifact":    {of: "artifact"},
	"headArtifact":   {of: "artifact"},
	"putArtifact":    {of: "own task", body: `"content"`, want: 201},
	"deleteArtifact": {of: "artifact", want: 204},

	"registerWorker": {write: newWorkerBody, want: 204},
	"listWorkers":    {},
	"claimTasks":     {of: "worker", body: `{"max":1}`},
	"heartbeat":      {of: "worker", body: `{}`},
	"drainWorker":    {of: "worker", want: 204},
	"getLease":       {of: "task", want: 422},                          // likewise
	"reportTask":     {of: "task", body: `{"message":"m"}`, want: 422}, // without a lease

	"listBudgets":  {},
	"getBudget":    {of: "budget", query: "?name={id}"},
	"putBudget":    {of: "budget", query: "?name={id}", body: `{"maxTokens":5}`},
	"deleteBudget": {of: "budget", query: "?name={id}", want: 204},
	"reportUsage":  {of: "task", body: `{}`, want: 422}, // without a lease

	"listLimits":  {},
	"putLimit":    {body: `{"maxConcurrentTasks":5000}`, needs: unconfined},
	"deleteLimit": {of: "limit", needs: unconfined, other: 403, want: 204},

	"pauseAgent":    {of: "agent", body: `{"reason":"r"}`, needs: unconfined},
	"resumeAgent":   {of: "agent", needs: unconfined, want: 204},
	"pauseSession":  {of: "session", body: `{}`},
	"resumeSession": {of: "session", want: 204},

	"createWebhook":         {body: `{"url":"http://127.0.0.1:1/"}`, want: 201},
	"listWebhooks":          {},
	"getWebhook":            {of: "webhook"},
	"updateWebhook":         {of: "webhook", body: `{"description":"d"}`},
	"deleteWebhook":         {of: "webhook", want: 204},
	"rotateWebhookSecret":   {of: "webhook", body: `{}`},
	"testWebhook":           {of: "webhook"},
	"listWebhookDeliveries": {of: "webhook"},
	"retryWebhookDelivery":  {of: "webhook"},
	"replayWebhook":         {of: "webhook", write: replayBody},

	"listAgents":   {},
	"getAgent":     {of: "agent"},
	"putAgent":     {of: "agent", body: `{"name":"n","description":"d","executor":"process","process":{"command":["true"]}}`, needs: unconfined},
	"deleteAgent":  {of: "agent", needs: unconfined, want: 204},
	"invokeAgent":  {of: "agent", body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"listSkills":   {},
	"executeSkill": {of: "skill", body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"getSkill":     {of: "skill"},
	"putSkill":     {of: "skill", body: `{"description":"d"}`, needs: unconfined},
	"deleteSkill":  {of: "skill", needs: unconfined, want: 204},

	"getMe":              {},
	"listSessions":       {},
	"getSession":         {of: "session"},
	"revokeSession":      {of: "session", want: 204},
	"createStreamTicket": {want: 201},
	"listMemory":         {of: "memory"},
	"getMemory":          {of: "memory"},
	"putMemory":          {of: "memory", body: `{"value":1}`},
	"deleteMemory":       {of: "memory", want: 204},

	"listUsers":         {needs: unconfined},
	"createUser":        {write: newUserBody, needs: unconfined, want: 201},
	"getUser":           {of: "self"},
	"updateUser":        {of: "user", body: `{"name":"n"}`, needs: unconfined, other: 403},
	"deleteUser":        {of: "user", needs: unconfined, other: 403, want: 204},
	"changePassword":    {body: fmt.Sprintf(`{"old":%q,"new":%q}`, password, password), want: 204},
	"listRoleBindings":  {},
	"createRoleBinding": {of: "project", write: newBindingBody, other: 403, want: 201},
	"deleteRoleBinding": {of: "binding", want: 204},
	"listAPIKeys":       {},
	"createAPIKey":      {body: `{"name":"k","personal":true,"expiresSeconds":3600}`, want: 201},
	"revokeAPIKey":      {of: "key", want: 204},

	"createDeviceChallenge": {want: 201},
	"enrollDevice":          {write: newDeviceBody, want: 201},
	"listDevices":           {},
	"getDevice":             {of: "device"},
	"updateDevice":          {of: "device", body: `{"name":"n"}`},
	"verifyDevice":          {of: "device", write: verifyDeviceBody},
	"revokeDevice":          {of: "device", want: 204},
	"createEnrolmentCode":   {body: `{}`, needs: unconfined, want: 201},

	"getRuntimeConfig":               {},
	"getOrganizationPolicy":          {needs: unconfined},
	"putOrganizationPolicy":          {body: `{"document":"enforceTrust: false\n"}`, needs: unconfined},
	"listOrganizationPolicyVersions": {needs: unconfined},
	"getOrganizationPolicyVersion":   {needs: unconfined},
	"diffOrganizationPolicy":         {needs: unconfined},
	"rollBackOrganizationPolicy":     {body: `{"version":1}`, needs: unconfined},
	"getProjectPolicy":               {of: "project"},
	"putProjectPolicy":               {of: "project", body: `{"document":"enforceTrust: false\n"}`},
	"listProjectPolicyVersions":      {of: "project"},
	"getProjectPolicyVersion":        {of: "project"},
	"diffProjectPolicy":              {of: "project"},
	"rollBackProjectPolicy":          {of: "project", body: `{"version":1}`},
	"checkPermission":                {body: `{"permission":"task:submit"}`},
	"simulatePolicy":                 {of: "project", body: `{"projectId":"{project}","document":"enforceTrust: false\n","since":"2026-01-01T00:00:00Z"}`},

	"listAudit":           {},
	"exportAudit":         {},
	"getAuditCheckpoint":  {},
	"getAuditConsistency": {query: "?from=1"},
	"getAuditProof":       {of: "entry"},
}

// operation is one as openapi.yaml has it.
type operation struct{ id, method, path, permission string }

func operations(t *testing.T) (all []operation) {
	t.Helper()
	data, err := os.ReadFile("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `yaml:"operationId"`
			Permission string `yaml:"x-permission"`
		} `yaml:"paths"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var open, entry []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Permission == "public" {
				open = append(open, op.ID)
				continue
			}
			if _, ok := samples[op.ID]; !ok {
				t.Errorf("the matrix has no sample of %s", op.ID)
			}
			if op.Permission == "authenticated" {
				entry = append(entry, op.ID)
			}
			all = append(all, operation{op.ID, strings.ToUpper(method), path, op.Permission})
		}
	}
	slices.Sort(open)
	if !slices.Equal(open, public) {
		t.Errorf("operations that need no credential: %v, want %v", open, public)
	}
	slices.Sort(entry)
	if !slices.Equal(entry, whateverDevice) {
		t.Errorf("operations from any device: %v, want %v", entry, whateverDevice)
	}
	if len(all) != len(samples) {
		t.Errorf("%d operations, %d samples", len(all), len(samples))
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// person is somebody with a session.
type person struct {
	name, role, project string
	session             api.OpenedSession
	signer              *dpop.Signer // nil: the session is bound to no key
	device              *dpop.Signer // that of the last device that was made
}

// world is two projects, and those who work on them.
type world struct {
	*rig
	root    *person            // administers everything
	members map[string]*person // of the project shop, by role
	bank    *person            // administers the other project
	entries map[string]string  // an audit entry of each person's session
	from    net.Addr           // where calls come from; nil: anywhere
	n       int
}

// mark is in whatever belongs to the bank.
const mark = "of-the-bank"

func newWorld(t *testing.T) *world {
	t.Helper()
	r, admin := locked(t)
	w := &world{rig: r, root: &person{name: "root", role: "admin", session: admin}, members: map[string]*person{}, entries: map[string]string{}}
	w.must(w.root, 200, "PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`)
	for role := range rolePermissions {
		w.members[role] = &person{name: role, role: role, project: "shop", session: r.login(admin, role, role, "shop")}
	}
	w.bank = &person{name: mark, role: "admin", project: "bank", session: r.login(admin, mark, "admin", "bank")}
	for _, project := range []string{"shop", "bank"} {
		w.must(w.root, 200, "PUT", "/v1/projects/"+project+"/policy", `{"document":"enforceTrust: false\n"}`)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.audit.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for _, p := range append([]*person{w.root, w.bank}, values(w.members)...) {
		var list api.AuditList
		w.decode(&list, w.must(w.root, 200, "GET", "/v1/audit?action=session.create&sessionId="+p.session.Session.ID, ""))
		if len(list.Items) != 1 {
			t.Fatalf("%d entries of the session of %s", len(list.Items), p.name)
		}
		w.entries[p.name] = list.Items[0].ID
	}
	for deadline := time.Now().Add(time.Minute); ; {
		unsealed := 0
		for _, id := range w.entries {
			if status, _ := w.call(w.root, "GET", "/v1/audit/"+id+"/proof", ""); status == 409 {
				unsealed++
			}
		}
		if unsealed == 0 {
			return w
		}
		if time.Now().After(deadline) {
			t.Fatal("the audit log is not sealed")
		}
	}
}

func values[K comparable, V any](m map[K]V) (all []V) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

func (w *world) decode(v any, text string) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		w.t.Fatal(err, text)
	}
}

// call sends a request for somebody, and returns the status and the body, but
// of a stream only its beginning.
func (w *world) call(p *person, method, path, body string, headers ...string) (int, string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if p != nil {
		req.Header.Set("Authorization", p.session.TokenType+" "+p.session.AccessToken)
		if p.signer != nil {
			bare, _, _ := strings.Cut(path, "?")
			proof, err := p.signer.Proof(method, w.url+bare, p.session.AccessToken, "", time.Now())
			if err != nil {
				w.t.Fatal(err)
			}
			req.Header.Set("DPoP", proof)
		}
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := http.DefaultClient
	if w.from != nil {
		dialer := &net.Dialer{LocalAddr: w.from}
		client = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		head := make([]byte, 1024)
		n, err := resp.Body.Read(head)
		if err != nil && err != io.EOF {
			w.t.Fatal(err)
		}
		return resp.StatusCode, string(head[:n])
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (w *world) must(p *person, want int, method, path, body string) string {
	w.t.Helper()
	status, text := w.call(p, method, path, body)
	if status != want && (want != 200 || status != 201) {
		w.t.Fatalf("%s %s by %s: %d %s", method, path, p.name, status, text)
	}
	return text
}

func (w *world) id(text string) string {
	w.t.Helper()
	var v struct{ ID string }
	w.decode(&v, text)
	return v.ID
}

func (w *world) next() string {
	w.n++
	return fmt.Sprintf("x%d", w.n)
}

// make makes something that belongs to somebody, and returns its id.
func (w *world) make(kind string, p *person) string {
	w.t.Helper()
	by := w.caller(p)
	switch kind {
	case "artifact":
		id := w.make("own task", p)
		_, _, err := w.tasks.PutArtifact(w.t.Context(), w.caller(p), task.NewArtifact{TaskID: uuid.MustParse(id), Name: "n"}, strings.NewReader(p.name))
		if err != nil {
			w.t.Fatal(err)
		}
		return id
	case "task", "own task":
		if kind == "task" { // of the same project, by somebody else
			by.UserID = "local:somebody"
		}
		by.Roles = []policy.Role{policy.Admin} // whoever may not submit has none of its own
		task, err := w.tasks.Submit(w.t.Context(), by, task.New{Description: p.name, Input: "i", Dispatch: task.Manual}, "")
		if err != nil {
			w.t.Fatal(err)
		}
		return task.ID.String()
	case "cancelled task":
		by.Roles = []policy.Role{policy.Admin}
		cancelled, err := w.tasks.Submit(w.t.Context(), by, task.New{Description: p.name, Input: "i", Dispatch: task.Manual}, "")
		if err == nil {
			cancelled, err = w.tasks.Cancel(w.t.Context(), by, cancelled.ID)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return cancelled.ID.String()
	case "waiting task":
		by.Roles = []policy.Role{policy.Admin}
		waiting, err := w.tasks.Submit(w.t.Context(), by, task.New{Description: p.name, Input: "i", Dispatch: task.Manual}, "")
		for _, status := range []task.Status{task.Planning, task.Waiting} {
			if err == nil {
				waiting, err = w.tasks.Update(w.t.Context(), by, waiting.ID, task.Patch{Status: status})
			}
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return waiting.ID.String()
	case "question":
		by.Roles = []policy.Role{policy.Admin}
		lease := w.lease(by)
		q, err := w.tasks.Ask(w.t.Context(), task.InProcess, lease.ID, lease.LeaseToken, task.NewQuestion{ID: uuid.New(), Kind: task.Approval, Text: p.name})
		if err != nil {
			w.t.Fatal(err)
		}
		return q.ID.String()
	case "grant":
		by.Roles = []policy.Role{policy.Admin}
		lease := w.lease(by)
		q, err := w.tasks.Ask(w.t.Context(), task.InProcess, lease.ID, lease.LeaseToken, task.NewQuestion{
			ID: uuid.New(), Kind: task.Approval, Text: p.name, Tool: &task.ToolCall{Name: w.next()}, Remember: true})
		if err == nil {
			_, err = w.tasks.Answer(w.t.Context(), by, q.ID, task.Answer{Approve: new(true), Remember: task.GrantTask})
		}
		if err != nil {
			w.t.Fatal(err)
		}
		grants, _, err := w.tasks.Grants(w.t.Context(), by, uuid.Max, 1)
		if err != nil || len(grants) != 1 {
			w.t.Fatal(grants, err)
		}
		return grants[0].ID.String()
	case "schedule":
		by.Roles = []policy.Role{policy.Admin}
		sc, err := w.tasks.CreateSchedule(w.t.Context(), by, task.NewSchedule{Name: p.name, IntervalSeconds: 3600, Task: task.New{Description: p.name, Dispatch: task.Manual}}, "")
		if err != nil {
			w.t.Fatal(err)
		}
		return sc.ID.String()
	case "webhook":
		by.Roles = []policy.Role{policy.Admin}
		hook, _, err := w.webhooks.Create(w.t.Context(), by, webhook.New{URL: "http://127.0.0.1:1/", Description: p.name})
		if err != nil {
			w.t.Fatal(err)
		}
		_, err = w.pool.Exec(w.t.Context(), `INSERT INTO webhook_deliveries (task_id, seq, webhook_id) VALUES ('0190b8a1-0000-7000-8000-000000000000', 1, $1)`, hook.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		// Projects have a bounded number.
		if _, err := w.pool.Exec(w.t.Context(), `DELETE FROM webhooks WHERE id <> $1`, hook.ID); err != nil {
			w.t.Fatal(err)
		}
		return hook.ID.String()
	case "agent":
		id := w.next()
		w.must(w.root, 201, "PUT", "/v1/agents/"+id, samples["putAgent"].body)
		return id
	case "skill":
		id := w.next()
		w.must(w.root, 201, "PUT", "/v1/skills/"+id, samples["putSkill"].body)
		return id
	case "session", "memory":
		opened := w.must(nil, 201, "POST", "/v1/sessions", fmt.Sprintf(`{"login":%q,"password":%q,"projectId":%q}`, p.name, password, p.project))
		if kind == "session" {
			var o api.OpenedSession
			w.decode(&o, opened)
			return o.Session.ID
		}
		w.must(p, 200, "PUT", "/v1/sessions/current/memory/k", `{"value":"`+p.name+`"}`)
		return p.session.Session.ID
	case "self":
		return "local:" + p.name
	case "user":
		return w.id(w.must(w.root, 201, "POST", "/v1/users", newUserBody(w, p, "")))
	case "binding":
		return w.id(w.must(w.root, 201, "POST", "/v1/role-bindings", newBindingBody(w, p, p.project)))
	case "key":
		return w.id(w.must(p, 201, "POST", "/v1/api-keys", samples["createAPIKey"].body))
	case "device":
		return w.id(w.must(p, 201, "POST", "/v1/devices", newDeviceBody(w, p, "")))
	case "project":
		return cmp.Or(p.project, "shop")
	case "entry":
		return w.entries[p.name]
	case "budget":
		name := cmp.Or(p.project, "shop")
		w.must(w.root, 200, "PUT", "/v1/budgets/project?name="+name, samples["putBudget"].body)
		return name
	case "limit":
		w.must(w.root, 200, "PUT", "/v1/limits/agent", samples["putLimit"].body)
		return ""
	case "worker":
		body := newWorkerBody(w, p, "")
		w.must(w.root, 204, "POST", "/v1/workers", body)
		return w.id(body)
	}
	w.t.Fatalf("what is a %s?", kind)
	return ""
}

// lease returns a task of the caller's that a worker holds.
func (w *world) lease(by policy.Caller) task.Lease {
	w.t.Helper()
	if _, err := w.tasks.Submit(w.t.Context(), by, task.New{Description: "d", Input: "i"}, ""); err != nil {
		w.t.Fatal(err)
	}
	err := w.tasks.RegisterWorker(w.t.Context(), task.InProcess, task.NewWorker{ID: "of-the-server", Instance: uuid.Max, Capacity: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	leases, _, err := w.tasks.Claim(w.t.Context(), task.InProcess, "of-the-server", 1, 0)
	if err != nil || len(leases) != 1 {
		w.t.Fatal(leases, err)
	}
	return leases[0]
}

func (w *world) caller(p *person) policy.Caller {
	w.t.Helper()
	return policy.Caller{
		UserID: "local:" + p.name, SessionID: p.session.Session.ID, ProjectID: p.project, AllProjects: p.project == "", Roles: []policy.Role{policy.Role(p.role)}, DeviceID: "d", Trust: policy.Trusted,
	}
}

func replayBody(*world, *person, string) string {
	return fmt.Sprintf(`{"since":%q}`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
}

func newUserBody(w *world, _ *person, _ string) string {
	return fmt.Sprintf(`{"login":%q,"password":%q}`, w.next(), password)
}

func newWorkerBody(w *world, _ *person, _ string) string {
	return fmt.Sprintf(`{"id":%q,"instance":"01890a5d-ac96-774b-bcce-b302099a8057","capacity":1}`, w.next())
}

func newBindingBody(w *world, _ *person, project string) string {
	return fmt.Sprintf(`{"userId":"local:%s","role":"readonly","projectId":%q}`, w.next(), project)
}

// newDeviceBody is signed by a new key.
func newDeviceBody(w *world, p *person, _ string) string {
	w.t.Helper()
	var err error
	if p.device, err = dpop.GenerateEd25519(); err != nil {
		w.t.Fatal(err)
	}
	n := api.NewDevice{Name: p.name, Key: p.device.Key().JWK()}
	n.Challenge, n.Signature = w.sign(p)
	return w.encode(n)
}

// verifyDeviceBody is for the last device of the person's.
func verifyDeviceBody(w *world, p *person, _ string) string {
	w.t.Helper()
	if p.device == nil {
		newDeviceBody(w, p, "")
	}
	var code api.EnrolmentCode
	w.decode(&code, w.must(w.root, 201, "POST", "/v1/devices/enrolment-codes", `{}`))
	v := api.VerifyDevice{Code: code.Code}
	v.Challenge, v.Signature = w.sign(p)
	return w.encode(v)
}

func (w *world) sign(p *person) (challenge, signature string) {
	w.t.Helper()
	var c api.DeviceChallenge
	w.decode(&c, w.must(p, 201, "POST", "/v1/devices/challenges", ""))
	signature, err := p.device.SignChallenge(c.Challenge)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Challenge, signature
}

func (w *world) encode(v any) string {
	w.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// request is the path and the body with which who asks for something of
// whose's.
func (w *world) request(op operation, who, whose *person) (path, body string) {
	w.t.Helper()
	s, id := samples[op.id], ""
	if s.of != "" {
		id = w.make(s.of, whose)
	}
	kind := "agent"
	if s.of == "budget" {
		kind = "project"
	}
	path = strings.NewReplacer("{kind}", kind, "{name}", "n", "{id}", id, "{key}", "k", "{version}", "1", "{questionId}", "0190b8a1-0000-4000-8000-000000000001", "{skillId}", "s", "{deliveryId}", "evt_0190b8a1000070008000000000000000_1").Replace(op.path + s.query)
	body = strings.ReplaceAll(s.body, "{project}", whose.project)
	if s.write != nil {
		body = s.write(w, who, id)
	}
	return path, body
}

func (p *person) holds(permission string) bool {
	if permission == "work" { // people who administer everything may do what workers do
		return p.role == "admin" && p.project == ""
	}
	return permission == "authenticated" || permission == "admitted" || slices.Contains(rolePermissions[p.role], permission)
}

func TestEveryOperationIsForThoseWithItsPermissionInTheirOwnProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check := func(op operation, who, whose *person, want int) {
		t.Helper()
		path, body := w.request(op, who, whose)
		got, text := w.call(who, op.method, path, body)
		by := "nobody"
		if who != nil {
			by = who.name + " of project " + who.project
		}
		if got != want {
			t.Errorf("%s by %s, of %s: %d %s, want %d", op.id, by, whose.name, got, text, want)
		}
		if who != w.root && strings.Contains(text, mark) && !strings.Contains(path, mark) {
			t.Errorf("%s shows %s what is the bank's: %s", op.id, by, text)
		}
	}
	for _, op := range operations(t) {
		s := samples[op.id]
		success, other := s.want, s.other
		if success == 0 {
			success = 200
		}
		if other == 0 {
			other = 404
		}
		for _, p := range w.members {
			want := success
			if !p.holds(op.permission) || s.needs != nil && !s.needs(p) {
				want = 403
			}
			check(op, p, p, want)
			if s.of != "" && s.of != "agent" && s.of != "skill" {
				if want == success {
					want = other
				}
				check(op, p, w.bank, want)
			}
		}
		check(op, w.root, w.root, success)
		// Administrators see everything but what sessions remember, and speak
		// for nobody else.
		if s.of != "memory" && op.id != "updateTask" && op.id != "putArtifact" && op.id != "verifyDevice" {
			check(op, w.root, w.bank, success)
		}
	}
}

func TestAWorkersKeyIsGoodForWorkAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made api.CreatedAPIKey
	w.decode(&made, w.must(w.root, 201, "POST", "/v1/api-keys", `{"name":"w","worker":{"projects":["shop"]},"expiresSeconds":3600}`))
	if made.UserID != "" || len(made.Roles) > 0 || made.Worker == nil || !slices.Equal(made.Worker.Projects, []string{"shop"}) {
		t.Errorf("made %+v", made)
	}
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		got, text := w.call(nil, op.method, path, body, "Authorization", "Bearer "+made.Key)
		switch {
		case op.permission == "work", slices.Contains(alsoForWorkers, op.id):
			if got == 401 || got == 403 {
				t.Errorf("%s by a worker: %d %s", op.id, got, text)
			}
		case op.permission != "authenticated" && op.permission != "admitted" && got != 403:
			t.Errorf("%s by a worker: %d %s, want 403", op.id, got, text)
		}
		if strings.Contains(text, "local:"+w.root.name) && got < 300 {
			t.Errorf("%s shows a worker what is a person's: %s", op.id, text)
		}
	}
	for body, want := range map[string]int{
		`{"name":"w","worker":{},"roles":["admin"],"expiresSeconds":3600}`:        422,
		`{"name":"w","worker":{"agents":["no such\nid"]},"expiresSeconds":3600}`:  422,
		`{"name":"w","worker":{"labels":{"":"x"}},"expiresSeconds":3600}`:         422,
		`{"name":"w","worker":{},"personal":true,"expiresSeconds":3600}`:          201,
		`{"name":"w","worker":{"projects":["bank"],"x":1},"expiresSeconds":3600}`: 422,
		`{"name":"w","worker":{},"projectId":"shop","expiresSeconds":3600}`:       422,
		`{"name":"w","worker":{},"scopes":["task:read"],"expiresSeconds":3600}`:   422,
		`{"name":"w","worker":{"labels":{"team":"a"}},"expiresSeconds":3600}`:     201,
	} {
		if got, text := w.call(w.root, "POST", "/v1/api-keys", body); got != want {
			t.Errorf("%s: %d %s, want %d", body, got, text, want)
		}
	}
	if got, text := w.call(w.members["admin"], "POST", "/v1/api-keys", `{"name":"w","worker":{},"expiresSeconds":3600}`); got != 403 {
		t.Errorf("the administrator of one project makes a worker of all: %d %s", got, text)
	}
}

func TestAnAgentsTokenIsGoodForItsTaskAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if runtime.GOOS != "linux" {
		t.Skip("who fails often must wait, unless from ever other addresses, which only Linux's loopback has")
	}
	by := w.caller(w.root)
	mine, ended := w.lease(by), w.lease(by)
	good, over := "Bearer "+api.AgentToken(mine.ID.String(), mine.LeaseToken.String()), "Bearer "+api.AgentToken(ended.ID.String(), ended.LeaseToken.String())
	if err := w.tasks.Report(t.Context(), task.InProcess, ended.ID, ended.LeaseToken, task.Report{Status: task.Failed}); err != nil {
		t.Fatal(err)
	}
	forged := "Bearer " + api.AgentToken(mine.ID.String(), ended.LeaseToken.String())
	n := 0
	call := func(op operation, path, body, token string) (int, string) {
		n++
		w.from = &net.TCPAddr{IP: net.IPv4(127, 2, byte(n>>8), byte(n))}
		defer func() { w.from = nil }()
		return w.call(nil, op.method, path, body, "Authorization", token)
	}
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		for what, c := range map[string]struct {
			token string
			want  int
		}{
			"a good token":                  {good, 403},
			"a token whose lease is over":   {over, 401},
			"a token of another's lease":    {forged, 401},
			"a token cut short":             {good[:len(good)-4], 401},
			"a token of nothing":            {"Bearer " + api.AgentTokenPrefix, 401},
			"the lease itself, as a bearer": {"Bearer " + mine.LeaseToken.String(), 401},
		} {
			if got, text := call(op, path, body, c.token); got != c.want {
				t.Errorf("%s with %s: %d %s, want %d", op.id, what, got, text, c.want)
			}
		}
		if !strings.Contains(op.path, "/tasks/{id}") {
			continue
		}
		own := strings.Replace(path, strings.Split(path, "/")[3], mine.ID.String(), 1)
		got, text := call(op, own, body, good)
		if slices.Contains(forAgents, op.id) == (got == 401 || got == 403) {
			t.Errorf("%s of its own task: %d %s", op.id, got, text)
		}
		want := 401
		if slices.Contains(forAgents, op.id) {
			want = 409 // it is told that its lease is lost
		}
		if got, text := call(op, own, body, forged); got != want {
			t.Errorf("%s of that task with another's token: %d %s, want %d", op.id, got, text, want)
		}
	}
	for what, c := range map[string]struct {
		method, path, body string
		want               int
	}{
		"release":             {"POST", "/reports", `{"release":true}`, 422},
		"completion":          {"POST", "/reports", `{"status":"completed","output":"o"}`, 409}, // it does not run yet
		"nothing but a lease": {"GET", "", "", 200},
	} {
		if got, text := call(operation{method: c.method}, "/v1/tasks/"+mine.ID.String()+c.path, c.body, good); got != c.want {
			t.Errorf("%s: %d %s, want %d", what, got, text, c.want)
		}
	}
}

func TestNoOperationIsForThoseWithoutAGoodCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if runtime.GOOS != "linux" {
		t.Skip("who fails often must wait, unless from ever other addresses, which only Linux's loopback has")
	}
	_, elsewhere := locked(t) // another server, with keys of its own
	n := 0
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		for what, headers := range map[string][]string{
			"nothing":               nil,
			"another scheme":        {"Authorization", "Basic cm9vdDpyb290"},
			"a made-up token":       {"Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2NhbDpyb290In0."},
			"a made-up key":         {"Authorization", "Bearer ccl_0_0"},
			"a made-up agent":       {"Authorization", "Bearer " + api.AgentToken(uuid.NewString(), uuid.NewString())},
			"a made-up cookie":      {"Cookie", "__Host-coderclaw=ccs_0"},
			"another's token":       {"Authorization", "Bearer " + elsewhere.AccessToken},
			"a refresh token":       {"Authorization", "Bearer " + w.root.session.RefreshToken},
			"a token cut short":     {"Authorization", "Bearer " + w.root.session.AccessToken[:len(w.root.session.AccessToken)-4]},
			"a forwarded loopback":  {"X-Forwarded-For", "127.0.0.1"},
			"a user in a header":    {"X-Forwarded-User", "local:root"},
			"an access token below": {"Authorization", "Bearer " + strings.Replace(w.root.session.AccessToken, ".", ".x", 1)},
		} {
			n++
			w.from = &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
			if got, text := w.call(nil, op.method, path, body, headers...); got != 401 {
				t.Errorf("%s with %s: %d %s, want 401", op.id, what, got, text)
			}
			w.from = nil
		}
	}
}

func TestWhereTrustIsEnforcedNoOperationIsForDevicesOfLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	levels := map[policy.TrustLevel]*person{}
	var code api.EnrolmentCode
	for _, level := range []policy.TrustLevel{policy.Untrusted, policy.Verified, policy.Trusted} {
		p := &person{name: "with-" + level.String(), role: "admin"}
		w.login(w.root.session, p.name, "admin", "")
		signer, err := dpop.GenerateEd25519()
		if err != nil {
			t.Fatal(err)
		}
		opening := api.NewSession{Login: p.name, Password: password, DeviceName: p.name}
		if level > policy.Untrusted {
			w.decode(&code, w.must(w.root, 201, "POST", "/v1/devices/enrolment-codes", `{}`))
			opening.EnrolmentCode = code.Code
		}
		proof, err := signer.Proof("POST", w.url+"/v1/sessions", "", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		status, text := w.call(nil, "POST", "/v1/sessions", w.encode(opening), "DPoP", proof)
		if status != 201 {
			t.Fatal(status, text)
		}
		w.decode(&p.session, text)
		p.signer = signer
		if level == policy.Trusted {
			w.must(w.root, 200, "PATCH", "/v1/devices/"+p.session.Session.DeviceID, `{"trust":"trusted"}`)
		}
		levels[level] = p
	}
	none := w.root
	w.root = levels[policy.Trusted]
	w.must(w.root, 200, "PUT", "/v1/config/security", `{"document":"enforceTrust: true\nminimumTrustLevel: verified\ndeviceTrust: {autoTrustLocal: false}\n"}`)
	for _, op := range operations(t) {
		if op.id == "putOrganizationPolicy" || op.id == "rollBackOrganizationPolicy" {
			continue // they would end what is tried here; below
		}
		path, body := w.request(op, w.root, w.root)
		for who, p := range map[string]*person{"no device": none, "an untrusted device": levels[policy.Untrusted]} {
			if op.permission == "authenticated" {
				continue // they are named above
			}
			got, text := w.call(p, op.method, path, body)
			if got != 403 || !strings.Contains(text, "device") && op.method != "HEAD" {
				t.Errorf("%s from %s: %d %s, want 403 for the device", op.id, who, got, text)
			}
		}
		for _, level := range []policy.TrustLevel{policy.Verified, policy.Trusted} {
			path, body := w.request(op, levels[level], levels[level])
			if got, text := w.call(levels[level], op.method, path, body); got == 401 || got == 403 {
				t.Errorf("%s from a %s device: %d %s", op.id, level, got, text)
			}
		}
	}
	for _, p := range []*person{none, levels[policy.Untrusted]} {
		if got, text := w.call(p, "PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`); got != 403 {
			t.Errorf("trust is switched off from a device without: %d %s", got, text)
		}
	}
}
