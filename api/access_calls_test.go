package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

// drain reads a sequence to its end.
func drain[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestAccessCallsSendWhatTheContractSays(t *testing.T) {
	t.Parallel()
	var got string
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = strings.TrimSpace(strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"),
			r.Header.Get("If-Match") + r.Header.Get("If-None-Match"), string(body)}, " "))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"x","items":[{"id":"a"}],"unknownToThisClient":1}`)
	}), api.WithToken("t"))
	ctx := t.Context()
	trusted, yes := "trusted", true
	for _, tc := range []struct {
		call func() error
		want string
	}{
		{func() error {
			_, err := c.OpenSession(ctx, api.NewSession{Login: "ann", Password: "p", ProjectID: "web"})
			return err
		}, `POST /v1/sessions   {"login":"ann","password":"p","projectId":"web"}`},
		{func() error { _, err := c.RefreshSession(ctx, "ccr_1"); return err }, `POST /v1/sessions/refresh   {"refreshToken":"ccr_1"}`},
		{func() error { return drain(c.Sessions(ctx)) }, "GET /v1/sessions Bearer t"},
		{func() error { _, err := c.Session(ctx, "s/1"); return err }, "GET /v1/sessions/s%2F1 Bearer t"},
		{func() error { return c.RevokeSession(ctx, "current") }, "DELETE /v1/sessions/current Bearer t"},
		{func() error { _, err := c.SessionMemory(ctx, "s"); return err }, "GET /v1/sessions/s/memory Bearer t"},
		{func() error { _, err := c.Memory(ctx, "s", "a/b"); return err }, "GET /v1/sessions/s/memory/a%2Fb Bearer t"},
		{func() error {
			_, err := c.PutMemory(ctx, "s", "k", json.RawMessage(`[1]`), api.IfVersion(3))
			return err
		}, `PUT /v1/sessions/s/memory/k Bearer t "3" {"value":[1]}`},
		{func() error {
			_, err := c.PutMemory(ctx, "s", "k", json.RawMessage(`1`), api.IfVersion(0))
			return err
		}, `PUT /v1/sessions/s/memory/k Bearer t * {"value":1}`},
		{func() error { return c.DeleteMemory(ctx, "s", "k", api.IfVersion(4)) }, `DELETE /v1/sessions/s/memory/k Bearer t "4"`},
		{func() error { _, err := c.StreamTicket(ctx); return err }, "POST /v1/stream-tickets Bearer t"},
		{func() error { _, err := c.LoginProviders(ctx); return err }, "GET /v1/logins/providers"},
		{func() error {
			_, err := c.StartLogin(ctx, api.NewLogin{Provider: "github", Flow: "device"})
			return err
		}, `POST /v1/logins   {"provider":"github","flow":"device"}`},
		{func() error { _, err := c.FinishLogin(ctx, api.FinishLogin{ID: "l"}); return err }, `POST /v1/logins/finish   {"id":"l"}`},
		{func() error { return drain(c.Users(ctx)) }, "GET /v1/users Bearer t"},
		{func() error { _, err := c.User(ctx, "local:ann"); return err }, "GET /v1/users/local:ann Bearer t"},
		{func() error { _, err := c.CreateUser(ctx, api.NewUser{Login: "ann", Password: "p"}); return err }, `POST /v1/users Bearer t  {"login":"ann","password":"p"}`},
		{func() error { _, err := c.UpdateUser(ctx, "u", api.UserPatch{Disabled: &yes}); return err }, `PATCH /v1/users/u Bearer t  {"disabled":true}`},
		{func() error { return c.DeleteUser(ctx, "u") }, "DELETE /v1/users/u Bearer t"},
		{func() error { return c.ChangePassword(ctx, api.PasswordChange{Old: "a", New: "b"}) }, `POST /v1/me/password Bearer t  {"old":"a","new":"b"}`},
		{func() error { return drain(c.RoleBindings(ctx)) }, "GET /v1/role-bindings Bearer t"},
		{func() error {
			_, err := c.CreateRoleBinding(ctx, api.NewRoleBinding{GroupID: "g", Role: "ci"})
			return err
		}, `POST /v1/role-bindings Bearer t  {"groupId":"g","role":"ci"}`},
		{func() error { return c.DeleteRoleBinding(ctx, "b") }, "DELETE /v1/role-bindings/b Bearer t"},
		{func() error { return drain(c.APIKeys(ctx)) }, "GET /v1/api-keys Bearer t"},
		{func() error { _, err := c.CreateAPIKey(ctx, api.NewAPIKey{Name: "n", ExpiresSeconds: 60}); return err }, `POST /v1/api-keys Bearer t  {"name":"n","expiresSeconds":60}`},
		{func() error { return c.RevokeAPIKey(ctx, "k") }, "DELETE /v1/api-keys/k Bearer t"},
		{func() error { _, err := c.DeviceChallenge(ctx); return err }, "POST /v1/devices/challenges Bearer t"},
		{func() error {
			_, err := c.EnrollDevice(ctx, api.NewDevice{Name: "n", Key: json.RawMessage(`{}`), Challenge: "c", Signature: "s"})
			return err
		}, `POST /v1/devices Bearer t  {"name":"n","key":{},"challenge":"c","signature":"s"}`},
		{func() error { return drain(c.Devices(ctx)) }, "GET /v1/devices Bearer t"},
		{func() error { _, err := c.Device(ctx, "d"); return err }, "GET /v1/devices/d Bearer t"},
		{func() error { _, err := c.UpdateDevice(ctx, "d", api.DevicePatch{Trust: &trusted}); return err }, `PATCH /v1/devices/d Bearer t  {"trust":"trusted"}`},
		{func() error {
			_, err := c.VerifyDevice(ctx, "d", api.VerifyDevice{Code: "1", Challenge: "c", Signature: "s"})
			return err
		}, `POST /v1/devices/d/verify Bearer t  {"code":"1","challenge":"c","signature":"s"}`},
		{func() error { return c.RevokeDevice(ctx, "d") }, "DELETE /v1/devices/d Bearer t"},
		{func() error { _, err := c.CreateEnrolmentCode(ctx, api.NewEnrolmentCode{UserID: "u"}); return err }, `POST /v1/devices/enrolment-codes Bearer t  {"userId":"u"}`},
		{func() error { _, err := c.CheckPermission(ctx, api.PermissionQuery{AgentID: "a"}); return err }, `POST /v1/permissions/check Bearer t  {"agentId":"a"}`},
		{func() error { _, err := c.Policy(ctx, ""); return err }, "GET /v1/config/security Bearer t"},
		{func() error { _, err := c.Policy(ctx, "a b"); return err }, "GET /v1/projects/a%20b/policy Bearer t"},
		{func() error {
			_, err := c.PutPolicy(ctx, "web", api.NewPolicyDocument{Document: "d"}, api.IfVersion(7))
			return err
		}, `PUT /v1/projects/web/policy Bearer t "7" {"document":"d"}`},
		{func() error { return drain(c.PolicyVersions(ctx, "")) }, "GET /v1/config/security/versions Bearer t"},
		{func() error { _, err := c.PolicyVersion(ctx, "", 3); return err }, "GET /v1/config/security/versions/3 Bearer t"},
		{func() error { _, err := c.RollbackPolicy(ctx, "web", api.PolicyRollback{Version: 2}); return err }, `POST /v1/projects/web/policy/rollback Bearer t  {"version":2}`},
		{func() error { _, err := c.DiffPolicy(ctx, "", 1, 2); return err }, "GET /v1/config/security/diff?from=1&to=2 Bearer t"},
		{func() error {
			_, err := c.SimulatePolicy(ctx, api.PolicySimulation{Document: "d", Since: start})
			return err
		}, `POST /v1/policy/simulate Bearer t  {"document":"d","since":"2026-11-23T09:00:00Z"}`},
		{func() error { _, err := c.RuntimeConfig(ctx); return err }, "GET /v1/config/runtime Bearer t"},
		{func() error {
			return drain(c.AllAudit(ctx, api.AuditFilter{UserID: "u", Action: "task.submit", Result: "denied", ResourceType: "task", ResourceID: "1",
				SessionID: "s", ProjectID: "p", Since: start, Until: start.Add(time.Second), Limit: 5}))
		}, "GET /v1/audit?action=task.submit&limit=5&projectId=p&resourceId=1&resourceType=task&result=denied&sessionId=s&since=2026-11-23T09%3A00%3A00Z&until=2026-11-23T09%3A00%3A01Z&userId=u Bearer t"},
		{func() error { return c.ExportAudit(ctx, api.AuditFilter{UserID: "u"}, "cef", io.Discard) }, "GET /v1/audit/export?format=cef&userId=u Bearer t"},
		{func() error { _, err := c.AuditCheckpoint(ctx); return err }, "GET /v1/audit/checkpoint Bearer t"},
		{func() error { _, err := c.AuditProof(ctx, "e"); return err }, "GET /v1/audit/e/proof Bearer t"},
	} {
		if err := tc.call(); err != nil || got != tc.want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, tc.want)
		}
	}
}

func TestALoginIsPendingUntilThePersonHasDecided(t *testing.T) {
	t.Parallel()
	asked := 0
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		writeJSON(w, http.StatusOK, api.OpenedSession{AccessToken: "a"})
	}))
	if _, err := c.FinishLogin(t.Context(), api.FinishLogin{ID: "l"}); !errors.Is(err, api.ErrLoginPending) {
		t.Fatalf("while pending: %v", err)
	}
	if opened, err := c.FinishLogin(t.Context(), api.FinishLogin{ID: "l"}); err != nil || opened.AccessToken != "a" || asked != 2 {
		t.Fatalf("got %+v, %v after %d", opened, err, asked)
	}
}

func TestAnExportThatBreaksOffIsAnError(t *testing.T) {
	t.Parallel()
	asked := 0
	c := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprint(w, "{\"id\":\"1\"}\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	var out bytes.Buffer
	err := c.ExportAudit(t.Context(), api.AuditFilter{}, "json", &out)
	if err == nil || out.String() != "{\"id\":\"1\"}\n" || asked != 1 {
		t.Fatalf("got %q, %v after %d attempts: what was written must not be written twice", out.String(), err, asked)
	}
}
