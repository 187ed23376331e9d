package clawctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coderclaw/runtime/api"
)

// credentials are what clawctl keeps for one server: the session that a login
// has opened, and the key of this machine if it is enrolled there.
type credentials struct {
	Server string `json:"server"`

	UserID        string    `json:"userId,omitempty"`
	SessionID     string    `json:"sessionId,omitempty"`
	AccessToken   string    `json:"accessToken,omitempty"`
	TokenType     string    `json:"tokenType,omitempty"`
	TokenExpires  time.Time `json:"tokenExpires,omitzero"`
	RefreshToken  string    `json:"refreshToken,omitempty"`
	SessionExpire time.Time `json:"sessionExpires,omitzero"`

	DeviceID  string `json:"deviceId,omitempty"`
	DeviceKey string `json:"deviceKey,omitempty"` // PKCS#8 in PEM
}

// String keeps the secrets out of logs.
func (r credentials) String() string { return "[credentials of " + r.Server + "]" }

// GoString keeps the secrets out of logs.
func (r credentials) GoString() string { return r.String() }

// opened takes the session that the server opened or renewed at that time.
func (r *credentials) opened(o api.OpenedSession, at time.Time) {
	t := o.Token(at)
	r.AccessToken, r.TokenType, r.TokenExpires, r.RefreshToken = t.Value, t.Type, t.ExpiresAt, o.RefreshToken
	r.UserID, r.SessionID, r.SessionExpire = o.Session.UserID, o.Session.ID, o.Session.ExpiresAt
}

// closed forgets the session. The key stays: the machine is enrolled still.
func (r *credentials) closed() {
	*r = credentials{Server: r.Server, DeviceID: r.DeviceID, DeviceKey: r.DeviceKey}
}

func (r *credentials) token() api.Token {
	return api.Token{Value: r.AccessToken, Type: r.TokenType, ExpiresAt: r.TokenExpires}
}

// vault keeps credentials in the keyring of the operating system or in files of
// the user's alone.
type vault struct {
	mode    string  // auto, os or file
	keyring keyring // nil: there is none
	dir     string  // of the files, and of the locks in any case
	trouble func(error)
}

// errNoKeyring says what to do where --keyring=os cannot be had.
var errNoKeyring = errors.New("there is no keyring here: use --keyring=file")

// service is the name under which the keyring keeps our entries.
const service = "coderclaw"

func (c *cli) vault() (*vault, error) {
	dir, err := c.config()
	if err != nil {
		return nil, fmt.Errorf("find the directory of credentials: %w", err)
	}
	if c.keyringMode.value == "os" && c.keyring == nil {
		return nil, errNoKeyring
	}
	return &vault{
		mode: c.keyringMode.value, keyring: c.keyring, dir: filepath.Join(dir, "coderclaw", "credentials"),
		trouble: func(err error) { c.keyringTrouble = err },
	}, nil
}

// vaultKey is the name of a server in the vault: its address without what makes
// no difference.
func vaultKey(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		u.Host = strings.ToLower(u.Host)
		address = u.String()
	}
	return strings.TrimRight(address, "/")
}

// load returns the credentials for a server, empty ones if there are none.
//
// Which of the two places holds them was settled by the login. So where there
// is a file, an old entry of the keyring does not count: a refresh token that is
// used twice would end the session.
func (v *vault) load(ctx context.Context, server string) (credentials, error) {
	none := credentials{Server: server}
	if v.mode != "os" {
		data, err := readPrivate(v.path(server, ".json"))
		if err == nil {
			return parseCredentials(server, data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return none, fmt.Errorf("read credentials: %w", err)
		}
	}
	if v.mode == "file" || v.keyring == nil {
		return none, nil
	}
	text, err := v.keyring.get(ctx, server)
	if errors.Is(err, errNotInKeyring) {
		return none, nil
	}
	if err != nil && v.mode == "auto" && ctx.Err() == nil {
		// Many a session bus has no keyring behind it; most who see this have
		// never logged in.
		v.trouble(err)
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read credentials from the keyring: %w", err)
	}
	return parseCredentials(server, []byte(text))
}

func parseCredentials(server string, data []byte) (credentials, error) {
	r := credentials{Server: server}
	// The cause would quote what stands there.
	if json.Unmarshal(data, &r) != nil || r.Server != server {
		return credentials{Server: server}, fmt.Errorf("read credentials: what is kept for %s is damaged; log in again", server)
	}
	return r, nil
}

// save keeps credentials where they are, or, if they are new, in the keyring if
// that takes them.
func (v *vault) save(ctx context.Context, r credentials) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	path := v.path(r.Server, ".json")
	_, err = os.Lstat(path)
	inFile := v.mode == "file" || v.mode == "auto" && (v.keyring == nil || err == nil)
	if !inFile {
		if err = v.keyring.set(ctx, r.Server, string(data)); err == nil {
			os.Remove(path) // from before the user asked for the keyring
			return nil
		}
		if v.mode == "os" || ctx.Err() != nil {
			return fmt.Errorf("keep credentials in the keyring: %w", err)
		}
	}
	if err := writePrivate(path, data); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	return nil
}

// remove forgets all about a server. The next login settles anew where its
// credentials are kept.
func (v *vault) remove(ctx context.Context, server string) error {
	err := fs.ErrNotExist
	if v.mode != "os" {
		if err = os.Remove(v.path(server, ".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget credentials: %w", err)
		}
	}
	if v.mode == "file" || v.keyring == nil {
		return nil
	}
	inFile := err == nil
	// With a file, the keyring has at most what no longer counts.
	if err := v.keyring.remove(ctx, server); err != nil && !errors.Is(err, errNotInKeyring) && !inFile {
		return fmt.Errorf("forget credentials in the keyring: %w", err)
	}
	return nil
}

func (v *vault) path(server, suffix string) string {
	return filepath.Join(v.dir, url.QueryEscape(server)+suffix)
}

// maxPrivate bounds what is read of a file of credentials.
const maxPrivate = 64 << 10

// readPrivate reads a file that nobody but its owner can read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(info); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return io.ReadAll(io.LimitReader(f, maxPrivate))
}

// writePrivate puts data into a file of the user's alone: all of it or, when
// that fails, none.
func writePrivate(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockPause is how long to wait before another look at a lock that is held.
const lockPause = 25 * time.Millisecond

// lock keeps other processes of the user from changing the credentials for a
// server, until unlock is called. A process that ends lets go of it.
func (v *vault) lock(ctx context.Context, server string) (unlock func(), err error) {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock credentials: %w", err)
	}
	f, err := os.OpenFile(v.path(server, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock credentials: %w", err)
	}
	for {
		locked, err := tryLock(f)
		if locked {
			return func() { f.Close() }, nil
		}
		if err == nil {
			err = sleep(ctx, lockPause)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock credentials: %w", err)
		}
	}
}

// sleep waits for d, or returns ctx's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
