package clawctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

// office answers the calls of administrators, each with the same.
func office(answers map[string]any) (h http.Handler, asked func() string) {
	var last string
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		last = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(body))
		answer, ok := answers[r.Method+" "+r.URL.Path]
		text, isText := answer.(string)
		switch {
		case !ok:
			problem(w, http.StatusNotFound, "not-found", "no "+r.URL.Path)
		case answer == nil:
			w.WriteHeader(http.StatusNoContent)
		case isText:
			w.Header().Set("Content-Type", "application/x-ndjson")
			io.WriteString(w, text)
		default:
			writeJSON(w, http.StatusOK, answer)
		}
	}), func() string { return last }
}

// records is what an office keeps; name goes into all that people could have
// written.
func records(name string) map[string]any {
	hourAgo := now.Add(-time.Hour)
	decision := api.Decision{Layer: "agent", Rule: "security.yaml: agentPolicies[" + name + "]", Reason: "because " + name, PolicyVersion: 7}
	doc := api.PolicyDocument{Version: 8, Document: "allowedRoles: [" + name + "]\n", Author: name, Comment: name, Origin: "api", Weakens: []string{"readonly may " + name}, CreatedAt: hourAgo}
	user := api.User{ID: "local:" + name, Provider: "local", Name: name, LastLoginAt: &hourAgo, CreatedAt: hourAgo}
	binding := api.RoleBinding{ID: "b1", GroupID: "corp:" + name, Role: "developer", CreatedAt: hourAgo, CreatedBy: name}
	key := api.APIKey{ID: "k1", Name: name, Roles: []string{"ci"}, ExpiresAt: now.Add(48 * time.Hour)}
	worker := api.Worker{ID: "w1", UserID: name, Agents: []string{name}, Labels: map[string]string{"gpu": name}, Capacity: 4, Running: 1, Version: name, Present: true, LastSeenAt: hourAgo}
	question := api.Question{ID: "q1", TaskID: "t1", Kind: "approval", Text: "Delete " + name + "?", Tool: &api.ToolCall{Name: name}, Risk: "high",
		AskedAt: hourAgo, ExpiresAt: now.Add(time.Hour), Status: "open", Choices: []api.Choice{{ID: name, Label: name}}}
	device := api.Device{ID: "d1", UserID: name, Name: name, Trust: "trusted", Thumbprint: "th", CreatedAt: hourAgo}
	entry := api.AuditEntry{ID: "e1", Time: hourAgo, UserID: name, Action: "task.submit", Result: "denied", ResourceID: name, Layer: "agent", Reason: name}
	budget := api.ScopeBudget{
		Kind: api.ProjectBudget, Name: name, Budget: &api.Budget{MaxCost: &api.Cost{Amount: "1.50", Currency: "USD"}, MaxTokens: 900, OnExceeded: api.AskExceeded},
		Period: "2026-01", Used: &api.Usage{Costs: []api.Cost{{Amount: "0.25", Currency: "EUR"}}, Tokens: 300, ToolCalls: 2}, UpdatedBy: name,
	}
	schedule := api.Schedule{
		ID: "c1", Name: name, Cron: "0 3 * * *", TimeZone: "Europe/Berlin", Overlap: api.OverlapSkip, Task: api.NewTask{Description: name, AgentID: name},
		UserID: name, NextRuns: []time.Time{now.Add(time.Hour)}, LastRun: &api.ScheduleRun{At: hourAgo, Result: api.RunDenied, Reason: name}, Missed: 3, CreatedAt: hourAgo,
	}
	grants := []api.Grant{
		{ID: "g1", Scope: api.GrantSession, SessionID: "s1", AgentID: name, Text: "Deploy " + name + "?", GrantedBy: name, Uses: 3, ExpiresAt: now.Add(48 * time.Hour)},
		{ID: "g2", Scope: api.GrantProject, ProjectID: name, AgentID: "b", Text: "x", GrantedBy: "y", ExpiresAt: now.Add(time.Hour)},
	}
	hook := api.Webhook{
		ID: "h1", URL: "https://" + name, AllProjects: true, UserID: name, Description: name, Statuses: []api.TaskStatus{"completed", "failed"}, AgentID: name,
		Labels: map[string]string{"k": name}, DisabledReason: name, CreatedAt: hourAgo,
	}
	attempt := api.WebhookAttempt{At: hourAgo, Status: 500, Error: "answered 500", Response: name, DurationMillis: 12}
	delivery := api.WebhookDelivery{ID: "evt_1", Type: "task." + name, TaskID: "t1", Seq: 1, Status: api.DeliveryPending, Attempts: 2, QueuedAt: hourAgo, NextAttemptAt: new(now.Add(time.Hour)), LastAttempt: &attempt}
	return map[string]any{
		"GET /v1/grants":                              api.GrantList{Items: grants},
		"DELETE /v1/grants/g1":                        nil,
		"GET /v1/webhooks":                            api.WebhookList{Items: []api.Webhook{hook, {ID: "h2", URL: "https://b", ProjectID: "web", Enabled: true, FailingSince: &hourAgo}}},
		"POST /v1/webhooks":                           api.CreatedWebhook{Webhook: hook, Secret: "whsec_" + name},
		"GET /v1/webhooks/h1":                         hook,
		"PATCH /v1/webhooks/h1":                       hook,
		"DELETE /v1/webhooks/h1":                      nil,
		"POST /v1/webhooks/h1/secret":                 api.WebhookSecret{Secret: "whsec_" + name, FormerUntil: new(now.Add(time.Hour))},
		"POST /v1/webhooks/h2/test":                   api.WebhookAttempt{Delivered: true, Status: 204, DurationMillis: 12},
		"GET /v1/webhooks/h1/deliveries":              api.WebhookDeliveryList{Items: []api.WebhookDelivery{delivery}},
		"POST /v1/webhooks/h1/deliveries/evt_1/retry": delivery,
		"POST /v1/webhooks/h1/replay":                 api.WebhookReplayed{Queued: 10000, Next: &hourAgo},
		"GET /v1/schedules":                           api.ScheduleList{Items: []api.Schedule{schedule, {ID: "c2", Name: "b", IntervalSeconds: 90, Paused: true}, {ID: "c3", Name: "c", IntervalSeconds: 90, Paused: true, PausedReason: name}}},
		"POST /v1/schedules":                          schedule,
		"GET /v1/schedules/c1":                        schedule,
		"GET /v1/schedules/c3":                        api.Schedule{ID: "c3", Name: "c", IntervalSeconds: 90, Paused: true, PausedReason: name + " is gone", CreatedAt: hourAgo},
		"PATCH /v1/schedules/c1":                      schedule,
		"DELETE /v1/schedules/c1":                     nil,
		"POST /v1/skills/s1/execute":                  api.Task{ID: "t1", Description: name},
		"POST /v1/schedules/c1/trigger":               api.Task{ID: "t1", Description: name},
		"GET /v1/sessions":                            api.SessionList{Items: []api.Session{{ID: "s1", UserID: name, Method: name, Address: "::1", CreatedAt: hourAgo, ExpiresAt: now.Add(time.Hour)}}},
		"DELETE /v1/sessions/s1":                      nil,
		"GET /v1/users":                               api.UserList{Items: []api.User{user}},
		"POST /v1/users":                              user,
		"PATCH /v1/users/u1":                          user,
		"DELETE /v1/users/u1":                         nil,
		"GET /v1/role-bindings":                       api.RoleBindingList{Items: []api.RoleBinding{binding}},
		"POST /v1/role-bindings":                      binding,
		"DELETE /v1/role-bindings/b1":                 nil,
		"GET /v1/api-keys":                            api.APIKeyList{Items: []api.APIKey{key}},
		"POST /v1/api-keys":                           api.CreatedAPIKey{APIKey: key, Key: "ccl_k1_" + name},
		"DELETE /v1/api-keys/k1":                      nil,
		"GET /v1/workers":                             api.WorkerList{Items: []api.Worker{worker}},
		"DELETE /v1/workers/w1":                       nil,
		"GET /v1/limits":                              api.LimitList{Items: []api.Limit{{Kind: api.LimitAgent, Name: name, MaxConcurrentTasks: new(2), UpdatedBy: name}}, Pauses: []api.Pause{{Kind: api.PauseSession, Name: name, PausedBy: name, Reason: name}}},
		"PUT /v1/limits/agent":                        api.Limit{Kind: api.LimitAgent, MaxConcurrentTasks: new(2), Rate: &api.Rate{Tasks: 3, PerSeconds: 60}},
		"POST /v1/agents/a/pause":                     api.Pause{Kind: api.PauseAgent, Name: name},
		"POST /v1/sessions/s/resume":                  nil,
		"DELETE /v1/limits/agent":                     nil,
		"GET /v1/budgets":                             api.ScopeBudgetList{Items: []api.ScopeBudget{budget}},
		"GET /v1/budgets/project":                     budget,
		"PUT /v1/budgets/project":                     budget,
		"DELETE /v1/budgets/project":                  nil,
		"POST /v1/tasks/t1/retry":                     api.Task{ID: "t2", Status: "pending", RetryOf: "t1"},
		"POST /v1/tasks/cancel":                       api.CancelledTasks{Cancelled: 3, Denied: 1},
		"GET /v1/tasks/t1/tree": api.TaskTree{Items: []api.Task{{ID: "t1", Status: "running", Description: name},
			{ID: "t2", ParentTaskID: "t1", Status: "failed", Description: name}, {ID: "t3", ParentTaskID: "t1", Status: "pending"}, {ID: "t4", ParentTaskID: "t2", Status: "failed"}}},
		"GET /v1/approvals":                  api.QuestionList{Items: []api.Question{question}},
		"POST /v1/approvals/q1":              question,
		"POST /v1/tasks/t1/input":            api.Task{ID: "t1", Status: "running"},
		"GET /v1/tasks/t1/attempts":          api.AttemptList{Items: []api.Attempt{{Attempt: 1, WorkerID: name, StartedAt: hourAgo, EndedAt: &hourAgo, Outcome: "failed", Reason: name}, {Attempt: 2, WorkerID: "w", StartedAt: hourAgo}}},
		"GET /v1/devices":                    api.DeviceList{Items: []api.Device{device}},
		"PATCH /v1/devices/d1":               device,
		"DELETE /v1/devices/d1":              nil,
		"POST /v1/devices/enrolment-codes":   api.EnrolmentCode{Code: "cce_" + name, ExpiresAt: now.Add(time.Hour)},
		"POST /v1/permissions/check":         decision,
		"GET /v1/config/security":            doc,
		"GET /v1/config/security/versions/3": doc,
		"GET /v1/projects/web/policy":        doc,
		"PUT /v1/projects/web/policy":        doc,
		"PUT /v1/config/security":            doc,
		"GET /v1/config/security/versions":   api.PolicyVersionList{Items: []api.PolicyDocument{doc}},
		"POST /v1/config/security/rollback":  doc,
		"GET /v1/config/security/diff":       api.PolicyDiff{From: 7, To: 8, Diff: "-a\n+" + name + "\n", Weakens: doc.Weakens},
		"POST /v1/policy/simulate": api.PolicySimulationResult{Decisions: 40, ChangedCount: 1, Skipped: 2, Complete: true,
			Changed: []api.ChangedOutcome{{EntryID: "e1", UserID: name, Action: "task.submit", Was: "allowed", Now: decision}}},
		"GET /v1/tasks/t1/artifacts": api.ArtifactList{Items: []api.Artifact{
			{TaskID: "t1", Name: name, Size: 1023, ContentType: name, CreatedAt: hourAgo, CreatedBy: name}, {TaskID: "t1", Name: "big", Size: 64 << 20, ContentType: "a/b", CreatedAt: hourAgo, CreatedBy: "x"},
		}},
		"PUT /v1/tasks/t1/artifacts/x.html": api.Artifact{TaskID: "t1", Name: name, Size: 5},
		"DELETE /v1/tasks/t1/artifacts/a":   nil,
		"GET /v1/audit":                     api.AuditList{Items: []api.AuditEntry{entry}},
		"GET /v1/audit/export":              "CEF:0|" + name + "\nCEF:0|two\n",
		"GET /v1/audit/checkpoint":          api.AuditCheckpoint{Note: "claw\n3\nroot" + name + "\n\n— claw sig\n", Size: 3, Verifier: "claw+1+x"},
		"GET /v1/audit/e1/proof":            api.AuditProof{Index: 2, Leaf: []byte("leaf"), Hashes: []string{"aGFzaA==", name}, Checkpoint: "claw\n3\nroot\n"},
		"GET /v1/me":                        api.Me{UserID: name, Roles: []string{name}, AllProjects: true, DeviceTrust: "untrusted"},
	}
}

