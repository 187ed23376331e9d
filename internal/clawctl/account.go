package clawctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

// renewTime bounds how long a session's renewal may take once it has begun.
const renewTime = 15 * time.Second

// errLoggedOut says that another command has ended the login meanwhile.
var errLoggedOut = errors.New(`there is no login any more: log in with "clawctl login"`)

// account is the login at one server.
type account struct {
	vault  *vault
	server string
	now    func() time.Time
	bare   *api.Client // shows nothing but proofs

	kept   *credentials // as last seen; nil: not yet
	signer *dpop.Signer // nil: this machine has no key
}

func (c *cli) account() (*account, error) {
	address, err := c.address()
	if err != nil {
		return nil, err
	}
	a := &account{server: vaultKey(address.url), now: c.now}
	if a.bare, err = c.connect(api.WithProof(a.prove)); err != nil {
		return nil, err
	}
	if a.vault, err = c.vault(); err != nil && c.keyringMode.value == "os" {
		return nil, err
	}
	return a, nil // who has no home has no login either
}

// load returns what is kept for the server now.
func (a *account) load(ctx context.Context) (*credentials, error) {
	kept := credentials{Server: a.server}
	if a.vault != nil {
		var err error
		if kept, err = a.vault.load(ctx, a.server); err != nil {
			return nil, err
		}
	}
	var signer *dpop.Signer
	if kept.DeviceKey != "" {
		var err error
		if signer, err = dpop.ParseSigner([]byte(kept.DeviceKey)); err != nil {
			return nil, fmt.Errorf("read credentials: %w", err)
		}
	}
	a.kept, a.signer = &kept, signer
	return a.kept, nil
}

// change changes what is kept for the server, in which nobody else may
// interfere.
func (a *account) change(ctx context.Context, change func(*credentials) error) error {
	if a.vault == nil {
		return errors.New("keep credentials: there is no place for them, for the user has no configuration directory")
	}
	unlock, err := a.vault.lock(ctx, a.server)
	if err != nil {
		return err
	}
	defer unlock()
	kept, err := a.load(ctx)
	if err != nil {
		return err
	}
	if err := change(kept); err != nil {
		return err
	}
	return a.save(ctx)
}

func (a *account) save(ctx context.Context) error {
	if a.kept.RefreshToken == "" && a.kept.DeviceKey == "" {
		return a.vault.remove(ctx, a.server)
	}
	return a.vault.save(ctx, *a.kept)
}

// prove signs a request if the session that it is for is bound to the key, or,
// without access token, if a session is to be opened or renewed.
func (a *account) prove(method, url, accessToken string) (string, error) {
	if a.signer == nil || accessToken != "" && a.kept.TokenType != "DPoP" {
		return "", nil
	}
	return a.signer.Proof(method, url, accessToken, "", a.now())
}

// renew is the token source of clients: it returns the access token of the
// login, none without login, and renews it if it has expired or was refused.
//
// Several clawctl may want that at once, and a refresh token that came twice
// would end the session. So one renews it and the others find it renewed.
func (a *account) renew(ctx context.Context, refused string) (api.Token, error) {
	if a.kept == nil {
		if _, err := a.load(ctx); err != nil {
			return api.Token{}, err
		}
	}
	if a.usable(refused) {
		return a.kept.token(), nil
	}
	unlock, err := a.vault.lock(ctx, a.server)
	if err != nil {
		return api.Token{}, err
	}
	defer unlock()
	if _, err := a.load(ctx); err != nil {
		return api.Token{}, err
	}
	switch {
	case a.kept.RefreshToken == "":
		return api.Token{}, errLoggedOut
	case a.usable(refused):
		return a.kept.token(), nil
	}
	// What has begun is seen through, also when the user gives up: a session
	// whose new refresh token nobody has taken down is lost.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTime)
	defer cancel()
	opened, err := a.bare.RefreshSession(ctx, a.kept.RefreshToken)
	if answer := new(api.Error); errors.As(err, &answer) && answer.Status == http.StatusUnauthorized {
		a.kept.closed()
		return api.Token{}, errors.Join(fmt.Errorf("the session has ended: %w", err), a.save(ctx))
	}
	if err != nil {
		return api.Token{}, fmt.Errorf("renew the session: %w", err)
	}
	a.kept.opened(opened, a.now())
	return a.kept.token(), a.save(ctx)
}

// usable reports whether what is kept needs no renewal. Without login there is
// nothing to renew.
func (a *account) usable(refused string) bool {
	t := a.kept.token()
	return a.kept.RefreshToken == "" && refused == "" || t.Value != "" && t.Value != refused && t.Fresh(a.now())
}

// close forgets the login.
func (a *account) close(ctx context.Context) error {
	return a.change(ctx, func(kept *credentials) error {
		kept.closed()
		return nil
	})
}
