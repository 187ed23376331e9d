package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
)

var submit = policy.Request{Permission: policy.TaskSubmit, Action: "task.submit"}

// submitIn asks for a task in a project.
func submitIn(projectID string) policy.Request {
	q := submit
	q.ProjectID = projectID
	return q
}

const (
	noDevs   = "deniedUsers: [dev]\n"
	noOthers = "deniedUsers: [dev, other]\n"
)

func TestEveryChangeOfAPolicyIsAVersion(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	for _, projectID := range []string{"shop", ""} {
		asker, q := in(projectID, dev), submitIn(projectID)
		if d := decide(t, r, asker, q); !d.Allowed {
			t.Fatalf("%q: without a document: %+v", projectID, d)
		}
		v, err := r.PutPolicy(t.Context(), admin, projectID, []byte(noDevs), nil, "for now")
		if err != nil {
			t.Fatal(err)
		}
		if v.Version != 1 || v.ProjectID != projectID || v.Author != "ann" || v.Comment != "for now" || v.Origin != registry.OriginAPI ||
			v.Document != noDevs || time.Since(v.CreatedAt).Abs() > time.Hour || v.Weakens != nil {
			t.Errorf("%q: put %+v", projectID, v)
		}
		if d := decide(t, r, asker, q); d.Allowed || d.Reason != "dev is denied" || !strings.HasSuffix(d.Rule, "security.yaml: deniedUsers[dev]") {
			t.Errorf("%q: under the document: %+v", projectID, d)
		}
		if again := putPolicy(t, r, projectID, noDevs); again.Version != 1 || again.Comment != "for now" {
			t.Errorf("%q: the same again is %+v", projectID, again)
		}
		if v := putPolicy(t, r, projectID, "{}\n"); v.Version != 2 || !slices.Equal(v.Weakens, []string{"deniedUsers no longer has dev"}) {
			t.Errorf("%q: put %+v", projectID, v)
		}
		if d := decide(t, r, asker, q); !d.Allowed {
			t.Errorf("%q: under an empty document: %+v", projectID, d)
		}
		v, err = r.Rollback(t.Context(), admin, projectID, 1, "again")
		if err != nil || v.Version != 3 || v.Origin != registry.OriginRollback || v.Document != noDevs || v.Weakens != nil {
			t.Errorf("%q: rolled back to %+v, %v", projectID, v, err)
		}
		if d := decide(t, r, asker, q); d.Allowed {
			t.Errorf("%q: after the rollback: %+v", projectID, d)
		}
		checkHistory(t, r, projectID)
	}
	if got, want := audited(t, pool), []string{
		`policy.update shop {"version":1}`,
		`policy.update shop {"version":2,"weakens":["deniedUsers no longer has dev"]}`,
		`policy.rollback shop {"version":3,"restores":1}`,
		`policy.update organization {"version":1}`,
		`policy.update organization {"version":2,"weakens":["deniedUsers no longer has dev"]}`,
		`policy.rollback organization {"version":3,"restores":1}`,
	}; !slices.Equal(got, want) {
		t.Errorf("the audit log holds\n%s", strings.Join(got, "\n"))
	}
}

