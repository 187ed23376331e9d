package clawctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/coderclaw/runtime/api"
)

// defaultURL is where a server listens that nobody told otherwise.
const defaultURL = "http://127.0.0.1:7433"

// address is where the server is and who says so.
type address struct{ url, source string }

func (c *cli) address() (address, error) {
	if c.url != "" {
		return address{c.url, "from --url"}, nil
	}
	if u := c.getenv("CODERCLAW_URL"); u != "" {
		return address{u, "from CODERCLAW_URL"}, nil
	}
	if path := c.serverFile(); path != "" {
		u, err := readServerFile(path)
		if err == nil {
			return address{u, "from " + path}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return address{}, fmt.Errorf("read the address of the server: %w", err)
		}
	}
	return address{defaultURL, "the default address"}, nil
}

// serverFile is where a local server writes its address: beside its
// configuration directory. It is "" for a user without a home.
func (c *cli) serverFile() string {
	if dir := c.getenv("CODERCLAW_CONFIG_DIR"); dir != "" {
		return filepath.Join(filepath.Dir(filepath.Clean(dir)), "server.json")
	}
	home, err := c.home()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".coderclaw", "server.json")
}

func readServerFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var server struct{ URL string }
	if err := json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&server); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if server.URL == "" {
		return "", fmt.Errorf("%s: it names no url", path)
	}
	return server.URL, nil
}

// explain says what went wrong, and what to do about it where that is known.
func (c *cli) explain(err error) string {
	var answer *api.Error
	var dial *net.OpError
	switch {
	case errors.As(err, &answer):
		text := err.Error()
		if answer.RequestID != "" && answer.Status >= 500 {
			text += "\nThe server's log says more under request id " + answer.RequestID + "."
		}
		if answer.Status == 401 && !errors.As(err, new(loginError)) {
			text += "\n" + c.adviceOnCredentials()
		}
		return text
	case errors.As(err, &dial) && dial.Op == "dial":
		address, addressErr := c.address()
		if addressErr != nil {
			return err.Error()
		}
		return fmt.Sprintf("no server answers at %s (%s): %v\n%s", address.url, address.source, dial.Err, advice(address))
	}
	return err.Error()
}

func (c *cli) adviceOnCredentials() string {
	switch {
	case c.token != "":
		return "That was the credential of --token."
	case c.givenToken() != "":
		return "That was the credential of CODERCLAW_TOKEN."
	case c.keyringTrouble != nil:
		return "Your login may be in the keyring, which could not be read: " + c.keyringTrouble.Error()
	}
	return `Log in with "clawctl login", or give a credential with CODERCLAW_TOKEN or --token.`
}

func advice(a address) string {
	if u, err := url.Parse(a.url); err == nil {
		ip := net.ParseIP(u.Hostname())
		if u.Scheme == "unix" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return `Start one with "coderclawd dev", or name another with --url or CODERCLAW_URL.`
		}
	}
	return "Name another with --url or CODERCLAW_URL."
}
