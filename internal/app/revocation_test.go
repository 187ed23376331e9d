package app_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// newPair is two servers that want credentials, on one database, and the
// database's URL.
func newPair(t *testing.T) (a, b *installation, url string) {
	t.Helper()
	url = pgtest.EmptyURL(t)
	settings := []string{"CODERCLAW_DATABASE_URL=" + url, "CODERCLAW_TOKEN=" + operatorToken, "CODERCLAW_REQUIRE_AUTH=true"}
	a = newInstallation(t, settings...)
	a.env = append(a.env, "CODERCLAW_PUBLIC_URL=http://"+a.address)
	b = newInstallation(t, append(settings, "CODERCLAW_PUBLIC_URL=http://"+a.address)...)
	first, second := a.start("serve"), b.start("serve")
	a.ready(first)
	b.ready(second)
	return a, b, url
}

func (in *installation) clientWith(token string) *api.Client {
	in.t.Helper()
	c, err := api.NewClient("http://"+in.address, api.WithToken(token))
	if err != nil {
		in.t.Fatal(err)
	}
	return c
}

// follow opens /v1/stream and returns a channel that gets the time at which it
// has ended.
func (in *installation) follow(ctx context.Context, token string) <-chan time.Time {
	in.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+in.address+"/v1/stream", nil)
	if err != nil {
		in.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		in.t.Fatal(resp, err)
	}
	ended := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		ended <- time.Now()
	}()
	return ended
}

func TestARevokedSessionsStreamEndsOnTheOtherServerToo(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	a, b, url := newPair(t)
	admin := a.clientWith(operatorToken)
	if _, err := admin.CreateUser(ctx, api.NewUser{Login: "ann", Password: strangersSecret}); err != nil {
		t.Fatal(err)
	}
	owner, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	for what, before := range map[string]func(){
		"told": func() {},
		// Nobody is told of what happens while there is no connection for that.
		"deaf": func() {
			if _, err := owner.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND query ILIKE 'listen%' AND pid <> pg_backend_pid()`); err != nil {
				t.Fatal(err)
			}
		},
	} {
		opened, err := a.clientWith("").OpenSession(ctx, api.NewSession{Login: "ann", Password: strangersSecret})
		if err != nil {
			t.Fatal(err)
		}
		ended := b.follow(ctx, opened.AccessToken)
		if _, err := b.clientWith(opened.AccessToken).Me(ctx); err != nil {
			t.Fatal(err)
		}
		before()
		revoked := time.Now()
		if err := admin.RevokeSession(ctx, opened.Session.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-ended:
			t.Logf("%s: the stream on the other server has ended after %v", what, at.Sub(revoked))
		case <-ctx.Done():
			t.Fatalf("%s: the stream on the other server goes on", what)
		}
		if _, err := b.clientWith(opened.AccessToken).Me(ctx); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s: the other server answers %v", what, err)
		}
	}
}
