package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
)

// github is the login by an OAuth app. Who somebody is comes from the API, by a
// token that we have been given for our own app and client secret. A token that
// was handed to us would prove nothing: any app has tokens of its users.
type github struct {
	config GitHub
	client oauthClient
	base   string
	api    string
	now    func() time.Time
}

// loginTimeout bounds all questions of one login together.
const loginTimeout = 15 * time.Second

func newGitHub(c GitHub, client *http.Client, now func() time.Time) *github {
	return &github{
		config: c,
		client: oauthClient{name: githubName, id: c.ClientID, secret: c.ClientSecret, inForm: true, http: client},
		base:   c.baseURL(),
		api:    c.apiURL(),
		now:    now,
	}
}

// AuthCodeURL has no use for the nonce: there is no token to put it into, and
// the code challenge ties the code to this login.
func (g *github) AuthCodeURL(_ context.Context, r AuthRequest) (string, error) {
	return withQuery(g.base+"/login/oauth/authorize", authorization(g.config.ClientID, g.scope(), r)), nil
}

func (g *github) Exchange(ctx context.Context, r AuthResponse) (Identity, error) {
	return g.login(ctx, exchange(r))
}

func (g *github) StartDevice(ctx context.Context) (DeviceStart, error) {
	return g.client.startDevice(ctx, g.base+"/login/device/code", g.scope(), g.now())
}

func (g *github) PollDevice(ctx context.Context, deviceCode string) (Identity, error) {
	return g.login(ctx, deviceGrant(deviceCode))
}

func (g *github) scope() string {
	if g.asksForMemberships() {
		return "read:org user:email"
	}
	return "user:email"
}

func (g *github) asksForMemberships() bool {
	return len(g.config.Organizations) > 0 || len(g.config.TeamRoles) > 0
}

func (g *github) login(ctx context.Context, grant url.Values) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	answer, err := g.client.post(ctx, g.base+"/login/oauth/access_token", grant)
	if err != nil {
		return Identity{}, err
	}
	if answer.AccessToken == "" || !strings.EqualFold(answer.TokenType, "bearer") {
		return Identity{}, unavailable(githubName, errors.New("it answers without a bearer token"))
	}
	return g.identity(ctx, githubAPI{g, answer.AccessToken})
}

