package provider_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/identity/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is one that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// bench is a set with one OIDC provider, corp.
type bench struct {
	*clock
	issuer *providertest.Issuer
	set    *provider.Set
}

// newBench returns a bench whose provider is configured as change wants.
func newBench(t *testing.T, change func(*provider.OIDC)) bench {
	t.Helper()
	b := bench{clock: newClock(), issuer: providertest.NewIssuer(t)}
	b.issuer.Now = b.clock.Now
	config := provider.OIDC{Name: "corp", Issuer: b.issuer.URL, ClientID: providertest.ClientID, ClientSecret: providertest.ClientSecret}
	if change != nil {
		change(&config)
	}
	b.set = newSet(t, provider.Config{OIDC: []provider.OIDC{config}}, b.clock, nil)
	return b
}

func newSet(t *testing.T, c provider.Config, at *clock, transport http.RoundTripper) *provider.Set {
	t.Helper()
	s, err := provider.New(c, provider.Options{Now: at.Now, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// wantRefused demands a fault of that code whose message is safe and whose
// cause, if one is wanted, says why.
func wantRefused(t *testing.T, err error, code fault.Code, message, cause string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Code != code || !strings.Contains(f.Message, message) {
		t.Fatalf("got %v, want the fault %s: %s", err, code, message)
	}
	if !strings.Contains(err.Error(), cause) {
		t.Fatalf("the cause of %q does not say %q", err, cause)
	}
}
