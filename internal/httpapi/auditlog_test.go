package httpapi_test

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

func TestTheAuditLogIsForAdministratorsAndForWhatOnesSessionDid(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	ann, bob := r.login(admin, "ann", "developer", ""), r.login(admin, "bob", "developer", "")
	for _, who := range []api.OpenedSession{ann, bob} {
		want[api.Task](r, 201, "POST", "/v1/tasks", `{"description":"d","input":"i","dispatch":"manual"}`, bearer(who)...)
		r.problem(403, "forbidden", "GET", "/v1/config/runtime", "", bearer(who)...)
	}
	list := func(who api.OpenedSession, query string) []api.AuditEntry {
		t.Helper()
		var all []api.AuditEntry
		for cursor := ""; ; {
			page := want[api.AuditList](r, 200, "GET", "/v1/audit?limit=2&cursor="+cursor+query, "", bearer(who)...)
			all = append(all, page.Items...)
			if cursor = page.NextCursor; cursor == "" {
				return all
			}
		}
	}
	actions := func(entries []api.AuditEntry) string {
		var all []string
		for _, e := range entries {
			all = append(all, e.Action+" "+e.Result)
		}
		return strings.Join(all, ", ")
	}
	const own = "config.read denied, task.submit allowed, session.create allowed"
	if got := actions(list(ann, "")); got != own {
		t.Errorf("ann sees %s, want %s", got, own)
	}
	for what, query := range map[string]string{"another's session": "&sessionId=" + bob.Session.ID, "another user": "&userId=local:bob"} {
		if got := list(ann, query); len(got) != 0 {
			t.Errorf("by %s ann sees %+v", what, got)
		}
	}
	if got := list(ann, "&result=denied"); len(got) != 1 || got[0].Layer != "permission" || got[0].Reason == "" || got[0].RequestID == "" {
		t.Errorf("the denied one is %+v", got)
	}
	bobs := list(admin, "&userId=local:bob")
	if got := actions(bobs); got != own {
		t.Errorf("the administrator sees of bob %s", got)
	}
	r.problem(404, "not-found", "GET", "/v1/audit/"+bobs[0].ID+"/proof", "", bearer(ann)...)
	if got := list(admin, "&action=audit.read&userId=local:root"); len(got) == 0 {
		t.Error("that an administrator has looked is not in the log")
	}
	if got := list(admin, "&since=2031-01-01T00:00:00Z"); len(got) != 0 {
		t.Errorf("entries of the future: %+v", got)
	}
	r.problem(422, "invalid", "GET", "/v1/audit?cursor=x", "", bearer(admin)...)
	if resp, _ := r.do("GET", "/v1/audit?result=maybe", "", bearer(admin)...); resp.StatusCode != 422 {
		t.Errorf("a result that there is not: %d", resp.StatusCode)
	}
}

func TestTheAuditLogIsExportedForOtherPrograms(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	ann := r.login(admin, "ann", "developer", "")
	for format, check := range map[string]func(line string) bool{
		"json": func(line string) bool {
			var e struct{ ID, Action string }
			return json.Unmarshal([]byte(line), &e) == nil && e.ID != "" && e.Action != ""
		},
		"ocsf": func(line string) bool {
			var e struct {
				Class int `json:"class_uid"`
			}
			return json.Unmarshal([]byte(line), &e) == nil && e.Class == 6003
		},
		"cef": func(line string) bool { return strings.HasPrefix(line, "CEF:0|") },
	} {
		resp, text := r.do("GET", "/v1/audit/export?format="+format, "", bearer(admin)...)
		lines := 0
		for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); lines++ {
			if !check(s.Text()) {
				t.Errorf("%s: %s", format, s.Text())
			}
		}
		if resp.StatusCode != 200 || lines < 5 {
			t.Errorf("%s: %d with %d lines", format, resp.StatusCode, lines)
		}
		if _, text := r.do("GET", "/v1/audit/export?format="+format, "", bearer(ann)...); strings.Contains(text, "local:root") || !strings.Contains(text, "local:ann") {
			t.Errorf("%s: ann is sent %s", format, text)
		}
	}
	if _, text := r.do("GET", "/v1/audit/export?sessionId="+admin.Session.ID, "", bearer(ann)...); text != "" {
		t.Errorf("of another's session ann is sent %s", text)
	}
}

func TestNobodyLooksUnseen(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	if _, err := r.owner(t).Exec(t.Context(), `REVOKE INSERT ON audit_entries FROM coderclaw_app`); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/audit", "/v1/audit/export", "/v1/audit/01a20866-f000-72c8-bca3-614512f81c68/proof"} {
		if p := r.problem(503, "audit-unavailable", "GET", path, "", bearer(admin)...); strings.Contains(p.Detail, "session.create") {
			t.Errorf("%s shows %s", path, p.Detail)
		}
	}
}
