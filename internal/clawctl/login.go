package clawctl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
)

type loginFlags struct {
	provider      string
	deviceFlow    bool
	user          string
	passwordStdin bool
	code          string
	actions       bool
	audience      string
	enroll        bool
	deviceName    string
	enrolment     string
	session       api.NewSession // what it is to be
}

func (c *cli) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in at the server",
		Long: `Log in at the server, and keep the login in the operating system's keyring, or
else in a file that only you can read. Other commands then speak for you.

At an identity provider this opens a browser, or, with --device-flow or where
there is no browser, shows a code to type in on another machine. CI jobs log in
with CODERCLAW_TOKEN (an API key, or a token of an OpenID Connect issuer) or, on
GitHub, with --github-actions in a job with the permission "id-token: write".`,
		Example: `  clawctl login
  clawctl login --provider github --project web
  clawctl login --user ann --password-stdin < password
  clawctl login --user ann --code ccb_…     # the first administrator
  clawctl login --enroll --enrolment-code cce_…   # where only known devices are let in
  clawctl login --github-actions --project web`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.login(cmd.Context(), &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.provider, "provider", "", "`name` of the identity provider, or local")
	flags.BoolVar(&f.deviceFlow, "device-flow", false, "show a code to type in on another machine, instead of opening a browser")
	flags.StringVar(&f.user, "user", "", "`name` of the local account")
	flags.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password from standard input")
	flags.StringVar(&f.code, "code", "", "the one-time `code` that the server has printed: makes the account, of the first administrator")
	flags.BoolVar(&f.actions, "github-actions", false, "log in as the GitHub Actions job that this runs in")
	flags.StringVar(&f.audience, "audience", "", "with --github-actions: the audience that the server's rule names (default its address)")
	flags.BoolVar(&f.enroll, "enroll", false, "give this machine a key, make it a device of yours, and bind the session to it")
	flags.StringVar(&f.deviceName, "device-name", "", "with --enroll: what people call this machine (default its host name)")
	flags.StringVar(&f.enrolment, "enrolment-code", "", "a `code` from an administrator, with which this machine is verified")
	flags.StringVar(&f.session.ProjectID, "project", "", "`id` of the project that the session is confined to")
	cmd.MarkFlagsMutuallyExclusive("provider", "github-actions")
	cmd.MarkFlagsMutuallyExclusive("enroll", "github-actions")
	cmd.MarkFlagsMutuallyExclusive("enrolment-code", "github-actions")
	return cmd
}

func (c *cli) login(ctx context.Context, f *loginFlags) error {
	a, err := c.account()
	if err != nil {
		return err
	}
	if _, err := a.load(ctx); err != nil {
		return err
	}
	key, err := a.enrolling(f)
	if err != nil {
		return err
	}
	opened, err := c.openSession(ctx, a.bare, f)
	if err != nil {
		return loginError{err}
	}
	if err := a.change(ctx, func(kept *credentials) error {
		kept.opened(opened, c.now())
		if key != "" {
			kept.DeviceID, kept.DeviceKey = opened.Session.DeviceID, key
		}
		return nil
	}); err != nil {
		return fmt.Errorf("the server has opened session %s, but %w", opened.Session.ID, err)
	}
	if c.getenv("CODERCLAW_TOKEN") != "" {
		c.err.printf("CODERCLAW_TOKEN is set, and goes before this login.\n")
	}
	return c.print(opened.Session, func() {
		s := opened.Session
		text := "Logged in as " + s.UserID
		if s.ProjectID != "" {
			text += " in project " + s.ProjectID
		}
		c.out.printf("%s until %s\n", cleanLine(text), s.ExpiresAt.In(c.zone).Format(time.RFC3339))
	})
}

// enrolling gives the account a key, if the login is to make this machine a
// device, and returns it to be kept.
func (a *account) enrolling(f *loginFlags) (key string, err error) {
	switch {
	case !f.enroll && f.deviceName != "":
		return "", usagef("--device-name goes with --enroll")
	case !f.enroll && f.enrolment != "" && a.signer == nil:
		return "", usagef("this machine has no key yet: --enroll makes one")
	case !f.enroll:
		return "", nil
	case a.signer != nil:
		return "", alreadyDevice(a.kept)
	}
	if f.deviceName, err = machineName(f.deviceName); err != nil {
		return "", err
	}
	if a.signer, err = dpop.GenerateEd25519(); err != nil {
		return "", err
	}
	text, err := a.signer.Marshal()
	return string(text), err
}

// loginError is why a login did not succeed, for which another login is no
// advice.
type loginError struct{ cause error }

func (e loginError) Error() string { return e.cause.Error() }
func (e loginError) Unwrap() error { return e.cause }

