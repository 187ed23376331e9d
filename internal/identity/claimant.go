package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/identity/provider"
	"github.com/coderclaw/runtime/internal/policy"
)

// Credential is what shows who someone is: one of a login and password, an API
// key, a token, or an identity.
type Credential struct {
	// Login and Password are those of a local account. With Code, the one-time
	// code of EnsureBootstrap, the account is made: of the first administrator.
	Login, Password, Code string
	APIKey                string
	Token                 string             // a JWT of an issuer that is configured
	Identity              *provider.Identity // out of a login that has just ended well
}

// claimant is who a credential has been found to speak for.
type claimant struct {
	userID    string
	method    string
	keyID     string
	projectID string              // the one it is confined to; "": none
	given     []policy.Role       // in every project
	inProject map[string][]string // roles by project
	defaults  bool                // whether default roles may apply
	roles     []policy.Role       // those it is narrowed to; nil: not
	scopes    []policy.Permission // likewise
	expiresAt time.Time           // when the credential itself ends; zero: never
	identity  *provider.Identity  // to remember the user by
	oneUse    bool
	invited   bool // by whoever runs the server, with the one-time code
}

func (cl *claimant) rolesIn(projectID string) []policy.Role {
	roles := slices.Clone(cl.given)
	for _, project := range slices.Compact([]string{"", projectID}) {
		for _, name := range cl.inProject[project] {
			roles = append(roles, policy.Role(name))
		}
	}
	return union(roles, nil)
}

// prove finds out who a credential speaks for. A bad one is an errEnded or a
// fault of whoever has looked at it.
func (s *Service) prove(ctx context.Context, cr Credential, o Origin) (*claimant, error) {
	switch {
	case cr.Code != "":
		u, err := s.bootstrap(ctx, cr.Code, NewUser{Login: cr.Login, Password: cr.Password}, o)
		return &claimant{userID: u.ID, method: localProvider, defaults: true, invited: true}, err
	case cr.Login != "":
		id := localUserID(cr.Login)
		if !loginNameForm.MatchString(cr.Login) {
			id = localUserID("") // nobody's
		}
		if err := s.checkPassword(ctx, id, cr.Password, o.Address); err != nil {
			return nil, err
		}
		return &claimant{userID: id, method: localProvider, defaults: true}, nil
	case cr.APIKey != "":
		return s.proveKey(ctx, cr.APIKey)
	case cr.Identity != nil:
		return claimantOf(*cr.Identity), nil
	}
	set := s.providers.Load()
	if set == nil {
		return nil, errEnded("no provider of tokens is configured")
	}
	identity, err := set.VerifyToken(ctx, cr.Token)
	if err != nil {
		return nil, err
	}
	return claimantOf(identity), nil
}

func claimantOf(i provider.Identity) *claimant {
	return &claimant{
		userID: i.UserID, method: i.Provider, projectID: i.ProjectID, inProject: i.Roles,
		defaults: !i.OneUse || len(i.Roles) == 0, identity: &i, oneUse: i.OneUse,
	}
}

// The methods that are no provider's name.
const (
	localProvider = "local"
	keyMethod     = "key"
	actionsMethod = "github-actions"
)

// accepts reports whether a policy accepts sessions by a method. API keys and
// the workflows of GitHub Actions are let in one by one, and so need not stand
// among the providers. A closed policy says for itself why it denies.
func accepts(p *policy.Policy, method string) bool {
	switch {
	case method == keyMethod, method == actionsMethod, p.IsClosed():
		return true
	}
	switch method {
	case localProvider, string(policy.GitHub), string(policy.Google):
		return p.Accepts(policy.Provider(method))
	}
	return p.Accepts(policy.OIDC)
}

// admit makes the user known, and uses up what can be used once. changed says
// that what the user may do is no more what it was.
func (s *Service) admit(ctx context.Context, tx pgx.Tx, cl *claimant, proof *dpop.Proof) (changed bool, err error) {
	if proof != nil {
		if err := useProof(ctx, tx, *proof); err != nil {
			return false, err
		}
	}
	if i := cl.identity; i != nil && i.OneUse {
		if err := useOnce(ctx, tx, i.Issuer, i.TokenID, i.ExpiresAt.Add(2*time.Minute)); err != nil {
			return false, err
		}
	}
	if cl.identity != nil {
		return s.remember(ctx, tx, *cl.identity)
	}
	return false, noteLogin(ctx, tx, cl.userID, s.now())
}

// useProof makes a proof worthless for every server.
func useProof(ctx context.Context, tx pgx.Tx, p dpop.Proof) error {
	return useOnce(ctx, tx, "device key "+p.Thumbprint, p.ID, p.IssuedAt.Add(2*dpop.MaxAge))
}

