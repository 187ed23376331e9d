package clawctl

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"time"

	"github.com/coderclaw/runtime/api"
)

// browserPatience is how long a person may take in the browser.
const browserPatience = 5 * time.Minute

// loginByBrowser sends the person to the provider and waits for the browser to
// come back to this machine (RFC 8252, section 7.3). The provider's code is
// worth nothing without the verifier (RFC 7636), which stays here.
func (c *cli) loginByBrowser(ctx context.Context, client *api.Client, provider string, f *loginFlags) (api.OpenedSession, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return api.OpenedSession{}, fmt.Errorf("wait for the browser: %w", err)
	}
	defer l.Close()
	verifier := rand.Text() + rand.Text() // 52 characters, 260 bits
	challenge := sha256.Sum256([]byte(verifier))
	login, err := client.StartLogin(ctx, api.NewLogin{
		Provider: provider, Flow: "browser", RedirectURL: "http://" + l.Addr().String() + callbackPath,
		CodeChallenge: base64.RawURLEncoding.EncodeToString(challenge[:]), Session: f.session,
	})
	if err != nil {
		return api.OpenedSession{}, err
	}
	page, err := webPage(login.AuthorizationURL)
	if err != nil {
		return api.OpenedSession{}, err
	}
	at, _ := url.Parse(page) // it is one
	state := at.Query().Get("state")
	if state == "" {
		return api.OpenedSession{}, errors.New("the server names no state, without which nobody knows whose login comes back")
	}
	c.err.printf("Log in in the browser: %s\n", cleanLine(page))
	if c.hasBrowser() {
		if err := c.browse(ctx, page); err != nil {
			c.err.printf("It cannot be opened from here (%s): open that page yourself.\n", cleanLine(err.Error()))
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, min(browserPatience, login.ExpiresAt.Sub(c.now())), errors.New("nobody has logged in in time"))
	defer cancel()
	return serveCallback(ctx, l, state, func(code string) (api.OpenedSession, error) {
		return client.FinishLogin(ctx, api.FinishLogin{
			ID: login.ID, Code: code, State: state, CodeVerifier: verifier, DeviceName: f.deviceName, EnrolmentCode: f.enrolment,
		})
	})
}

// callbackPath is where the browser comes back to.
const callbackPath = "/callback"

// serveCallback waits for the browser and tells it how the login ended. The
// first request that comes back decides: there is no second attempt at guessing
// the state.
func serveCallback(ctx context.Context, l net.Listener, state string, finish func(code string) (api.OpenedSession, error)) (api.OpenedSession, error) {
	type outcome struct {
		opened api.OpenedSession
		err    error
	}
	outcomes := make(chan outcome, 1)
	decided := make(chan struct{}, 1)
	decided <- struct{}{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+callbackPath, func(w http.ResponseWriter, r *http.Request) {
		// Another name for this address would be a page's that wants to look in.
		if r.Host != l.Addr().String() {
			http.Error(w, "not here", http.StatusMisdirectedRequest)
			return
		}
		select {
		case <-decided:
		default:
			http.Error(w, "the login is over", http.StatusGone)
			return
		}
		var o outcome
		code, err := codeOf(r.URL.Query(), state)
		if err == nil {
			o.opened, err = finish(code)
		}
		o.err = err
		answerBrowser(w, err)
		outcomes <- o
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var o outcome
	select {
	case o = <-outcomes:
	case <-ctx.Done():
		o.err = context.Cause(ctx)
	case o.err = <-served:
	}
	// The page is to arrive, however slow the browser is; then nothing is.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	srv.Shutdown(grace) //nolint:errcheck // whoever takes longer gets no page
	return o.opened, o.err
}

// codeOf returns what the provider has sent along.
func codeOf(q url.Values, state string) (string, error) {
	switch {
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1:
		return "", errors.New("what came back to this machine belongs to another login (the state is wrong): log in again")
	case q.Get("error") != "":
		text := q.Get("error")
		if description := q.Get("error_description"); description != "" {
			text += ": " + description
		}
		return "", fmt.Errorf("the provider refuses the login: %.300s", text)
	case q.Get("code") == "":
		return "", errors.New("the provider has sent no code")
	}
	return q.Get("code"), nil
}

func answerBrowser(w http.ResponseWriter, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the code
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	title, text := "You are logged in", "You can close this page and go back to the terminal."
	if err != nil {
		title, text = "The login did not succeed", "The terminal says why. You can close this page."
		w.WriteHeader(http.StatusBadRequest)
	}
	fmt.Fprintf(w, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>%s</title><h1>%s</h1><p>%s</p></html>\n", title, title, text)
}

// hasBrowser reports whether a browser that is opened from here can come back to
// this machine.
func (c *cli) hasBrowser() bool {
	if c.browse == nil || c.getenv("SSH_CONNECTION") != "" {
		return false
	}
	switch runtime.GOOS {
	case "darwin", "windows":
		return true
	}
	return c.getenv("DISPLAY") != "" || c.getenv("WAYLAND_DISPLAY") != ""
}

// browse opens a page in the person's browser, which may outlive this program.
func browse(ctx context.Context, page string) error {
	command := []string{"xdg-open", page}
	switch runtime.GOOS {
	case "darwin":
		command[0] = "open"
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", page}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() //nolint:errcheck // the person sees what comes of it
	return nil
}
