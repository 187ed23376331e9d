package registry_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
)

func TestThePolicyInTheWorkspaceNarrowsWhatIsDoneThere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "security.yaml")
	bus, recorder := &stream.Memory{}, &denials{}
	r := registry.New(pgtest.DB(t), registry.Options{
		Workspace: file, Runnable: func(registry.Agent) error { return nil }, Recorder: recorder, Bus: bus,
	})
	heard := 0
	bus.Subscribe(func(stream.Signal) { heard++ })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		bus.Publish(stream.Signal{Topic: stream.AccessChanged}) // or two seconds go by
	}
	decide := func(c policy.Caller, q policy.Request) policy.Decision {
		t.Helper()
		d, err := r.Decide(ctx, c, q)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	use := policy.Request{Permission: policy.TaskSubmit, Action: "task.submit", AgentID: "code-creator"}
	if d := decide(dev, use); !d.Allowed {
		t.Fatalf("without a policy in the workspace: %+v", d)
	}
	if err := r.CheckWorkspace(ctx); err != nil {
		t.Error(err)
	}

	before := heard
	write("agentPolicies:\n  - agentId: code-creator\n    allowedRoles: [admin]\n")
	if d := decide(dev, use); d.Allowed || d.Layer != policy.LayerAgent || !strings.Contains(d.Rule, ".coderClaw/security.yaml") {
		t.Errorf("a denied agent: %+v", d)
	}
	if heard != before+2 { // the test's own, and the registry's
		t.Errorf("others heard %d signals of the change", heard-before-1)
	}
	if d := decide(admin, use); !d.Allowed {
		t.Errorf("an allowed role: %+v", d)
	}
	elsewhere := use
	elsewhere.ProjectID = "web"
	if d := decide(in("web", dev), elsewhere); !d.Allowed {
		t.Errorf("in a project, which has a policy of its own or none: %+v", d)
	}
	if d := decide(admin, policy.Request{Permission: policy.ConfigWrite}); !d.Allowed {
		t.Errorf("the server's configuration is none of the workspace's business: %+v", d)
	}

	// It may be edited while the server runs, badly too: nothing is allowed then.
	write("agentPolicies: [{agentId: code-creator, allowedRoles: [nobody-knows]}]\n")
	for _, c := range []policy.Caller{dev, admin} {
		if d := decide(c, use); d.Allowed || !strings.Contains(d.Reason, "cannot be used") {
			t.Errorf("%s, with a role that there is not: %+v", c.UserID, d)
		}
	}
	if err := r.CheckWorkspace(ctx); err == nil || !strings.Contains(err.Error(), "nobody-knows") {
		t.Errorf("at start: %v", err)
	}
	write("identity: {providers: [local]}\nenforceTrust: maybe\n")
	if err := r.CheckWorkspace(ctx); err == nil || !strings.Contains(err.Error(), file+":1:") || !strings.Contains(err.Error(), file+":2:") {
		t.Errorf("at start: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	bus.Publish(stream.Signal{Topic: stream.AccessChanged})
	if d := decide(dev, use); !d.Allowed {
		t.Errorf("after it was removed: %+v", d)
	}
}
