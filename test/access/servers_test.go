package access

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// generous is far more than it may take until all servers know what has ended.
const generous = 10 * time.Second

// follow opens a stream and returns a channel that gets the time of its end.
func (p *place) follow(token string) (ended <-chan time.Time) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+"/v1/stream", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		p.t.Fatalf("the stream gets %s", resp.Status)
	}
	end := make(chan time.Time, 1)
	go func() {
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		end <- time.Now()
	}()
	return end
}

func TestWhatEndsOnOneServerEndsOnTheOther(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	shared := []string{"CODERCLAW_DATABASE_URL=" + pgtest.EmptyURL(t), "CODERCLAW_PUBLIC_URL=https://claw.example.com"}
	a, b := startPlace(t, "serve", i.document(t), shared...), startPlace(t, "serve", i.document(t), shared...)
	loggedIn, _ := i.tokens(t, "ann")
	opened, err := a.client("").OpenSession(t.Context(), api.NewSession{Token: loggedIn})
	if err != nil {
		t.Fatal(err)
	}
	shown, _ := i.tokens(t, "ann")
	for what, session := range map[string]struct {
		token string
		end   func(token string) error
	}{
		"that an administrator revokes": {opened.AccessToken, func(string) error {
			return a.client(operatorToken).RevokeSession(t.Context(), opened.Session.ID)
		}},
		"of the provider's token, that its user ends": {shown, func(token string) error {
			return a.client(token).RevokeSession(t.Context(), "current")
		}},
	} {
		if here, there := a.status(session.token), b.status(session.token); here != http.StatusOK || there != http.StatusOK {
			t.Fatalf("a session %s gets %d on one server and %d on the other", what, here, there)
		}
		ended := b.follow(session.token)
		begun := time.Now()
		if err := session.end(session.token); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-ended:
			t.Logf("the stream of a session %s has ended on the other server after %v", what, at.Sub(begun))
		case <-time.After(generous):
			t.Fatalf("the stream of a session %s goes on on the other server", what)
		}
		for _, p := range []*place{b, a} {
			if got := p.status(session.token); got != http.StatusUnauthorized {
				t.Errorf("a session %s gets %d afterwards", what, got)
			}
		}
	}
}
