package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
)

const password = "correct horse battery staple"

// locked is a rig whose server wants a credential, with its first administrator.
func locked(t *testing.T) (r *rig, admin api.OpenedSession) {
	t.Helper()
	r = newRigWith(t, options{access: httpapi.Access{}})
	code, needed, err := r.identity.EnsureBootstrap(t.Context())
	if err != nil || !needed {
		t.Fatal(needed, err)
	}
	body := fmt.Sprintf(`{"login":"root","password":%q,"code":%q}`, password, code)
	return r, want[api.OpenedSession](r, 201, "POST", "/v1/sessions", body)
}

func bearer(o api.OpenedSession) []string {
	return []string{"Authorization", "Bearer " + o.AccessToken}
}

// login makes a user with a role, if any, and opens a session.
func (r *rig) login(admin api.OpenedSession, name, role, project string) api.OpenedSession {
	r.t.Helper()
	ctx := r.t.Context()
	root, err := r.identity.Authenticate(ctx, identity.Request{Bearer: admin.AccessToken})
	if err == nil {
		_, err = r.identity.CreateUser(ctx, root, identity.NewUser{Login: name, Password: password})
	}
	if err == nil && role != "" {
		_, err = r.identity.Bind(ctx, root, identity.Binding{Kind: identity.UserSubject, Subject: "local:" + name, Role: policy.Role(role), ProjectID: project})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return want[api.OpenedSession](r, 201, "POST", "/v1/sessions",
		fmt.Sprintf(`{"login":%q,"password":%q,"projectId":%q}`, name, password, project))
}

func TestACredentialIsExchangedForASessionThatCanBeRenewedAndEnded(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	r.problem(401, "unauthenticated", "GET", "/v1/tasks", "")
	me := want[api.Me](r, 200, "GET", "/v1/me", "", bearer(admin)...)
	if me.UserID != "local:root" || !me.AllProjects || me.SessionID != admin.Session.ID || me.DeviceTrust != "untrusted" {
		t.Errorf("me is %+v", me)
	}
	for what, body := range map[string]string{
		"a wrong password": `{"login":"root","password":"wrong horse battery staple"}`,
		"an unknown user":  `{"login":"nobody","password":"wrong horse battery staple"}`,
		"a made-up token":  `{"token":"eyJhbGciOiJub25lIn0.e30."}`,
		"a made-up key":    `{"apiKey":"ccl_x_y"}`,
	} {
		if p := r.problem(401, "unauthenticated", "POST", "/v1/sessions", body); strings.Contains(p.Detail, "root") || strings.Contains(p.Detail, "wrong") {
			t.Errorf("%s is answered with %q", what, p.Detail)
		}
	}
	r.problem(422, "invalid", "POST", "/v1/sessions", `{}`)

	next := want[api.OpenedSession](r, 200, "POST", "/v1/sessions/refresh", fmt.Sprintf(`{"refreshToken":%q}`, admin.RefreshToken))
	want[api.Me](r, 200, "GET", "/v1/me", "", bearer(next)...)
	// The old one again: it was stolen by somebody, so the session ends for all.
	r.problem(401, "unauthenticated", "POST", "/v1/sessions/refresh", fmt.Sprintf(`{"refreshToken":%q}`, admin.RefreshToken))
	r.problem(401, "unauthenticated", "GET", "/v1/me", "", bearer(next)...)

	again := want[api.OpenedSession](r, 201, "POST", "/v1/sessions", fmt.Sprintf(`{"login":"root","password":%q}`, password))
	if got := want[api.SessionList](r, 200, "GET", "/v1/sessions", "", bearer(again)...); len(got.Items) != 1 || got.Items[0].ID != again.Session.ID {
		t.Errorf("listed %+v", got.Items)
	}
	if resp, text := r.do("DELETE", "/v1/sessions/current", "", bearer(again)...); resp.StatusCode != 204 {
		t.Errorf("logout: %d %s", resp.StatusCode, text)
	}
	r.problem(401, "unauthenticated", "GET", "/v1/me", "", bearer(again)...)

	var keys struct{ Keys []map[string]string }
	resp, text := r.do("GET", "/.well-known/jwks.json", "")
	if err := json.Unmarshal([]byte(text), &keys); err != nil || resp.StatusCode != 200 || len(keys.Keys) == 0 || keys.Keys[0]["d"] != "" {
		t.Errorf("keys: %d %s", resp.StatusCode, text)
	}
}

func TestARevokedSessionsStreamsEnd(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	ann := r.login(admin, "ann", "developer", "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	open := func(headers ...string) io.ReadCloser {
		req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v1/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		return resp.Body
	}
	mine, hers := open(bearer(admin)...), open(bearer(ann)...)
	defer mine.Close()
	defer hers.Close()
	if resp, text := r.do("DELETE", "/v1/sessions/"+ann.Session.ID, "", bearer(admin)...); resp.StatusCode != 204 {
		t.Fatalf("revoke: %d %s", resp.StatusCode, text)
	}
	if _, err := io.ReadAll(hers); err != nil { // it ends, and not by the time-out
		t.Errorf("her stream: %v", err)
	}
	// The other one goes on.
	created := want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":"","dispatch":"manual"}`, bearer(admin)...)
	buf := make([]byte, 4096)
	for text := ""; !strings.Contains(text, created.ID); {
		n, err := mine.Read(buf)
		if text += string(buf[:n]); err != nil {
			t.Fatalf("my stream ended with %v after %q", err, text)
		}
	}
}

func TestATicketOpensOneStreamAndNothingElse(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	id := want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":"","dispatch":"manual"}`, bearer(admin)...).ID
	want[api.Task](r, 200, "PATCH", "/v1/tasks/"+id, `{"error":"over"}`, bearer(admin)...)
	ticket := want[api.StreamTicket](r, 201, "POST", "/v1/stream-tickets", "", bearer(admin)...).Ticket
	r.problem(401, "unauthenticated", "GET", "/v1/tasks?q=d&ticket="+ticket, "")
	if resp, text := r.do("GET", "/v1/tasks/"+id+"/stream?ticket="+ticket, ""); resp.StatusCode != 200 || !strings.Contains(text, "event: snapshot") {
		t.Errorf("with a ticket: %d %s", resp.StatusCode, text)
	}
	r.problem(401, "unauthenticated", "GET", "/v1/tasks/"+id+"/stream?ticket="+ticket, "")
}

func TestABrowsersCookieWorksForItsOwnPagesOnly(t *testing.T) {
	t.Parallel()
	r, _ := locked(t)
	resp, text := r.do("POST", "/v1/sessions", fmt.Sprintf(`{"login":"root","password":%q,"browser":true}`, password))
	if resp.StatusCode != 201 || strings.Contains(text, "accessToken") || len(resp.Cookies()) != 1 {
		t.Fatalf("%d %s %v", resp.StatusCode, text, resp.Cookies())
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("the cookie is %+v", c)
	}
	cookie := c.Name + "=" + c.Value
	want[api.Me](r, 200, "GET", "/v1/me", "", "Cookie", cookie)
	want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":"","dispatch":"manual"}`,
		"Cookie", cookie, "Origin", r.url, "Sec-Fetch-Site", "same-origin")
	for what, headers := range map[string][]string{
		"a foreign page's form":   {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"an old browser's":        {"Origin", "https://evil.example"},
		"another port's":          {"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"},
		"a sandboxed frame's":     {"Origin", "null"},
		"a foreign page's script": {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"},
	} {
		r.problem(403, "forbidden-origin", "POST", "/v1/tasks", `{"description":"d"}`, append(headers, "Cookie", cookie)...)
		if resp, _ := r.do("GET", "/v1/stream", "", append(headers, "Cookie", cookie)...); resp.StatusCode != 403 {
			t.Errorf("%s stream: %d", what, resp.StatusCode)
		}
	}
}

func TestAKeyBoundSessionNeedsAProofWithEachRequest(t *testing.T) {
	t.Parallel()
	r, _ := locked(t)
	device, err := dpop.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	proof := func(method, path, token string) string {
		text, err := device.Proof(method, r.url+path, token, "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	opened := want[api.OpenedSession](r, 201, "POST", "/v1/sessions", fmt.Sprintf(`{"login":"root","password":%q}`, password),
		"DPoP", proof("POST", "/v1/sessions", ""))
	if opened.TokenType != "DPoP" || !opened.Session.KeyBound {
		t.Errorf("opened %+v", opened)
	}
	authorization := "DPoP " + opened.AccessToken
	good := proof("GET", "/v1/me", opened.AccessToken)
	want[api.Me](r, 200, "GET", "/v1/me", "", "Authorization", authorization, "DPoP", good)
	for what, headers := range map[string][]string{
		"no proof":                 {"Authorization", authorization},
		"the same proof again":     {"Authorization", authorization, "DPoP", good},
		"a proof for another path": {"Authorization", authorization, "DPoP", proof("GET", "/v1/tasks", opened.AccessToken)},
		"a proof for another verb": {"Authorization", authorization, "DPoP", proof("POST", "/v1/me", opened.AccessToken)},
		"a proof for no token":     {"Authorization", authorization, "DPoP", proof("GET", "/v1/me", "")},
	} {
		if resp, text := r.do("GET", "/v1/me", "", headers...); resp.StatusCode != 401 {
			t.Errorf("%s: %d %s", what, resp.StatusCode, text)
		}
	}
}

func TestSessionsOfDifferentProjectsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	shop := r.login(admin, "ann", "developer", "shop")
	bank := r.login(admin, "bob", "developer", "bank")
	id := want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":"","dispatch":"manual"}`, bearer(shop)...).ID
	for _, route := range [][3]string{
		{"GET", "/v1/tasks/" + id, ""}, {"GET", "/v1/tasks/" + id + "/events", ""}, {"GET", "/v1/tasks/" + id + "/stream", ""},
		{"POST", "/v1/tasks/" + id + "/cancel", ""}, {"PATCH", "/v1/tasks/" + id, `{"progress":1}`},
	} {
		r.problem(404, "not-found", route[0], route[1], route[2], bearer(bank)...)
	}
	if list := want[api.TaskList](r, 200, "GET", "/v1/tasks?projectId=shop", "", bearer(bank)...); len(list.Items) != 0 {
		t.Errorf("bob lists %+v", list.Items)
	}
	if list := want[api.TaskList](r, 200, "GET", "/v1/tasks", "", bearer(admin)...); len(list.Items) != 1 {
		t.Errorf("the administrator lists %+v", list.Items)
	}
	r.problem(422, "invalid", "POST", "/v1/tasks", `{"description":"d","input":"","projectId":"shop"}`, bearer(bank)...)
	r.problem(404, "not-found", "GET", "/v1/sessions/"+shop.Session.ID, "", bearer(bank)...)
	r.problem(404, "not-found", "DELETE", "/v1/sessions/"+shop.Session.ID, "", bearer(bank)...)
}
