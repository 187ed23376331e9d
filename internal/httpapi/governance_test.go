package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/task"
)

// client calls the rig's server as clawctl does, in a session.
func (r *rig) client(who api.OpenedSession) *api.Client {
	r.t.Helper()
	c, err := api.NewClient(r.url, api.WithSession(who))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// verified calls the server in a new session of root's, from a verified device.
func (r *rig) verified(admin api.OpenedSession) *api.Client {
	r.t.Helper()
	signer, err := dpop.GenerateEd25519()
	if err != nil {
		r.t.Fatal(err)
	}
	prove := api.WithProof(func(method, url, accessToken string) (string, error) {
		return signer.Proof(method, url, accessToken, "", time.Now())
	})
	code, err := r.client(admin).CreateEnrolmentCode(r.t.Context(), api.NewEnrolmentCode{})
	if err != nil {
		r.t.Fatal(err)
	}
	stranger, err := api.NewClient(r.url, prove)
	if err != nil {
		r.t.Fatal(err)
	}
	opened, err := stranger.OpenSession(r.t.Context(), api.NewSession{Login: "root", Password: password, DeviceName: "d", EnrolmentCode: code.Code})
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := api.NewClient(r.url, prove, api.WithSession(opened))
	if err != nil {
		r.t.Fatal(err)
	}
	return client
}

// push puts a policy into force, the organisation's or that of a project.
func (r *rig) push(who api.OpenedSession, projectID, document string, opts ...api.ChangeOption) api.PolicyDocument {
	r.t.Helper()
	doc, err := r.client(who).PutPolicy(r.t.Context(), projectID, api.NewPolicyDocument{Document: document}, opts...)
	if err != nil {
		r.t.Fatalf("put a policy of %q: %v", projectID, err)
	}
	return doc
}

// status is that of a refusal; 0: it was none.
func status(err error) int {
	if refusal, ok := errors.AsType[*api.Error](err); ok {
		return refusal.Status
	}
	return 0
}

func encode(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAPolicyIsPutReadComparedAndRolledBack(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	client, ctx := r.client(admin), t.Context()
	const first, second = "deniedUsers: [local:eve]\n", "deniedUsers: [local:mallory]\n"
	for _, project := range []string{"", "shop", "acme/shop"} {
		if _, err := client.Policy(ctx, project); status(err) != 404 {
			t.Errorf("%q: before there is one: %v", project, err)
		}
		put := r.push(admin, project, first, api.IfVersion(0))
		if put.Version != 1 || put.Document != first || put.Author != "local:root" || put.Origin != "api" || put.ProjectID != project || len(put.Weakens) != 0 {
			t.Errorf("%q: the first is %+v", project, put)
		}
		put, err := client.PutPolicy(ctx, project, api.NewPolicyDocument{Document: second, Comment: "it was not Eve"}, api.IfVersion(1))
		if err != nil || put.Version != 2 || put.Comment != "it was not Eve" || len(put.Weakens) != 1 || !strings.Contains(put.Weakens[0], "local:eve") {
			t.Errorf("%q: the second is %+v, %v", project, put, err)
		}
		if again := r.push(admin, project, second); again.Version != 2 {
			t.Errorf("%q: what is in force already became version %d", project, again.Version)
		}
		diff, err := client.DiffPolicy(ctx, project, 1, 2)
		if err != nil || diff.From != 1 || diff.To != 2 || !strings.Contains(diff.Diff, "-"+first+"+"+second) || !slices.Equal(diff.Weakens, put.Weakens) {
			t.Errorf("%q: they differ by %+v, %v", project, diff, err)
		}
		back, err := client.RollbackPolicy(ctx, project, api.PolicyRollback{Version: 1})
		if err != nil || back.Version != 3 || back.Document != first || back.Origin != "rollback" || len(back.Weakens) != 1 {
			t.Errorf("%q: rolled back to %+v, %v", project, back, err)
		}
		if now, err := client.Policy(ctx, project); err != nil || now.Version != 3 || now.Document != first {
			t.Errorf("%q: in force is %+v, %v", project, now, err)
		}
		if old, err := client.PolicyVersion(ctx, project, 2); err != nil || old.Document != second {
			t.Errorf("%q: version 2 is %+v, %v", project, old, err)
		}
		if _, err := client.PolicyVersion(ctx, project, 4); status(err) != 404 {
			t.Errorf("%q: version 4: %v", project, err)
		}
		var versions []int64
		for v, err := range client.PolicyVersions(ctx, project) {
			if err != nil || v.Document != "" {
				t.Fatalf("%q: listed %+v, %v", project, v, err)
			}
			versions = append(versions, v.Version)
		}
		if !slices.Equal(versions, []int64{3, 2, 1}) {
			t.Errorf("%q: listed %v", project, versions)
		}
	}
	page := want[api.PolicyVersionList](r, 200, "GET", "/v1/config/security/versions?limit=2", "", bearer(admin)...)
	rest := want[api.PolicyVersionList](r, 200, "GET", "/v1/config/security/versions?limit=2&cursor="+page.NextCursor, "", bearer(admin)...)
	if len(page.Items) != 2 || len(rest.Items) != 1 || rest.Items[0].Version != 1 || rest.NextCursor != "" {
		t.Errorf("pages %+v and %+v", page, rest)
	}
	r.problem(422, "invalid", "GET", "/v1/config/security/versions?cursor=x", "", bearer(admin)...)
	resp, _ := r.do("GET", "/v1/projects/acme%2Fshop/policy", "", bearer(admin)...)
	if resp.Header.Get("ETag") != `"3"` {
		t.Errorf("the tag of version 3 is %s", resp.Header.Get("ETag"))
	}
}

func TestOfWritersOfAPolicyAtOnceOneWins(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	client := r.client(admin)
	for _, project := range []string{"", "shop"} {
		for version := range int64(3) {
			var won, lost atomic.Int64
			var writers sync.WaitGroup
			for i := range 6 {
				writers.Go(func() {
					doc := api.NewPolicyDocument{Document: fmt.Sprintf("deniedUsers: [local:u%d-%d]\n", version, i)}
					_, err := client.PutPolicy(t.Context(), project, doc, api.IfVersion(version))
					switch {
					case err == nil:
						won.Add(1)
					case status(err) == 409:
						lost.Add(1)
					default:
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			writers.Wait()
			if now, err := client.Policy(t.Context(), project); won.Load() != 1 || lost.Load() != 5 || err != nil || now.Version != version+1 {
				t.Errorf("%q after version %d: %d won, %d lost, now version %d, %v", project, version, won.Load(), lost.Load(), now.Version, err)
			}
		}
	}
	for _, header := range [][]string{{"If-Match", "3"}, {"If-Match", `"x"`}, {"If-None-Match", `"3"`}, {"If-Match", `"3"`, "If-None-Match", "*"}} {
		r.problem(422, "invalid", "PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`, append(header, bearer(admin)...)...)
	}
}

func TestABadDocumentIsRefusedNamingTheLineAndColumnOfEachFault(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	const org, shop = "/v1/config/security", "/v1/projects/shop/policy"
	for name, c := range map[string]struct {
		path, document string
		faults         []string // place and part of the message
	}{
		"no YAML":              {org, "allowedRoles: [admin\n", []string{"body.document:1:"}},
		"unknown keys":         {org, "enforceTrust: false\nenforcedTrust: true\n", []string{"body.document:2:1: enforcedTrust"}},
		"several faults":       {org, "minimumTrustLevel: total\nallowedRoles: [boss]\n", []string{"body.document:1:20: total", "body.document:2:16: boss"}},
		"a bad expression":     {org, "customRules:\n  - name: r\n    expression: usr == \"x\"\n", []string{"body.document:3:17: usr"}},
		"roles in a project":   {shop, "roles:\n  boss: {inherits: admin}\n", []string{"body.document:2:3: roles"}},
		"logins in a project":  {shop, "identity:\n  providers: [local]\n", []string{"body.document:2:3: identity"}},
		"devices in a project": {shop, "deviceTrust:\n  autoTrustLocal: true\n", []string{"body.document:2:3: deviceTrust"}},
	} {
		body := encode(t, api.NewPolicyDocument{Document: c.document})
		p := r.problem(422, "invalid", "PUT", c.path, body, bearer(admin)...)
		if len(p.Errors) != len(c.faults) {
			t.Errorf("%s: %d faults: %+v", name, len(p.Errors), p.Errors)
			continue
		}
		for i, f := range c.faults {
			place, message, _ := strings.Cut(f, ": ")
			if e := p.Errors[i]; !strings.HasPrefix(e.Location, place) || !strings.Contains(e.Message, message) {
				t.Errorf("%s: fault %d is %+v, want %s", name, i, e, f)
			}
		}
		r.problem(404, "not-found", "GET", c.path, "", bearer(admin)...)
	}
}

// clerks lets clerks change policies.
const clerks = "roles:\n  clerk: {inherits: readonly, additionalPermissions: [\"config:write\"]}\n"

func TestWhoMayChangeAPolicyMayNotWeakenIt(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", clerks)
	r.push(admin, "shop", "minimumTrustLevel: untrusted\ndeniedUsers: [local:eve]\n")
	clerk := r.login(admin, "clerk", "clerk", "shop")
	client, ctx := r.client(clerk), t.Context()
	r.push(clerk, "shop", "minimumTrustLevel: untrusted\ndeniedUsers: [local:eve, local:mallory]\n")

	for what, change := range map[string]func() error{
		"put a weaker one": func() error {
			_, err := client.PutPolicy(ctx, "shop", api.NewPolicyDocument{Document: "deniedUsers: [local:mallory]\n"})
			return err
		},
		"go back to a weaker one": func() error {
			_, err := client.RollbackPolicy(ctx, "shop", api.PolicyRollback{Version: 1})
			return err
		},
	} {
		if err := change(); status(err) != 403 || !strings.Contains(err.Error(), "admin:all") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for project, want := range map[string]int{"": 403, "bank": 404} {
		_, err := client.PutPolicy(ctx, project, api.NewPolicyDocument{Document: "deniedUsers: [local:root]\n"})
		_, rollback := client.RollbackPolicy(ctx, project, api.PolicyRollback{Version: 1})
		_, read := client.Policy(ctx, project)
		_, diff := client.DiffPolicy(ctx, project, 0, 0)
		_, simulate := client.SimulatePolicy(ctx, api.PolicySimulation{ProjectID: project, Document: "enforceTrust: false\n", Since: time.Now()})
		for what, err := range map[string]error{"put": err, "roll back": rollback, "read": read, "compare": diff, "simulate": simulate} {
			if status(err) != want {
				t.Errorf("%s the policy of %q: %v, want %d", what, project, err, want)
			}
		}
	}
	if now, err := client.Policy(ctx, "shop"); err != nil || now.Version != 2 {
		t.Errorf("in force is %+v, %v", now, err)
	}
}

func TestAPolicyHoldsAtOnceForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.push(admin, "", "enforceTrust: false\n")
	ann := r.login(admin, "ann", "developer", "shop")
	bob := r.login(admin, "bob", "developer", "shop")
	queue := func(who api.OpenedSession) api.Task {
		t.Helper()
		return want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":""}`, bearer(who)...)
	}
	hers, his := queue(ann), queue(bob)
	watching, other := r.stream("/v1/tasks/"+hers.ID+"/stream", bearer(ann)...), r.stream("/v1/tasks/"+hers.ID+"/stream", bearer(bob)...)
	watching.event()
	other.event()

	r.push(admin, "shop", "deniedUsers: [local:ann]\n")
	if p := r.problem(403, "forbidden", "GET", "/v1/tasks", "", bearer(ann)...); p.Detail != "local:ann is denied (.coderClaw/security.yaml: deniedUsers[local:ann])" {
		t.Errorf("refused with %q", p.Detail)
	}
	for {
		if _, ok := watching.next(); !ok {
			break
		}
	}
	if err := watching.lines.Err(); err != nil { // it ends, and not by the time-out
		t.Errorf("her stream: %v", err)
	}
	r.work("w")
	leases, _, err := r.tasks.Claim(t.Context(), task.InProcess, "w", 10, 0)
	if err != nil || len(leases) != 1 || leases[0].ID.String() != his.ID {
		t.Fatalf("claimed %+v, %v", leases, err)
	}
	// He goes on watching, and sees how hers ends.
	for m := other.event(); m.data.Status != api.TaskFailed && m.data.Status != api.TaskCancelled; m = other.event() {
	}
	if got := want[api.Task](r, 200, "GET", "/v1/tasks/"+hers.ID, "", bearer(bob)...); !strings.Contains(got.Error, "local:ann is denied") {
		t.Errorf("her task is %s, for %q", got.Status, got.Error)
	}
}

func TestTheRuntimeConfigurationIsShownAndNotChanged(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	got, err := r.client(admin).RuntimeConfig(t.Context())
	if err != nil || got.Mode != "local-only" || got.PublicURL != r.url || !slices.Equal(got.DefaultRoles, []string{"developer"}) {
		t.Errorf("%+v, %v", got, err)
	}
	r.problem(405, "method-not-allowed", "PUT", "/v1/config/runtime", encode(t, got), bearer(admin)...)
}