// commands are all that administrators do, with what the server is then asked
// and what they see, of bob.
var commands = []struct {
	args, asks, stdout, stderr string
}{
	{"whoami", "GET /v1/me", "Server:  URL\nUser:    bob\nRoles:   bob\nProject: all\nDevice:  untrusted\n", ""},
	{"schedules list", "GET /v1/schedules", "ID  NAME  WHEN                     NEXT                  LAST           PROJECT  USER\n" +
		"c1  bob   0 3 * * * Europe/Berlin  in 1h                 denied 1h ago           bob\nc2  b     every 1m30s              paused\nc3  c     every 1m30s              paused by the server\n", ""},
	{"schedules get c3", "GET /v1/schedules/c3", "ID:         c3\nName:       c\nWhen:       every 1m30s\nNext:       paused by the server\nPaused for: bob is gone\nCreated:    2026-11-23T08:00:00Z (1h ago)\n", ""},
	{"schedules get c1", "GET /v1/schedules/c1", "ID:       c1\nName:     bob\nWhen:     0 3 * * * Europe/Berlin\nOverlap:  skip\nNext:     in 1h\n" +
		"Next run: 2026-11-23T10:00:00Z (in 1h)\nLast run: denied at 2026-11-23T08:00:00Z (1h ago)\nBecause:  bob\nMissed:   3\nTask:     bob\nAgent:    bob\n" +
		"As:       bob\nCreated:  2026-11-23T08:00:00Z (1h ago)\n", ""},
	{"schedules create nightly review --every 90m --overlap replace --starting-deadline 5m --agent a --label k=v",
		`POST /v1/schedules {"name":"nightly","intervalSeconds":5400,"overlap":"replace","startingDeadlineSeconds":300,"task":{"description":"review","input":"review","agentId":"a","labels":{"k":"v"}}}`,
		"c1\n", "2026-11-23T10:00:00Z (in 1h)\n"},
	{"schedules pause c1", `PATCH /v1/schedules/c1 {"paused":true}`, "c1 in 1h\n", ""},
	{"schedules resume c1", `PATCH /v1/schedules/c1 {"paused":false}`, "c1 in 1h\n", ""},
	{"schedules trigger c1", "POST /v1/schedules/c1/trigger", "t1\n", ""},
	{"schedules delete c1", "DELETE /v1/schedules/c1", "c1 deleted\n", ""},
	{"webhooks list", "GET /v1/webhooks", "ID  TARGET       PROJECT  STATUSES          STATE\nh1  https://bob  all      completed,failed  disabled: bob\nh2  https://b    web      all               failing for 1h\n", ""},
	{"webhooks get h1", "GET /v1/webhooks/h1", "ID:          h1\nTarget:      https://bob\nState:       disabled: bob\nProject:     all\nStatuses:    completed,failed\n" +
		"Agent:       bob\nLabels:      k=bob\nDescription: bob\nBy:          bob\nCreated:     2026-11-23T08:00:00Z (1h ago)\n", ""},
	{"webhooks create https://x --status completed,failed --label k=v --project web", `POST /v1/webhooks {"url":"https://x","projectId":"web","statuses":["completed","failed"],"labels":{"k":"v"}}`,
		"whsec_bob\n", "This is the secret of webhook h1. It is not shown again.\n"},
	{"webhooks disable h1", `PATCH /v1/webhooks/h1 {"enabled":false}`, "h1 disabled: bob\n", ""},
	{"webhooks enable h1", `PATCH /v1/webhooks/h1 {"enabled":true}`, "h1 disabled: bob\n", ""},
	{"webhooks delete h1", "DELETE /v1/webhooks/h1", "h1 deleted\n", ""},
	{"webhooks rotate h1 --keep 2h", `POST /v1/webhooks/h1/secret {"keepFormerSeconds":7200}`, "whsec_bob\n", "It is not shown again. The former one signs too until 2026-11-23T10:00:00Z.\n"},
	{"webhooks test h2", "POST /v1/webhooks/h2/test", "h2 delivered in 12ms: 204\n", ""},
	{"webhooks deliveries h1 --status dead", "GET /v1/webhooks/h1/deliveries?status=dead",
		"ID     TYPE      STATUS   ATTEMPTS  AGE  NEXT   LAST\nevt_1  task.bob  pending  2         1h   in 1h  answered 500: bob\n", ""},
	{"webhooks retry h1 evt_1", "POST /v1/webhooks/h1/deliveries/evt_1/retry", "evt_1 pending\n", ""},
	{"webhooks replay h1 --since 2h --until 1h", `POST /v1/webhooks/h1/replay {"since":"2026-11-23T07:00:00Z","until":"2026-11-23T08:00:00Z"}`, "10000 queued\n", "There are more: --since 2026-11-23T08:00:00Z\n"},
	{"sessions list", "GET /v1/sessions", "ID  USER  METHOD  PROJECT  DEVICE  ADDRESS  AGE  STATE\ns1  bob   bob                      ::1      1h   ends in 1h\n", ""},
	{"sessions revoke s1", "DELETE /v1/sessions/s1", "s1 revoked\n", ""},
	{"users list", "GET /v1/users", "ID         PROVIDER  STATE   LAST LOGIN  NAME\nlocal:bob  local     active  1h          bob\n", ""},
	{"users create bob --password-stdin --name Bob", `POST /v1/users {"login":"bob","password":"hush","name":"Bob"}`, "local:bob is active\n", ""},
	{"users password u1 --password-stdin", `PATCH /v1/users/u1 {"password":"hush"}`, "local:bob is active\n", ""},
	{"users disable u1", `PATCH /v1/users/u1 {"disabled":true}`, "local:bob is active\n", ""},
	{"users enable u1", `PATCH /v1/users/u1 {"disabled":false}`, "local:bob is active\n", ""},
	{"users delete u1", "DELETE /v1/users/u1", "u1 deleted\n", ""},
	{"bindings list", "GET /v1/role-bindings", "ID  SUBJECT         ROLE       PROJECT       AGE  BY\nb1  group corp:bob  developer  all projects  1h   bob\n", ""},
	{"bindings grant developer --group corp:bob", `POST /v1/role-bindings {"groupId":"corp:bob","role":"developer"}`, "b1\n", "group corp:bob is developer in all projects\n"},
	{"bindings revoke b1", "DELETE /v1/role-bindings/b1", "b1 revoked\n", ""},
	{"keys list", "GET /v1/api-keys", "ID  NAME  AS      PROJECT  ROLES  LAST USED  STATE\nk1  bob   key:k1           ci                ends in 2d\n", ""},
	{"keys create nightly --role ci --scope task:submit --project web --expires 2d", `POST /v1/api-keys {"name":"nightly","projectId":"web","roles":["ci"],"scopes":["task:submit"],"expiresSeconds":172800}`,
		"ccl_k1_bob\n", "This is key k1, good until 2026-11-25T09:00:00Z. It is not shown again.\n"},
	{"keys create mine --personal", `POST /v1/api-keys {"name":"mine","personal":true,"expiresSeconds":7776000}`,
		"ccl_k1_bob\n", "This is key k1, good until 2026-11-25T09:00:00Z. It is not shown again.\n"},
	{"keys revoke k1", "DELETE /v1/api-keys/k1", "k1 revoked\n", ""},
	{"worker token --projects web,shop --agents a --label team=x --expires 2d", `POST /v1/api-keys {"name":"worker","worker":{"projects":["web","shop"],"agents":["a"],"labels":{"team":"x"}},"expiresSeconds":172800}`,
		"ccl_k1_bob\n", "This is key k1, good until 2026-11-25T09:00:00Z. It is not shown again.\n"},
	{"workers list", "GET /v1/workers", "ID  STATE  RUNNING  LAST SEEN  LABELS   AGENTS  PROJECTS  VERSION\nw1  ready  1/4      1h         gpu=bob  bob     any       bob\n", ""},
	{"workers drain w1", "DELETE /v1/workers/w1", "w1 takes no more tasks\n", ""},
	{"tasks attempts t1", "GET /v1/tasks/t1/attempts", "ATTEMPT  WORKER  STARTED              ENDED                OUTCOME  REASON\n1        bob     2026-11-23 08:00:00  2026-11-23 08:00:00  failed   bob\n2        w       2026-11-23 08:00:00\n", ""},
	{"limits list", "GET /v1/limits", "KIND     OF   AT MOST    BY   BECAUSE\nagent    bob  2 at once  bob\nsession  bob  paused     bob  bob\n", ""},
	{"limits set agent 2 --of a --rate 3 --per 1m", `PUT /v1/limits/agent?name=a {"maxConcurrentTasks":2,"rate":{"tasks":3,"perSeconds":60}}`, "each agent: 2 at once, 3 in 1m0s\n", ""},
	{"limits set agent --rate 3", `PUT /v1/limits/agent {"rate":{"tasks":3,"perSeconds":1}}`, "each agent: 2 at once, 3 in 1m0s\n", ""},
	{"agents pause a --reason r", `POST /v1/agents/a/pause {"reason":"r"}`, "bob paused\n", ""},
	{"sessions resume s", `POST /v1/sessions/s/resume`, "s goes on\n", ""},
	{"limits delete agent --of a", "DELETE /v1/limits/agent?name=a", "agent a: no limit\n", ""},
	{"budgets list", "GET /v1/budgets", "KIND     OF   MOST                  USED                                PERIOD   THEN      BY\nproject  bob  1.50 USD, 900 tokens  0.25 EUR, 300 tokens, 2 tool calls  2026-01  approval  bob\n", ""},
	{"budgets show project --of shop", "GET /v1/budgets/project?name=shop", "Of:     project bob\nMost:   1.50 USD, 900 tokens\nUsed:   0.25 EUR, 300 tokens, 2 tool calls\nPeriod: 2026-01\nThen:   approval\nBy:     bob\n", ""},
	{"budgets set project --of shop --max-cost 1.50EUR --max-tool-calls 7 --on-exceeded approval", `PUT /v1/budgets/project?name=shop {"maxCost":{"amount":"1.50","currency":"EUR"},"maxToolCalls":7,"onExceeded":"approval"}`, "Of:     project bob\nMost:   1.50 USD, 900 tokens\nUsed:   0.25 EUR, 300 tokens, 2 tool calls\nPeriod: 2026-01\nThen:   approval\nBy:     bob\n", ""},
	{"budgets delete project --of shop", "DELETE /v1/budgets/project?name=shop", "project shop: no budget\n", ""},
	{"artifacts list t1", "GET /v1/tasks/t1/artifacts", "NAME  SIZE      TYPE  AGE  BY\nbob   1023 B    bob   1h   bob\nbig   64.0 MiB  a/b   1h   x\n", ""},
	{"artifacts put t1 - --name x.html", "PUT /v1/tasks/t1/artifacts/x.html hush", "bob: 5 B\n", ""},
	{"artifacts delete t1 a", "DELETE /v1/tasks/t1/artifacts/a", "a deleted\n", ""},
	{"skills execute s1 review --agent a --label k=v", `POST /v1/skills/s1/execute {"description":"review","input":"review","agentId":"a","labels":{"k":"v"}}`, "t1\n", ""},
	{"retry t1 --idempotency-key k", "POST /v1/tasks/t1/retry", "t2\n", ""},
	{"tasks cancel --label k=v --status pending", "POST /v1/tasks/cancel?label=k%3Dv&status=pending", "3 cancelled\n", "1 may not be cancelled by you.\n"},
	{"tasks tree t1", "GET /v1/tasks/t1/tree", "t1 running bob\n  t2 failed bob\n    t4 failed \n  t3 pending \n", ""},
	{"approvals", "GET /v1/approvals?limit=51", "ID  TASK  KIND      RISK  STATUS         QUESTION\nq1  t1    approval  high  expires in 1h  Delete bob? [bob]: bob\n", ""},
	{"approvals --task t1 --kind input --status answered,expired --limit 0", "GET /v1/approvals?kind=input&limit=500&status=answered&status=expired&taskId=t1",
		"ID  TASK  KIND      RISK  STATUS         QUESTION\nq1  t1    approval  high  expires in 1h  Delete bob? [bob]: bob\n", ""},
	{"answer q1 --deny --reason no", `POST /v1/approvals/q1 {"approve":false,"reason":"no"}`, "q1 open\n", ""},
	{"answer q1 --approve --remember session", `POST /v1/approvals/q1 {"approve":true,"remember":"session"}`, "q1 open\n", ""},
	{"answer q1 --approve --raise-by 0.50", `POST /v1/approvals/q1 {"approve":true,"raiseBy":"0.50"}`, "q1 open\n", ""},
	{"grants list", "GET /v1/grants", "ID  AGENT  FOR          BY   USES  EXPIRES  WHAT\ng1  bob    session s1   bob  3     in 2d    Deploy bob?\ng2  b      project bob  y    0     in 1h    x\n", ""},
	{"grants revoke g1", "DELETE /v1/grants/g1", "g1 revoked\n", ""},
	{"answer q1 --choice bob", `POST /v1/approvals/q1 {"input":"bob"}`, "q1 open\n", ""},
	{"answer t1 --approve", `POST /v1/tasks/t1/input {"approve":true}`, "t1 is running\n", ""},
	{"answer t1 staging", `POST /v1/tasks/t1/input {"input":"staging"}`, "t1 is running\n", ""},
	{"device list", "GET /v1/devices", "ID  USER  NAME  TRUST    AGE  LAST SEEN  THUMBPRINT\nd1  bob   bob   trusted  1h              th\n", ""},
	{"device trust d1", `PATCH /v1/devices/d1 {"trust":"trusted"}`, "d1 is trusted\n", ""},
	{"device trust d1 --level untrusted", `PATCH /v1/devices/d1 {"trust":"untrusted"}`, "d1 is trusted\n", ""},
	{"device revoke d1", "DELETE /v1/devices/d1", "d1 revoked\n", ""},
	{"device code --user local:bob --expires 30m", `POST /v1/devices/enrolment-codes {"userId":"local:bob","expiresSeconds":1800}`,
		"cce_bob\n", "It is good for one device until 2026-11-23T10:00:00Z, and is not shown again.\n"},
	{"policy explain --agent a --skill s --project web --label k=v", `POST /v1/permissions/check {"agentId":"a","skillId":"s","projectId":"web","labels":{"k":"v"}}`,
		"Decision:       denied\nLayer:          agent\nRule:           security.yaml: agentPolicies[bob]\nReason:         because bob\nPolicy version: 7\n", ""},
	{"policy get", "GET /v1/config/security", "allowedRoles: [bob]\n", ""},
	{"policy get --project web", "GET /v1/projects/web/policy", "allowedRoles: [bob]\n", ""},
	{"policy get --version 3", "GET /v1/config/security/versions/3", "allowedRoles: [bob]\n", ""},
	{"policy push -f - --comment why", `PUT /v1/config/security {"document":"hush\n","comment":"why"}`, "version 8\n", "Weaker: readonly may bob\n"},
	{"policy push -f - --project web", `PUT /v1/projects/web/policy {"document":"hush\n"}`, "version 8\n", "Weaker: readonly may bob\n"},
	{"policy versions", "GET /v1/config/security/versions", "VERSION  AUTHOR  ORIGIN  AGE  COMMENT\n8        bob     api     1h   bob\n", ""},
	{"policy diff 7 8", "GET /v1/config/security/diff?from=7&to=8", "-a\n+bob\n", "Weaker: readonly may bob\n"},
	{"policy rollback 3 --comment why", `POST /v1/config/security/rollback {"version":3,"comment":"why"}`, "version 8\n", "Weaker: readonly may bob\n"},
	{"policy simulate -f - --since 7d", `POST /v1/policy/simulate {"document":"hush\n","since":"2026-11-16T09:00:00Z"}`,
		"ENTRY  USER  ACTION       WAS      NOW     BY                                       REASON\n" +
			"e1     bob   task.submit  allowed  denied  agent security.yaml: agentPolicies[bob]  because bob\n",
		"The document changes 1 of 40 decisions. 2 more could not be made again.\n"},
	{"audit list --result denied --since 24h --user bob --limit 10", "GET /v1/audit?limit=11&result=denied&since=2026-11-22T09%3A00%3A00Z&userId=bob",
		"TIME                 RESULT  USER  ACTION       RESOURCE  PROJECT  LAYER  REASON\n2026-11-23 08:00:00  denied  bob   task.submit  bob                agent  bob\n", ""},
	{"audit export --format cef --until 1d", "GET /v1/audit/export?format=cef&until=2026-11-22T09%3A00%3A00Z", "CEF:0|bob\nCEF:0|two\n", ""},
	{"audit checkpoint", "GET /v1/audit/checkpoint", "claw\n3\nrootbob\n\n— claw sig\n", ""},
	{"audit proof e1", "GET /v1/audit/e1/proof", "Index: 2\nLeaf:  bGVhZg==\n\nHashes:\naGFzaA==\nbob\n\nCheckpoint:\nclaw\n3\nroot\n", ""},
}

func TestAdministratorsSeeAndChangeWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	h, asked := office(records("bob"))
	in := serve(t, h)
	in.stdin = "hush\n"
	for _, tc := range commands {
		got := in.run(t, strings.Fields(tc.args)...)
		want := result{exitOK, strings.ReplaceAll(tc.stdout, "URL", in.env["CODERCLAW_URL"]), tc.stderr}
		if got != want || asked() != tc.asks {
			t.Errorf("%s:\ngot  %+v\nwant %+v\nasked %s\nwant  %s", tc.args, got, want, asked(), tc.asks)
		}
	}
}

func TestDocumentsAreWholeAndTame(t *testing.T) {
	t.Parallel()
	h, _ := office(records(evil))
	in := serve(t, h)
	in.stdin = "hush\n"
	for _, tc := range commands {
		got := in.run(t, append(strings.Fields(tc.args), "-o", "json")...)
		if got.code != exitOK {
			t.Errorf("%s: got %+v", tc.args, got)
		}
		if strings.HasPrefix(tc.args, "audit export") { // its lines have a format of their own
			continue
		}
		if !json.Valid([]byte(got.stdout)) || strings.ContainsFunc(got.stdout+got.stderr, isUnsafe) {
			t.Errorf("%s: printed %q and %q", tc.args, got.stdout, got.stderr)
		}
	}
}