// identity says who a token of ours speaks for.
func (g *github) identity(ctx context.Context, api githubAPI) (Identity, error) {
	asked := g.now()
	var user struct {
		ID    int64  `json:"id"`
		Login string `json:"login"`
	}
	if err := api.get(ctx, "/user", &user); err != nil {
		return Identity{}, api.refusal(err)
	}
	if user.ID <= 0 {
		return Identity{}, unavailable(githubName, errors.New("it answers with a user without an id"))
	}
	number := strconv.FormatInt(user.ID, 10)
	id := Identity{
		Provider: githubName,
		Issuer:   g.base,
		Subject:  number,
		StatedAt: asked,
		UserID:   "github:" + number,
		Name:     display(user.Login),
	}
	allowed := slices.Contains(g.config.AllowedUsers, user.ID)
	if g.asksForMemberships() {
		member, err := g.memberships(ctx, api, &id)
		if err != nil {
			return Identity{}, err
		}
		allowed = allowed || member
	}
	if !allowed {
		return Identity{}, forbid(githubName, "%s (%.60q) is in none of the organisations and teams and not an allowed user", id.UserID, user.Login)
	}
	var err error
	if id.Email, err = api.email(ctx); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// memberships adds the groups and roles of what the user is a member of, and
// reports whether that is enough to be let in.
func (g *github) memberships(ctx context.Context, api githubAPI, id *Identity) (allowed bool, err error) {
	trusted := map[string]bool{}
	for _, name := range g.config.Organizations {
		name = strings.ToLower(name)
		trusted[name] = true
		member, err := api.isMember(ctx, name)
		if err != nil {
			return false, err
		}
		if member {
			allowed = true
			id.Groups = append(id.Groups, "github:"+name)
		}
	}
	roles := map[string][]string{}
	for team, names := range g.config.TeamRoles {
		team = strings.ToLower(team)
		roles[team] = append(roles[team], names...)
		organization, _, _ := strings.Cut(team, "/")
		trusted[organization] = true
	}
	teams, err := api.teams(ctx)
	if err != nil {
		return false, err
	}
	for _, team := range teams {
		if organization, _, _ := strings.Cut(team, "/"); !trusted[organization] {
			continue
		}
		id.Groups = append(id.Groups, "github:"+team)
		if granted, ok := roles[team]; ok {
			allowed = true
			id.grant("", granted)
		}
	}
	return allowed, nil
}

// githubAPI is GitHub's API, for one user.
type githubAPI struct {
	*github
	token string
}

// statusError is an answer that is not 200.
type statusError struct {
	path, status string
	code         int
	limited      bool // by a limit on how often we may ask
}

func (e *statusError) Error() string { return "GET " + e.path + ": " + e.status }

func (g githubAPI) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.api+path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	r.Header.Set("Accept", "application/vnd.github+json")
	r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	r.Header.Set("User-Agent", "coderclaw") // without one GitHub does not answer
	response, err := g.client.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return &statusError{
			path: path, status: response.Status, code: response.StatusCode,
			limited: response.Header.Get("Retry-After") != "" || response.Header.Get("X-RateLimit-Remaining") == "0",
		}
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// refusal tells a token that GitHub does not take from a GitHub that is down.
func (g githubAPI) refusal(err error) error {
	if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusUnauthorized {
		return fault.Wrap(err, fault.Unauthenticated, "the login is not accepted by %s", githubName)
	}
	return unavailable(githubName, err)
}

// withheld reports whether the answer is that there is nothing for this user to
// see: not a member, or an organisation that keeps our app or this session out.
func withheld(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && (s.code == http.StatusNotFound || s.code == http.StatusForbidden && !s.limited)
}

// isMember reports whether the user is an active member of an organisation; one
// who is merely invited is not.
func (g githubAPI) isMember(ctx context.Context, organization string) (bool, error) {
	var membership struct {
		State string `json:"state"`
	}
	err := g.get(ctx, "/user/memberships/orgs/"+url.PathEscape(organization), &membership)
	if withheld(err) {
		return false, nil
	}
	if err != nil {
		return false, g.refusal(err)
	}
	return membership.State == "active", nil
}

// teams returns the user's teams as organisation/slug, in lower case.
func (g githubAPI) teams(ctx context.Context) ([]string, error) {
	const perPage, mostPages = 100, 20
	var names []string
	for page := 1; page <= mostPages; page++ {
		var teams []struct {
			Slug         string `json:"slug"`
			Organization struct {
				Login string `json:"login"`
			} `json:"organization"`
		}
		err := g.get(ctx, fmt.Sprintf("/user/teams?per_page=%d&page=%d", perPage, page), &teams)
		if withheld(err) {
			return nil, nil
		}
		if err != nil {
			return nil, g.refusal(err)
		}
		for _, t := range teams {
			names = append(names, strings.ToLower(t.Organization.Login+"/"+t.Slug))
		}
		if len(teams) < perPage {
			slices.Sort(names)
			return slices.Compact(names), nil
		}
	}
	return nil, unavailable(githubName, fmt.Errorf("the user is in more than %d teams", perPage*mostPages))
}

// email returns the primary address, if it is verified and may be seen.
func (g githubAPI) email(ctx context.Context) (string, error) {
	var addresses []struct {
		Email    string `json:"email"`
		Primary  bool   `json:"primary"`
		Verified bool   `json:"verified"`
	}
	err := g.get(ctx, "/user/emails", &addresses)
	if withheld(err) {
		return "", nil
	}
	if err != nil {
		return "", g.refusal(err)
	}
	for _, a := range addresses {
		if a.Primary && a.Verified {
			return display(a.Email), nil
		}
	}
	return "", nil
}