// useOnce is an errEnded if the token was used before; of two who use it at
// once, one waits for what becomes of the other.
func useOnce(ctx context.Context, tx pgx.Tx, issuer, id string, until time.Time) error {
	tag, err := tx.Exec(ctx, `INSERT INTO used_tokens (issuer, token_id, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		issuer, id, until)
	if err != nil {
		return fmt.Errorf("use up a token: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errEnded("it was used before and can be used once")
	}
	return nil
}

// remember stores what a provider says of a user, unless it has said something
// since. Names are for people; that groups or roles have changed is a change of
// access.
func (s *Service) remember(ctx context.Context, tx pgx.Tx, i provider.Identity) (changed bool, err error) {
	groups := slices.Clone(i.Groups)
	slices.Sort(groups)
	args := pgx.NamedArgs{"id": i.UserID, "provider": i.Provider, "issuer": i.Issuer, "subject": i.Subject, "stated": i.StatedAt,
		"groups": slices.Compact(groups), "roles": i.Roles, "name": printable(i.Name, maxNameBytes), "email": printable(i.Email, maxEmailBytes), "now": s.now()}
	if len(i.Groups) == 0 {
		args["groups"] = []string{}
	}
	if i.Roles == nil || i.OneUse { // what a token gives that is used once, it gives to no key
		args["roles"] = map[string][]string{}
	}
	for locked := false; ; {
		var issuer string
		var same, outdated bool
		err := tx.QueryRow(ctx, `SELECT issuer, groups = @groups AND roles = @roles::jsonb, stated_at > @stated FROM users WHERE id = @id`, args).
			Scan(&issuer, &same, &outdated)
		known := err == nil
		switch {
		case err != nil && !errors.Is(err, pgx.ErrNoRows):
			return false, fmt.Errorf("read user: %w", err)
		case known && issuer != i.Issuer:
			return false, deny(policy.LayerSession, "%s is known from issuer %.100q, not from %.100q", i.UserID, issuer, i.Issuer)
		case known && outdated:
			return false, noteLogin(ctx, tx, i.UserID, s.now())
		}
		// Each of the two holds only for what was read; another login may be faster.
		set := `WHERE users.groups = excluded.groups AND users.roles = excluded.roles`
		if changed = known && !same; changed {
			set = `, groups = excluded.groups, roles = excluded.roles WHERE true`
			if !locked {
				if err := lockAccess(ctx, tx); err != nil {
					return false, err
				}
				locked = true
			}
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO users (id, provider, issuer, subject, name, email, groups, roles, created_at, last_login_at, stated_at)
			VALUES (@id, @provider, @issuer, @subject, @name, @email, @groups, @roles, @now, @now, @stated)
			ON CONFLICT ON CONSTRAINT users_pkey DO UPDATE
				SET name = excluded.name, email = excluded.email, last_login_at = excluded.last_login_at, stated_at = excluded.stated_at
				`+set+` AND users.stated_at <= excluded.stated_at`, args)
		if err != nil {
			return false, fmt.Errorf("store user: %w", err)
		}
		if tag.RowsAffected() > 0 {
			return changed, nil
		}
	}
}

func noteLogin(ctx context.Context, tx pgx.Tx, userID string, now time.Time) error {
	if _, err := tx.Exec(ctx, `UPDATE users SET last_login_at = $2 WHERE id = $1`, userID, now); err != nil {
		return fmt.Errorf("note login: %w", err)
	}
	return nil
}

// deviceOf returns the device whose key made the proof, if it is one's. What
// the caller says of its device counts for nothing without.
func (s *Service) deviceOf(ctx context.Context, tx pgx.Tx, cl *claimant, proof *dpop.Proof, claimed string) (*uuid.UUID, error) {
	if proof == nil {
		if claimed != "" {
			return nil, deny(policy.LayerDevice, "a device is believed only with a proof by its key")
		}
		return nil, nil
	}
	var id uuid.UUID
	var userID string
	var revoked bool
	err := tx.QueryRow(ctx, `SELECT id, user_id, revoked_at IS NOT NULL FROM devices
		WHERE thumbprint = $1 ORDER BY revoked_at DESC NULLS FIRST LIMIT 1`, proof.Thumbprint).Scan(&id, &userID, &revoked)
	found := err == nil
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("look for device: %w", err)
	case found && revoked:
		return nil, deny(policy.LayerDevice, "device %s was revoked", id)
	case found && userID != cl.userID:
		return nil, deny(policy.LayerDevice, "the key is that of another user's device")
	case claimed != "" && (!found || claimed != id.String()):
		return nil, deny(policy.LayerDevice, "the proof is not by the key of device %.40q", claimed)
	case !found:
		return nil, nil
	}
	return &id, nil
}