func TestAnExportReachesATerminalTame(t *testing.T) {
	t.Parallel()
	var seen bytes.Buffer
	w := &lineWriter{out: &screen{w: &seen, tty: true}}
	// The pieces cut a sequence and a character in two.
	for _, piece := range []string{"a\x1b[3", "1mb\xe2\x80", "\xaec\nrest\x1b]52;", "x\a"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("%q: %d, %v", piece, n, err)
		}
	}
	if err := w.close(); err != nil || seen.String() != "ab�c\nrest" {
		t.Errorf("the terminal got %q, %v", seen.String(), err)
	}
}

func TestAPartOfManyIsToldToBeOne(t *testing.T) {
	t.Parallel()
	entries := make([]api.AuditEntry, 4)
	for i := range entries {
		entries[i] = api.AuditEntry{ID: fmt.Sprint(i), Time: now}
	}
	h, _ := office(map[string]any{"GET /v1/audit": api.AuditList{Items: entries}})
	in := serve(t, h)
	if got := in.run(t, "audit", "list", "--limit", "3"); strings.Count(got.stdout, "\n") != 4 || got.stderr != "There are more: --limit 0 lists all.\n" {
		t.Errorf("got %+v", got)
	}
	if got := in.run(t, "audit", "list", "--limit", "0"); strings.Count(got.stdout, "\n") != 5 || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
}

