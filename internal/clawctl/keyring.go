package clawctl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"

	osring "github.com/zalando/go-keyring"
)

// keyring keeps secrets, one a server.
type keyring interface {
	// get returns errNotInKeyring if there is none.
	get(ctx context.Context, server string) (string, error)
	set(ctx context.Context, server, secret string) error
	remove(ctx context.Context, server string) error
}

var errNotInKeyring = errors.New("the keyring has no entry for the server")

// keyringPatience is how long the keyring may take to answer. It may have to
// ask the person for a password.
const keyringPatience = 2 * time.Minute

// systemKeyring is that of the operating system: the Keychain, the Credential
// Manager, or the Secret Service of the session bus.
type systemKeyring struct{}

// findKeyring returns the keyring of the operating system, or nil.
func findKeyring(getenv func(string) string) keyring {
	switch runtime.GOOS {
	case "darwin", "windows":
		return systemKeyring{}
	}
	// Without a session bus the library would try to start one.
	if getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return systemKeyring{}
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "bus")); err == nil {
			return systemKeyring{}
		}
	}
	return nil
}

func (systemKeyring) get(ctx context.Context, server string) (secret string, err error) {
	return ask(ctx, func() (string, error) { return osring.Get(service, server) })
}

func (systemKeyring) set(ctx context.Context, server, secret string) error {
	_, err := ask(ctx, func() (string, error) { return "", osring.Set(service, server, secret) })
	return err
}

func (systemKeyring) remove(ctx context.Context, server string) error {
	_, err := ask(ctx, func() (string, error) { return "", osring.Delete(service, server) })
	return err
}

// ask waits for the keyring's answer no longer than ctx and keyringPatience
// allow: the library cannot be interrupted.
func ask(ctx context.Context, question func() (string, error)) (string, error) {
	type answer struct {
		secret string
		err    error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, keyringPatience, errors.New("the keyring does not answer"))
	defer cancel()
	answers := make(chan answer, 1)
	go func() {
		secret, err := question()
		answers <- answer{secret, err}
	}()
	select {
	case a := <-answers:
		if errors.Is(a.err, osring.ErrNotFound) {
			a.err = errNotInKeyring
		}
		return a.secret, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
