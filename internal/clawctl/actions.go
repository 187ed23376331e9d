package clawctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coderclaw/runtime/api"
)

// loginByActions exchanges the token by which GitHub says which job this is. It
// is made for one server and is good there once.
func (c *cli) loginByActions(ctx context.Context, client *api.Client, f *loginFlags) (api.OpenedSession, error) {
	audience := f.audience
	if audience == "" {
		address, err := c.address()
		if err != nil {
			return api.OpenedSession{}, err
		}
		audience = strings.TrimRight(address.url, "/")
	}
	token, err := c.actionsToken(ctx, audience)
	if err != nil {
		return api.OpenedSession{}, fmt.Errorf("ask GitHub for the token of this job: %w", err)
	}
	n := f.session
	n.Token = token
	return client.OpenSession(ctx, n)
}

func (c *cli) actionsToken(ctx context.Context, audience string) (string, error) {
	address, secret := c.getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), c.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || secret == "" {
		return "", errors.New(`this is no job of GitHub Actions with "permissions: id-token: write"`)
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL")
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Accept", "application/json")
	h := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s", res.Status)
	}
	var answer struct{ Value string }
	if json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&answer) != nil || answer.Value == "" {
		return "", errors.New("its answer holds no token")
	}
	return answer.Value, nil
}