func TestWhatFailsForOneIsDoneForTheOthers(t *testing.T) {
	t.Parallel()
	h, _ := office(map[string]any{"DELETE /v1/devices/d2": nil})
	got := serve(t, h).run(t, "device", "revoke", "d1", "d2")
	if want := (result{exitFailed, "d2 revoked\n", "clawctl: no /v1/devices/d1 (404 not-found)\n"}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestWrongUsageOfAccessCommandsSendsNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"login --provider github --password-stdin", "are for local accounts"},
		{"login --provider local --device-flow", "--device-flow is for identity providers"},
		{"login --token x --provider github", "--token is a login of its own"},
		{"login --audience x", "--audience is for --github-actions"},
		{"login --password-stdin", "--password-stdin needs --user"},
		{"login --user ann", "there is no terminal to ask at: use --password-stdin"},
		{"login --keyring safe", "want auto, os, file"},
		{"password", "there is no terminal to ask at"},
		{"sessions revoke", "this needs the id of a session"},
		{"users create", "this takes one argument, the name to log in with; there are 0"},
		{"bindings grant ci", "needs one of --user and --group"},
		{"bindings grant ci --user a --group b", "needs one of --user and --group"},
		{"skills execute", "this takes the id of a skill"},
		{"schedules create", "this takes a name and a description"},
		{"schedules create x y", "either --cron or --every"},
		{"schedules create x y --every 1h --cron x", "either --cron or --every"},
		{"schedules create x y --every 1h --overlap both", "want skip, queue, replace"},
		{"webhooks create", "the URL; there are 0"},
		{"webhooks update h1", "this needs what to change"},
		{"webhooks update h1 --label x", `--label "x": want key=value`},
		{"webhooks deliveries h1 --status lost", "want pending, delivered, dead"},
		{"webhooks retry h1", "the id of a webhook and those of its deliveries"},
		{"webhooks replay h1", "--since:"},
		{"webhooks verify", "this needs --secret-file"},
		{"keys create x --expires never", "want a duration such as 90m, 12h or 30d"},
		{"device verify", "needs the --code that an administrator has given you"},
		{"device trust d1 --level full", "want untrusted, verified, trusted"},
		{"policy push", "needs the --project, or the file (-f)"},
		{"policy diff 1", "the numbers of two versions; there are 1"},
		{"policy rollback last", `"last" is no version`},
		{"policy simulate", "needs the file (-f) of the document"},
		{"policy simulate -f x --since soon", `--since: "soon" is neither a time`},
		{"policy test", "needs the file (-f) of the cases"},
		{"policy explain --label x", `--label "x": want key=value`},
		{"audit list --result maybe", "want allowed, denied, error"},
		{"audit export --format xml", "want json, ocsf, cef"},
		{"audit list --until soon", `--until: "soon" is neither a time`},
	} {
		h, asked := office(nil)
		got := serve(t, h).run(t, strings.Fields(tc.args)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, tc.want) || got.stdout != "" || asked() != "" {
			t.Errorf("%s: got %+v after %q, want %q", tc.args, got, asked(), tc.want)
		}
	}
}

func TestPoliciesAreTestedWithoutAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	org := write("security.yaml", "allowedRoles: [developer, readonly]\n")
	project := write("project.yaml", "deniedUsers: [local:eve]\n")
	good := write("good.yaml", `cases:
  - {name: developers submit, user: local:ann, roles: [developer], permission: task:submit, expect: allowed}
  - {name: eve does not, user: local:eve, roles: [developer], permission: task:submit, expect: denied, layer: project}
`)
	bad := write("bad.yaml", `cases:
  - {name: readers submit, user: local:bob, roles: [readonly], permission: task:submit, expect: allowed}
  - {name: readers read, user: local:bob, roles: [readonly], permission: task:read, expect: allowed}
`)
	in := invocation{}
	if got := in.run(t, "policy", "test", "-f", good, "--org", org, "--project-policy", project); got != (result{exitOK, "2 of 2 cases are decided as expected\n", ""}) {
		t.Errorf("got %+v", got)
	}
	got := in.run(t, "policy", "test", "-f", bad, "--org", org)
	if got.code != exitFailed || !strings.HasPrefix(got.stdout, "FAIL "+bad+":2:") || !strings.Contains(got.stdout, ": readers submit: ") ||
		!strings.HasSuffix(got.stdout, "\n1 of 2 cases are decided as expected\n") || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
	var doc struct {
		Cases    int
		Failures []struct{ Name, Place, Layer string }
	}
	got = in.run(t, "policy", "test", "-f", bad, "--org", org, "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || got.code != exitFailed || doc.Cases != 2 || len(doc.Failures) != 1 || doc.Failures[0].Layer != "permission" {
		t.Errorf("got %+v: %+v, %v", got, doc, err)
	}
	wrong := write("wrong.yaml", "allowedRole: [x]\n")
	if got := in.run(t, "policy", "test", "-f", good, "--org", wrong); got.code != exitFailed || !strings.Contains(got.stderr, wrong+":1:1: ") {
		t.Errorf("got %+v", got)
	}
}