// openSession chooses a way to log in and goes it.
func (c *cli) openSession(ctx context.Context, client *api.Client, f *loginFlags) (api.OpenedSession, error) {
	local := f.user != "" || f.passwordStdin || f.code != ""
	if local && f.provider == "" && !f.actions {
		f.provider = "local"
	}
	switch {
	case local && f.provider != "local":
		return api.OpenedSession{}, usagef("--user, --password-stdin and --code are for local accounts")
	case f.deviceFlow && (f.actions || f.provider == "local"):
		return api.OpenedSession{}, usagef("--device-flow is for identity providers")
	case c.token != "" && (f.provider != "" || f.deviceFlow || f.actions):
		return api.OpenedSession{}, usagef("--token is a login of its own")
	case f.audience != "" && !f.actions:
		return api.OpenedSession{}, usagef("--audience is for --github-actions")
	case f.actions:
		return c.loginByActions(ctx, client, f)
	case f.provider == "local":
		return c.loginByPassword(ctx, client, f)
	case f.provider == "" && !f.deviceFlow && c.givenToken() != "":
		return c.loginByToken(ctx, client, f)
	}
	p, err := c.chooseProvider(ctx, client, f)
	if err != nil {
		return api.OpenedSession{}, err
	}
	has := func(flow string) bool { return slices.Contains(p.Flows, flow) }
	switch {
	case has("password"):
		return c.loginByPassword(ctx, client, f)
	case has("device") && (f.deviceFlow || !has("browser") || !c.hasBrowser()):
		return c.loginByDeviceFlow(ctx, client, p.Name, f)
	case has("browser") && !f.deviceFlow:
		return c.loginByBrowser(ctx, client, p.Name, f)
	}
	return api.OpenedSession{}, fmt.Errorf("provider %s has no such login: it has %s", p.Name, strings.Join(p.Flows, ", "))
}

// chooseProvider finds the provider that the user names, or the only one.
func (c *cli) chooseProvider(ctx context.Context, client *api.Client, f *loginFlags) (api.LoginProvider, error) {
	providers, err := client.LoginProviders(ctx)
	if err != nil {
		return api.LoginProvider{}, err
	}
	if f.deviceFlow {
		providers = slices.DeleteFunc(providers, func(p api.LoginProvider) bool { return !slices.Contains(p.Flows, "device") })
	}
	var names []string
	for _, p := range providers {
		if p.Name == f.provider || f.provider == "" && len(providers) == 1 {
			return p, nil
		}
		names = append(names, p.Name)
	}
	switch {
	case len(names) == 0:
		return api.LoginProvider{}, errors.New("the server has no such login")
	case f.provider == "":
		return api.LoginProvider{}, usagef("choose one with --provider: %s", strings.Join(names, ", "))
	}
	return api.LoginProvider{}, usagef("--provider %s: the server has %s", f.provider, strings.Join(names, ", "))
}

// newSession is what to ask for where the credential goes along at once.
func (f *loginFlags) newSession() api.NewSession {
	n := f.session
	n.DeviceName, n.EnrolmentCode = f.deviceName, f.enrolment
	return n
}

func (c *cli) loginByPassword(ctx context.Context, client *api.Client, f *loginFlags) (opened api.OpenedSession, err error) {
	n := f.newSession()
	n.Login, n.Code = f.user, f.code
	if n.Login == "" {
		if f.passwordStdin {
			return opened, usagef("--password-stdin needs --user")
		}
		if n.Login, err = c.ask(ctx, "Login: "); err != nil {
			return opened, err
		}
	}
	if n.Password, err = c.password(ctx, "Password: ", f.passwordStdin, f.code != ""); err != nil {
		return opened, err
	}
	return client.OpenSession(ctx, n)
}

// apiKeyPrefix tells API keys from tokens of identity providers.
const apiKeyPrefix = "ccl_"

func (c *cli) loginByToken(ctx context.Context, client *api.Client, f *loginFlags) (api.OpenedSession, error) {
	n := f.newSession()
	if token := c.givenToken(); strings.HasPrefix(token, apiKeyPrefix) {
		n.APIKey = token
	} else {
		n.Token = token
	}
	return client.OpenSession(ctx, n)
}

// defaultInterval is how long to wait between two polls if the server does not
// say (RFC 8628, section 3.5).
const defaultInterval = 5 * time.Second

func (c *cli) loginByDeviceFlow(ctx context.Context, client *api.Client, provider string, f *loginFlags) (api.OpenedSession, error) {
	login, err := client.StartLogin(ctx, api.NewLogin{Provider: provider, Flow: "device", Session: f.session})
	if err != nil {
		return api.OpenedSession{}, err
	}
	page, err := webPage(login.VerificationURL)
	if err != nil {
		return api.OpenedSession{}, err
	}
	c.err.printf("Open %s on any machine and type in this code: %s\n", cleanLine(page), c.err.style(bold, cleanLine(login.UserCode)))
	interval := time.Duration(login.IntervalSeconds) * time.Second
	if interval <= 0 {
		interval = defaultInterval
	}
	for told := false; ; {
		if err := c.sleep(ctx, interval); err != nil {
			return api.OpenedSession{}, err
		}
		if c.now().After(login.ExpiresAt) {
			return api.OpenedSession{}, errors.New("the code has expired: log in again")
		}
		opened, err := client.FinishLogin(ctx, api.FinishLogin{ID: login.ID, DeviceName: f.deviceName, EnrolmentCode: f.enrolment})
		var answer *api.Error
		switch {
		case errors.Is(err, api.ErrLoginPending):
		case errors.As(err, &answer) && answer.RetryAfter > 0: // it has not been looked at
			interval = max(interval, answer.RetryAfter)
			if answer.Status >= 500 && !told {
				c.err.printf("%s. Trying on until %s.\n", cleanLine(answer.Detail), login.ExpiresAt.In(c.zone).Format(time.TimeOnly))
				told = true
			}
		default:
			return opened, err
		}
	}
}

// webPage returns an address that the server names, if it is one that a browser
// may be sent to: that of a page, not of a file or a program.
func webPage(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("the server names no page to log in at: %q", address)
	}
	return u.String(), nil
}
