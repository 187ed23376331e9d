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
	"strings"
	"time"

	"github.com/coderclaw/runtime/internal/fault"
)

// oauthClient is us, as a client of an authorization server.
type oauthClient struct {
	name       string // of the provider, for people
	id, secret string
	inForm     bool // the secret goes into the form instead of the header
	http       *http.Client
}

// answer is what token and device endpoints say (RFC 6749, sections 5.1 and
// 5.2; RFC 8628, section 3.2), Google's old name for one of the fields included.
type answer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	IDToken     string `json:"id_token"`

	Error            string `json:"error"`
	ErrorDescription string `json:"error_description"`

	DeviceCode              string  `json:"device_code"`
	UserCode                string  `json:"user_code"`
	VerificationURI         string  `json:"verification_uri"`
	VerificationURL         string  `json:"verification_url"`
	VerificationURIComplete string  `json:"verification_uri_complete"`
	ExpiresIn               float64 `json:"expires_in"`
	Interval                float64 `json:"interval"`
}

// with chooses how to show the secret: in the header, unless the server says
// that it takes it in the form alone (OpenID Connect Discovery 1.0, section 3).
func (c oauthClient) with(e endpoints) oauthClient {
	if len(e.AuthMethods) > 0 && !slices.Contains(e.AuthMethods, "client_secret_basic") {
		c.inForm = true
	}
	return c
}

// post asks a token or device endpoint.
func (c oauthClient) post(ctx context.Context, endpoint string, form url.Values) (answer, error) {
	if endpoint == "" {
		return answer{}, unavailable(c.name, errors.New("it has no such endpoint"))
	}
	basic := c.secret != "" && !c.inForm
	if !basic {
		form.Set("client_id", c.id)
		if c.secret != "" {
			form.Set("client_secret", c.secret)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json") // GitHub would answer with a form
	if basic {
		r.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret)) // RFC 6749, section 2.3.1
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, unavailable(c.name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, unavailable(c.name, err)
	}
	// GitHub answers its errors with 200, others with 400 or 401.
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Error == "" && response.StatusCode != http.StatusOK {
		return answer{}, unavailable(c.name, fmt.Errorf("POST %s: %s, and not JSON", endpoint, response.Status))
	}
	if a.Error != "" {
		return answer{}, c.failure(a)
	}
	return a, nil
}

// failure tells what the person did, or left, from what is wrong with us.
func (c oauthClient) failure(a answer) error {
	cause := fmt.Errorf("%s answers %.60q: %.200q", c.name, a.Error, a.ErrorDescription)
	switch a.Error {
	case "authorization_pending":
		return ErrAuthorizationPending
	case "slow_down":
		return ErrSlowDown
	case "server_error", "temporarily_unavailable":
		return unavailable(c.name, cause)
	case "access_denied":
		return fault.Wrap(cause, fault.Unauthenticated, "the login was declined at %s", c.name)
	case "expired_token", "invalid_grant", "bad_verification_code", "incorrect_device_code":
		return fault.Wrap(cause, fault.Unauthenticated, "the code of the login is not valid, or not any more")
	}
	return fault.Wrap(cause, fault.ProviderRefused, "the identity provider %s does not accept this server as its client", c.name)
}

// startDevice asks a device authorization endpoint (RFC 8628, section 3.1).
func (c oauthClient) startDevice(ctx context.Context, endpoint, scope string, now time.Time) (DeviceStart, error) {
	form := url.Values{"scope": {scope}}
	form.Set("client_id", c.id)
	a, err := c.post(ctx, endpoint, form)
	if err != nil {
		return DeviceStart{}, err
	}
	if a.VerificationURI == "" {
		a.VerificationURI = a.VerificationURL
	}
	// A person is going to open it.
	if err := checkURL(a.VerificationURI); err != nil {
		return DeviceStart{}, unavailable(c.name, err)
	}
	if checkURL(a.VerificationURIComplete) != nil {
		a.VerificationURIComplete = ""
	}
	if a.DeviceCode == "" || a.UserCode == "" || a.UserCode != display(a.UserCode) || a.ExpiresIn <= 0 {
		return DeviceStart{}, unavailable(c.name, errors.New("it answers with half a device login"))
	}
	const most, usual = 3600, 5 // seconds; the latter is RFC 8628's
	if a.Interval <= 0 {
		a.Interval = usual
	}
	return DeviceStart{
		DeviceCode:              a.DeviceCode,
		UserCode:                a.UserCode,
		VerificationURI:         a.VerificationURI,
		VerificationURIComplete: a.VerificationURIComplete,
		Interval:                seconds(min(a.Interval, most)),
		ExpiresAt:               now.Add(seconds(min(a.ExpiresIn, most))),
	}, nil
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
