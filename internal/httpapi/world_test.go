package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

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

// unconfined is for what concerns the whole server.
func unconfined(p *person) bool { return p.project == "" }

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

func (p *person) holds(permission string) bool {
	if permission == "work" { // people who administer everything may do what workers do
		return p.role == "admin" && p.project == ""
	}
	return permission == "authenticated" || permission == "admitted" || slices.Contains(rolePermissions[p.role], permission)
}
