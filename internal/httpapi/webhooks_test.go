package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

func TestTheSecretOfAWebhookIsShownOnceAndNowhereElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer target.Close()
	made := want[api.CreatedWebhook](r, 201, "POST", "/v1/webhooks", fmt.Sprintf(`{"url":%q,"statuses":["failed","completed"],"labels":{"team":"x"}}`, target.URL+"/?token=hush"))
	if !strings.HasPrefix(made.Secret, "whsec_") || !made.AllProjects || !made.Enabled || fmt.Sprint(made.Statuses) != "[completed failed]" {
		t.Errorf("made %+v", made)
	}
	path := "/v1/webhooks/" + made.ID
	ping := want[api.WebhookAttempt](r, 200, "POST", path+"/test", "")
	if !ping.Delivered || ping.Status != 204 {
		t.Errorf("pinged %+v", ping)
	}
	rotated := want[api.WebhookSecret](r, 200, "POST", path+"/secret", `{}`)
	if rotated.Secret == made.Secret || rotated.FormerUntil == nil || rotated.FormerUntil.Before(time.Now().Add(23*time.Hour)) {
		t.Errorf("rotated to %+v", rotated)
	}
	changed := want[api.Webhook](r, 200, "PATCH", path, `{"statuses":[],"labels":{},"enabled":false}`)
	if len(changed.Statuses) != 0 || len(changed.Labels) != 0 || changed.Enabled || changed.DisabledAt == nil || changed.FormerSecretUntil == nil {
		t.Errorf("changed to %+v", changed)
	}
	_, one := r.do("GET", path, "")
	_, all := r.do("GET", "/v1/webhooks", "")
	_, audit := r.do("GET", "/v1/audit", "")
	if !strings.Contains(all, made.ID) || !strings.Contains(audit, "webhook.rotate") {
		t.Errorf("the list %s, the audit log %s", all, audit)
	}
	for _, secret := range []string{made.Secret, rotated.Secret} {
		if strings.Contains(one+all+audit+r.log.String(), secret) {
			t.Error("a secret is shown")
		}
	}
	if strings.Contains(audit+r.log.String(), "hush") {
		t.Error("the audit log or the server's tells what is in the URL")
	}
}

func TestWebhooksThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, field := range map[string]string{
		`{"url":"example.com"}`:                                                          "body.url",
		`{"url":"http://169.254.169.254/"}`:                                              "body.url",
		`{"url":"https://example.com","statuses":["ended"]}`:                             "body.statuses",
		`{"url":"https://example.com","agentId":"no id"}`:                                "body.agentId",
		`{"url":"https://example.com","labels":{"":"x"}}`:                                "body.labels",
		`{"url":"https://example.com","description":"` + strings.Repeat("d", 501) + `"}`: "body.description",
		`{"url":"https://example.com","projectId":"no such id"}`:                         "body.projectId",
		`{"url":"https://example.com","secret":"whsec_` + strings.Repeat("A", 32) + `"}`: "body.secret",
	} {
		if p := r.problem(422, "invalid", "POST", "/v1/webhooks", body); len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, field) {
			t.Errorf("%s: %+v, want %s", body, p, field)
		}
	}
	made := want[api.CreatedWebhook](r, 201, "POST", "/v1/webhooks", `{"url":"http://127.0.0.1:1/","disabled":true}`)
	path := "/v1/webhooks/" + made.ID
	r.problem(422, "invalid", "PATCH", path, `{}`)
	r.problem(422, "invalid", "POST", path+"/secret", `{"keepFormerSeconds":604801}`)
	r.problem(422, "invalid", "POST", path+"/replay", `{"since":"2020-01-01T00:00:00Z"}`)
	r.problem(422, "invalid", "GET", path+"/deliveries?status=lost", "")
	r.problem(422, "invalid", "GET", path+"/deliveries?cursor=x", "")
	r.problem(404, "not-found", "POST", path+"/deliveries/evt_1/retry", "")
}