// checkHistory looks at the versions that TestEveryChangeOfAPolicyIsAVersion
// has made.
func checkHistory(t *testing.T, r *registry.Registry, projectID string) {
	t.Helper()
	list := func(before int64, limit int) (numbers []int64) {
		versions, err := r.PolicyVersions(t.Context(), admin, projectID, before, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			numbers = append(numbers, v.Version)
			if v.Document != "" || v.Author != "ann" || v.CreatedAt.IsZero() {
				t.Errorf("%q: listed %+v", projectID, v)
			}
		}
		return numbers
	}
	if all, page := list(0, 10), list(3, 1); !slices.Equal(all, []int64{3, 2, 1}) || !slices.Equal(page, []int64{2}) {
		t.Errorf("%q: all are %v, the page after 3 is %v", projectID, all, page)
	}
	for at, want := range map[int64]int64{0: 3, 1: 1, 2: 2, 3: 3} {
		if v, err := r.PolicyAt(t.Context(), admin, projectID, at); err != nil || v.Version != want || v.Document == "" {
			t.Errorf("%q: version %d is %+v, %v", projectID, at, v, err)
		}
	}
	_, err := r.PolicyAt(t.Context(), admin, projectID, 4)
	refused(t, "a version to come", err, fault.NotFound, "no such policy document")
	_, err = r.Rollback(t.Context(), admin, projectID, 4, "")
	refused(t, "a rollback to it", err, fault.NotFound, "no such policy document")
	_, err = r.PolicyAt(t.Context(), admin, projectID+"-other", 0)
	refused(t, "a project without a document", err, fault.NotFound, "no such policy document")

	d, err := r.DiffPolicies(t.Context(), admin, projectID, 1, 2)
	if err != nil || !strings.Contains(d.Diff, "@@ -1,1 +1,1 @@\n-deniedUsers: [dev]\n+{}\n") || len(d.Weakens) != 1 {
		t.Errorf("%q: from 1 to 2: %+v, %v", projectID, d, err)
	}
	d, err = r.DiffPolicies(t.Context(), admin, projectID, 0, 0)
	if err != nil || d.From != 0 || d.To != 3 || !strings.Contains(d.Diff, "@@ -0,0 +1,1 @@\n+deniedUsers: [dev]\n") {
		t.Errorf("%q: from nothing to what is in force: %+v, %v", projectID, d, err)
	}
	if d, err = r.DiffPolicies(t.Context(), admin, projectID, 1, 3); err != nil || d.Diff != "" || d.Weakens != nil {
		t.Errorf("%q: from 1 to 3: %+v, %v", projectID, d, err)
	}
}

func TestAFaultyDocumentIsRefusedWithLineAndColumn(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for name, c := range map[string]struct {
		projectID, document string
		want                []string
	}{
		"an unknown key and a wrong level": {"", "enforcetrust: true\nminimumTrustLevel: total\n", []string{
			"body.document:1:1 unknown key",
			`body.document:2:20 minimumTrustLevel: "total" is not one of`,
		}},
		"a section that is not the project's": {"shop", "roles: {}\n", []string{"body.document:1:8 roles is for the organisation's document"}},
		"a role that the organisation has not": {"shop", "# who\nallowedRoles:\n  - clerk\n", []string{
			`body.document:3:5 allowedRoles: "clerk" is not one of the roles`,
		}},
		"no text": {"", "a\x00b", []string{"body.document:1:2 a character is not UTF-8 text"}},
	} {
		_, err := r.PutPolicy(t.Context(), admin, c.projectID, []byte(c.document), nil, "")
		got := fields(err)
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: %v; fields %q", name, err, got)
		}
	}
	_, err := r.PutPolicy(t.Context(), admin, "a\x00b", []byte("{}"), nil, strings.Repeat("x", 1001))
	if got := fields(err); len(got) != 2 || !strings.HasPrefix(got[0], "body.comment ") || !strings.HasPrefix(got[1], "path.id ") {
		t.Errorf("a faulty id and a long comment: %q", got)
	}
	if p, err := r.Policy(t.Context(), "shop"); err != nil || !p.Decide(in("shop", dev), submitIn("shop")).Allowed {
		t.Errorf("a refused document is in force: %v", err)
	}
}

