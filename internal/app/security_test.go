package app_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// example is one of the configurations that users are shown.
func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "policy", "testdata", "seed", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A document that lets nobody in, or only from devices, is no reason for the
// server itself not to read it.
func TestAServerStartsUnderEveryDocument(t *testing.T) {
	t.Parallel()
	for what, text := range map[string]string{
		"only trusted devices": "enforceTrust: true\nminimumTrustLevel: trusted\n",
		"one user":             "allowedUsers: [local:root]\n",
		"one role":             "allowedRoles: [developer]\n",
		"nobody":               "allowedUsers: []\n",
		"no provider":          "identity: {providers: []}\n",
		"the team's":           example(t, "team.yaml"),
		"the reference":        example(t, "reference.yaml"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t), "CODERCLAW_REQUIRE_AUTH=true")
			in.config("security.yaml", text)
			in.serving("serve")
		})
	}
}

func TestThePolicyInTheWorkspaceHoldsAsItStandsAndAsItIsEdited(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	in := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t))
	dir := filepath.Join(in.home, "work", ".coderClaw")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "security.yaml")
	if err := os.WriteFile(file, []byte(example(t, "project.yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	in.serving("serve")
	submit := func() error {
		_, err := in.client().SubmitTask(ctx, api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual})
		return err
	}
	var refusal *api.Error
	if err := submit(); !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden || !strings.Contains(refusal.Detail, ".coderClaw/security.yaml: enforceTrust") {
		t.Fatalf("from no device, where the project wants a verified one: %v", err)
	}
	if err := os.WriteFile(file, []byte("allowedRoles: [developer]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		err := submit()
		if err == nil {
			break
		}
		if !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden || time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := os.WriteFile(file, []byte("allowedRoles: [developer\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t), "CODERCLAW_WORKSPACE_ROOT="+filepath.Join(in.home, "work"))
	p := other.start("serve")
	select {
	case <-p.exited:
		if !strings.Contains(p.log.String(), file+":") {
			t.Errorf("a server that starts on a broken policy says %s", p.log)
		}
	case <-ctx.Done():
		t.Error("a server has started on a broken policy")
	}
}
