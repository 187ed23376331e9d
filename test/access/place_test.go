package access

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/test/server"
)

const patience = 2 * time.Minute

const operatorToken = "the-operators-token-of-this-test"

// place is a server that lets people in.
type place struct {
	t      *testing.T
	url    string
	issuer *issuer // nil: none
	bin    string  // directory of clawctl

	strangers atomic.Uint32 // who have asked
}

// newPlace is a server that lets in who an issuer vouches for.
func newPlace(t *testing.T) *place {
	t.Helper()
	return newIssuer(t).place(t)
}

// place is a server that takes the issuer's word.
func (i *issuer) place(t *testing.T) *place {
	t.Helper()
	p := startPlace(t, "dev", i.document(t))
	p.issuer = i
	return p
}

// document is the policy of who takes the issuer's word.
func (i *issuer) document(t *testing.T) string {
	t.Helper()
	document := fmt.Sprintf(`identity:
  providers: [oidc, local]
  oidc:
    - name: corp
      issuer: %s
      clientId: %s
      groupsClaim: groups
      groupRoles:
        engineers: [developer]
`, i.url, clientID)
	if i.secret == "" {
		return document
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(i.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return document + "      clientSecretFile: " + file + "\n"
}

func startPlace(t *testing.T, command, document string, environment ...string) *place {
	t.Helper()
	p := &place{t: t, bin: t.TempDir()}
	p.url = server.StartWith(t, server.Settings{
		Command: command,
		// A proxy on this machine says where requests come from.
		Environment: append(environment, "CODERCLAW_TOKEN="+operatorToken, "CODERCLAW_TRUSTED_PROXIES=127.0.0.1/32"),
		Files: map[string]string{
			"runtime.yaml":  "deployment:\n  allowRemoteSessions: true\nsecurity:\n  requireAuth: true\n  defaultRoles: [readonly]\n",
			"security.yaml": document,
		},
	})
	server.Build(t, p.bin, "clawctl")
	// The person's browser: it tells the test where it is sent.
	script := "#!/bin/sh\nprintf '%s\\n' \"$1\" > \"$HOME/browser\"\n"
	if err := os.WriteFile(filepath.Join(p.bin, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// client speaks for who has the token.
func (p *place) client(token string) *api.Client {
	p.t.Helper()
	c, err := api.NewClient(p.url, api.WithToken(token))
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// status is what the server answers to a request with a bearer token. Each
// comes from an address of its own, so that none is refused for having tried
// too often.
func (p *place) status(token string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+"/v1/me", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	from := binary.BigEndian.AppendUint32(nil, 10<<24+p.strangers.Add(1))
	req.Header.Set("X-Forwarded-For", net.IP(from).String())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// person is somebody at a machine of their own.
type person struct {
	*place
	name string // at the provider
	id   string // here
	home string
	env  []string // besides what every command has
}

// person is somebody whom the issuer knows.
func (p *place) person(name string) *person {
	p.t.Helper()
	return &person{place: p, name: name, id: "oidc:corp:" + name, home: p.t.TempDir()}
}

func (p *person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "clawctl"), append(args, "--url", p.url, "--keyring", "file")...)
	cmd.Env = append([]string{"HOME=" + p.home, "PATH=" + p.bin + ":" + os.Getenv("PATH"), "DISPLAY=:0"}, p.env...)
	return cmd
}

// clawctl runs a command to its end.
func (p *person) clawctl(wantCode int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(password), &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		p.t.Fatalf("%s: clawctl %v: exit code %d, want %d: %s%s", p.name, args, code, wantCode, &out, &errs)
	}
	return out.String(), errs.String()
}

// roles are those that the server knows the person to have.
func (p *person) roles() []string {
	p.t.Helper()
	out, _ := p.clawctl(0, "whoami", "-o", "json")
	var me struct {
		UserID string   `json:"userId"`
		Roles  []string `json:"roles"`
	}
	if err := json.Unmarshal([]byte(out), &me); err != nil || me.UserID != p.id {
		p.t.Fatalf("%s is %q (%v)", p.name, out, err)
	}
	return me.Roles
}

// watch starts a command and returns what it says that matches, as soon as it
// does, and a function that waits for its end and returns all that it says.
func (p *person) watch(pattern string, args ...string) (found []string, end func(wantCode int) (said string)) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	cmd := p.command(ctx, args...)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		p.t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(io.TeeReader(stderr, &said))
	for found == nil && lines.Scan() {
		found = regexp.MustCompile(pattern).FindStringSubmatch(lines.Text())
	}
	end = func(wantCode int) string {
		p.t.Helper()
		defer cancel()
		for lines.Scan() {
			continue
		}
		_ = cmd.Wait() // the exit code tells
		if code := cmd.ProcessState.ExitCode(); code != wantCode {
			p.t.Fatalf("%s: clawctl %v: exit code %d, want %d: %s", p.name, args, code, wantCode, &said)
		}
		return said.String()
	}
	if found == nil {
		end(0)
		p.t.Fatalf("%s: clawctl %v does not say %s: %s", p.name, args, pattern, &said)
	}
	return found, end
}