func TestOfWritersAtOnceOneWins(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	servers := []*registry.Registry{over(pool, registry.Options{}), over(pool, registry.Options{})}
	putPolicy(t, servers[0], "shop", "{}")
	none, one := int64(0), int64(1)
	for _, expected := range []*int64{&none, &one, nil} {
		before, err := servers[0].PolicyAt(t.Context(), admin, "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		var won atomic.Int64
		var writers sync.WaitGroup
		for i := range 8 {
			writers.Go(func() {
				text := fmt.Sprintf("deniedUsers: [u%d, %q]\n", i, fmt.Sprint(expected))
				v, err := servers[i%2].PutPolicy(t.Context(), admin, "shop", []byte(text), expected, "")
				if err == nil {
					won.Add(1)
					if expected != nil && v.Version != *expected+1 {
						t.Errorf("version %d replaced %d", v.Version, *expected)
					}
				} else {
					refused(t, "a writer that came too late", err, fault.Conflict, "version")
				}
			})
		}
		writers.Wait()
		after, err := servers[0].PolicyAt(t.Context(), admin, "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		if won.Load() != after.Version-before.Version {
			t.Errorf("%d writers won and there are %d more versions", won.Load(), after.Version-before.Version)
		}
		if expected == &none && won.Load() != 0 || expected == &one && won.Load() != 1 || expected == nil && won.Load() < 1 {
			t.Errorf("%d writers won", won.Load())
		}
	}
}

func TestAnotherServersPolicyIsHeardOfOrSeenInTime(t *testing.T) {
	t.Parallel()
	pool, bus := pgtest.DB(t), &stream.Memory{}
	there := over(pool, registry.Options{Bus: bus})
	hearing := over(pool, registry.Options{Bus: bus})
	deaf := over(pool, registry.Options{})
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	hearing.SetNow(now)
	deaf.SetNow(now)
	for i, document := range []string{noDevs, "{}", noOthers} {
		before := decide(t, deaf, in("shop", dev), submitIn("shop")).Allowed
		decide(t, hearing, in("shop", dev), submitIn("shop"))
		putPolicy(t, there, "shop", document)
		if d := decide(t, hearing, in("shop", dev), submitIn("shop")); d.Allowed == before {
			t.Errorf("change %d was heard of, and still %+v", i, d)
		}
		clock.Add(int64(2*time.Second - 1))
		if d := decide(t, deaf, in("shop", dev), submitIn("shop")); d.Allowed != before {
			t.Errorf("change %d was read anew before its time: %+v", i, d)
		}
		clock.Add(1)
		if d := decide(t, deaf, in("shop", dev), submitIn("shop")); d.Allowed == before {
			t.Errorf("change %d was not seen within two seconds: %+v", i, d)
		}
	}
	clock.Add(int64(time.Hour))
	decide(t, hearing, dev, submit)
	bus.Publish(stream.Signal{Topic: stream.AccessChanged, ID: "of one session"})
	exec(t, pool, `INSERT INTO agents (id, definition) VALUES ('new', '{"executor": "openai", "description": "x"}')`)
	if _, err := hearing.Agent(t.Context(), "new"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("the end of one session made all be read anew: %v", err)
	}
	bus.Publish(stream.Signal{Topic: stream.Resync})
	if _, err := hearing.Agent(t.Context(), "new"); err != nil {
		t.Errorf("after a resync: %v", err)
	}
}

func TestADecisionCostsNoRoundTripWhileFresh(t *testing.T) {
	t.Parallel()
	pool, asked := counted(t)
	r := over(pool, registry.Options{})
	r.SetNow(func() time.Time { return time.Unix(0, 0) })
	putPolicy(t, r, "", clerks)
	for i := range 50 {
		putPolicy(t, r, fmt.Sprintf("p%d", i), noDevs)
	}
	everything := func() {
		for i := range 50 {
			id := fmt.Sprintf("p%d", i)
			q := submitIn(id)
			q.AgentID, q.SkillID = "code-modifier", "file-read"
			decide(t, r, in(id, dev), q)
			decide(t, r, in(id, clerk), q)
		}
		decide(t, r, dev, submitIn("without"))
	}
	everything()
	before := asked.Load()
	everything()
	if got := asked.Load() - before; got != 0 {
		t.Errorf("%d round trips", got)
	}
	// One project's document is another now: only that is read, with what else
	// there may be that is new.
	putPolicy(t, r, "p7", noOthers)
	before = asked.Load()
	everything()
	if got := asked.Load() - before; got != 2 {
		t.Errorf("%d round trips after a change, want one to look and one to read", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	r := newRegistry(b)
	putPolicy(b, r, "", clerks)
	putPolicy(b, r, "shop", `
agentPolicies: [{agentId: code-modifier, allowedRoles: [developer, clerk]}]
skillPolicies: [{skillId: file-write, requiredPermissions: ["skill:execute"]}]
`)
	c, q := in("shop", dev), submitIn("shop")
	q.AgentID, q.SkillID = "code-modifier", "file-write"
	if d := decide(b, r, c, q); !d.Allowed {
		b.Fatal(d)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Decide(b.Context(), c, q); err != nil {
				b.Error(err)
			}
		}
	})
}