func TestSignaturesOfWebhooksAreVerifiedWithoutAServer(t *testing.T) {
	t.Parallel()
	const secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `{"type":"task.completed"}`
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	signature, err := api.SignWebhook(secret, "evt_1", at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	h, asked := office(nil)
	in := serve(t, h)
	args := []string{"webhooks", "verify", "--secret-file", file, "--id", "evt_1", "--timestamp", fmt.Sprint(at.Unix()), "--signature", signature}
	in.stdin = body
	if got, want := in.run(t, args...), (result{exitOK, "The signature is good.\n", ""}); got != want {
		t.Errorf("got %+v", got)
	}
	in.stdin = body + " "
	if got := in.run(t, args...); got.code != exitFailed || !strings.Contains(got.stderr, "no signature of the webhook is by this secret") || strings.Contains(got.stderr, secret) {
		t.Errorf("got %+v", got)
	}
	if asked() != "" {
		t.Errorf("the server was asked %s", asked())
	}
}

func TestAPingThatFailsIsAFailure(t *testing.T) {
	t.Parallel()
	h, _ := office(map[string]any{"POST /v1/webhooks/h1/test": api.WebhookAttempt{Status: 500, Error: "answered 500", Response: evil}})
	if got, want := serve(t, h).run(t, "webhooks", "test", "h1"), (result{exitFailed, "", "clawctl: webhook h1: answered 500: " + tame + "\n"}); got != want {
		t.Errorf("got %+v", got)
	}
}
