package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
)

// The vector is the one that the libraries of Standard Webhooks are tested with.
func TestSignaturesAreThoseOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	got, err := api.SignWebhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek",
		time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if err != nil || got != want {
		t.Errorf("signed %q, %v; want %q", got, err, want)
	}
	if got, err := api.SignWebhook("whsec_no base64", "i", time.Now(), nil); err == nil {
		t.Errorf("signed %q with what is no secret", got)
	}
}

func TestAWebhookIsVerifiedByAnyOfItsSignaturesAndSoonAfterItWasSent(t *testing.T) {
	t.Parallel()
	const secret, former = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	const body = `{"type":"task.completed"}`
	signed := func(at time.Time, secrets ...string) http.Header {
		h := http.Header{}
		h.Set("webhook-id", "evt_1")
		h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
		var all []string
		for _, s := range secrets {
			signature, err := api.SignWebhook(s, "evt_1", at, []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, signature)
		}
		h.Set("webhook-signature", strings.Join(all, " "))
		return h
	}
	now := time.Now()
	for name, tc := range map[string]struct {
		header http.Header
		body   string
		says   string // "": it is good
	}{
		"as it was sent":       {signed(now, secret), body, ""},
		"by two secrets":       {signed(now, former, secret), body, ""},
		"by the former secret": {signed(now, former), body, "no signature"},
		"another body":         {signed(now, secret), body + " ", "no signature"},
		"an old one":           {signed(now.Add(-6*time.Minute), secret), body, "too far"},
		"one of the future":    {signed(now.Add(6*time.Minute), secret), body, "too far"},
		"no headers":           {http.Header{}, body, "no id"},
	} {
		err := api.VerifyWebhook(secret, tc.header, []byte(tc.body))
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
	}
	other := signed(now, secret)
	other.Set("webhook-id", "evt_2")
	if err := api.VerifyWebhook(secret, other, []byte(body)); err == nil {
		t.Error("the id of another is taken")
	}
}
