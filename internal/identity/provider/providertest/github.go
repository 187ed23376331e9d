package providertest

import (
	"crypto/rand"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// User is somebody who has an account at GitHub.
type User struct {
	ID            int64
	Login         string
	Email         string // primary and verified
	Unverified    string // primary too, and not verified
	Organizations map[string]string
	Teams         []string // organisation/slug
}

// GitHub is a GitHub Enterprise Server: its OAuth endpoints are at URL, its API
// is at URL/api/v3.
type GitHub struct {
	URL string
	// Now is its clock; set it before the first request.
	Now func() time.Time

	grants grants

	mu       sync.Mutex
	users    map[int64]User
	signedIn int64
	tokens   map[string]githubToken
	failing  int
}

type githubToken struct {
	user   int64
	scopes []string
}

// NewGitHub returns a GitHub with those users that serves until the test ends.
// The first one sits at the browser.
func NewGitHub(t testing.TB, users ...User) *GitHub {
	t.Helper()
	g := &GitHub{Now: time.Now, users: map[int64]User{}, tokens: map[string]githubToken{}}
	for _, u := range slices.Backward(users) {
		g.users[u.ID], g.signedIn = u, u.ID
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login/oauth/authorize", g.authorize)
	mux.HandleFunc("POST /login/oauth/access_token", g.accessToken)
	mux.HandleFunc("POST /login/device/code", g.deviceCode)
	mux.HandleFunc("GET /api/v3/user", g.api("", func(u User, _ *http.Request) any {
		return map[string]any{"id": u.ID, "login": u.Login, "type": "User"}
	}))
	mux.HandleFunc("GET /api/v3/user/emails", g.api("user:email", emails))
	mux.HandleFunc("GET /api/v3/user/teams", g.api("read:org", teams))
	mux.HandleFunc("GET /api/v3/user/orgs", g.api("read:org", organizations))
	mux.HandleFunc("GET /api/v3/user/memberships/orgs/{org}", g.api("read:org", membership))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	g.URL = server.URL
	return g
}

// SignIn says who sits at the browser.
func (g *GitHub) SignIn(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signedIn = id
}

// Put adds or replaces a user.
func (g *GitHub) Put(u User) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[u.ID] = u
}

// Fail makes the API answer with that status; 0 is the usual.
func (g *GitHub) Fail(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failing = status
}

// Decide lets the person with that user code log in, or declines.
func (g *GitHub) Decide(userCode string, allow bool) { g.grants.decide(userCode, allow) }

func (g *GitHub) person() Claims {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Claims{"id": g.signedIn}
}

func (g *GitHub) authorize(w http.ResponseWriter, r *http.Request) {
	g.grants.authorize(w, r, g.person())
}

func (g *GitHub) deviceCode(w http.ResponseWriter, r *http.Request) {
	g.answer(w, r, func(w http.ResponseWriter) {
		g.grants.startDevice(w, r, g.person(), g.URL+"/login/device", g.Now())
	})
}

func (g *GitHub) accessToken(w http.ResponseWriter, r *http.Request) {
	g.answer(w, r, func(w http.ResponseWriter) {
		if !authenticated(r) {
			writeJSON(w, http.StatusOK, map[string]string{"error": "incorrect_client_credentials"})
			return
		}
		granted, failed := g.grants.redeem(r, g.Now())
		if failed != "" {
			if failed == "invalid_grant" {
				failed = "bad_verification_code"
			}
			writeJSON(w, http.StatusOK, map[string]string{"error": failed})
			return
		}
		id, _ := granted.person["id"].(int64)
		token := "gho_" + rand.Text()
		g.mu.Lock()
		g.tokens[token] = githubToken{id, strings.Fields(granted.scope)}
		g.mu.Unlock()
		writeJSON(w, http.StatusOK, map[string]string{
			"access_token": token, "token_type": "bearer", "scope": strings.Join(strings.Fields(granted.scope), ","),
		})
	})
}

// answer answers in JSON those who ask for it, as GitHub does, and in a form
// everybody else.
func (g *GitHub) answer(w http.ResponseWriter, r *http.Request, in func(http.ResponseWriter)) {
	if r.Header.Get("Accept") == "application/json" {
		in(w)
		return
	}
	_, _ = w.Write([]byte(url.Values{"error": {"not_asked_for_json"}}.Encode()))
}

func (g *GitHub) api(scope string, about func(User, *http.Request) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		token, ok := g.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		user, failing := g.users[token.user], g.failing
		g.mu.Unlock()
		var value any
		switch {
		case failing != 0:
			writeJSON(w, failing, map[string]string{"message": http.StatusText(failing)})
			return
		case !strings.HasPrefix(r.UserAgent(), "coderclaw"):
			writeJSON(w, http.StatusForbidden, map[string]string{"message": "Request forbidden by administrative rules."})
			return
		case !ok:
			writeJSON(w, http.StatusUnauthorized, map[string]string{"message": "Bad credentials"})
			return
		case scope != "" && !slices.Contains(token.scopes, scope):
			writeJSON(w, http.StatusForbidden, map[string]string{"message": "You need " + scope})
			return
		}
		if value = about(user, r); value == nil {
			writeJSON(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
			return
		}
		writeJSON(w, http.StatusOK, value)
	}
}

func emails(u User, _ *http.Request) any {
	list := []map[string]any{{"email": "other@users.noreply.example", "primary": false, "verified": true}}
	if u.Email != "" {
		list = append(list, map[string]any{"email": u.Email, "primary": true, "verified": true})
	}
	if u.Unverified != "" {
		list = append(list, map[string]any{"email": u.Unverified, "primary": true, "verified": false})
	}
	return list
}

func teams(u User, r *http.Request) any {
	list := []map[string]any{}
	for _, team := range u.Teams {
		organization, slug, _ := strings.Cut(team, "/")
		list = append(list, map[string]any{"slug": slug, "organization": map[string]any{"login": organization}})
	}
	return page(list, r)
}

func organizations(u User, r *http.Request) any {
	list := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(u.Organizations)) {
		if u.Organizations[name] == "active" {
			list = append(list, map[string]any{"login": name})
		}
	}
	return page(list, r)
}

// page returns the page that is asked for, of 30 unless told otherwise.
func page[T any](list []T, r *http.Request) []T {
	number := func(name string, usual int) int {
		if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && n > 0 {
			return n
		}
		return usual
	}
	size := min(number("per_page", 30), 100)
	from := min((number("page", 1)-1)*size, len(list))
	return list[from:min(from+size, len(list))]
}

// membership finds an organisation by its name in any case, as GitHub does.
func membership(u User, r *http.Request) any {
	for name, state := range u.Organizations {
		if strings.EqualFold(name, r.PathValue("org")) {
			return map[string]any{"state": state, "role": "member", "organization": map[string]any{"login": name}}
		}
	}
	return nil
}
