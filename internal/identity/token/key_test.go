package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/identity/token"
)

// rfc8037 returns the key of RFC 8037, appendix A.1.
func rfc8037(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func pkcs8(t *testing.T, private any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestAKeyIsNamedByItsThumbprint(t *testing.T) {
	t.Parallel()
	k, err := token.ParseKey(pkcs8(t, rfc8037(t)))
	if err != nil {
		t.Fatal(err)
	}
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; k.ID != want { // RFC 8037, appendix A.3
		t.Errorf("the id is %s, want %s", k.ID, want)
	}
}

func TestAKeySurvivesItsFile(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	if !k.CreatedAt.Equal(now) || k.RetiredAt != nil {
		t.Errorf("a new key is created at %v and retired at %v", k.CreatedAt, k.RetiredAt)
	}
	path := writeKey(t, k, 0o600)
	written := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.Chtimes(path, written, written); err != nil {
		t.Fatal(err)
	}
	got, err := token.ReadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != k.ID || !got.Private.Equal(k.Private) || !got.CreatedAt.Equal(written) || got.RetiredAt != nil {
		t.Errorf("got %v of %v, want %v of %v", got, got.CreatedAt, k, written)
	}
}

func writeKey(t *testing.T, k token.Key, mode os.FileMode) string {
	t.Helper()
	data, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadKeyFileTakesOnlyWhatItsOwnerAloneMayUse(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	for _, mode := range []os.FileMode{0o600, 0o400, 0o700} {
		if _, err := token.ReadKeyFile(writeKey(t, k, mode)); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644, 0o620, 0o602, 0o610, 0o777} {
		if _, err := token.ReadKeyFile(writeKey(t, k, mode)); err == nil || !strings.Contains(err.Error(), "0600 or less") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := token.ReadKeyFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := token.ReadKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs8(t, rfc8037(t))
	public, err := x509.MarshalPKIXPublicKey(rfc8037(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		says string
		data []byte
		want string
	}{
		{"nothing", nil, "not one PEM block"},
		{"a text", []byte("key"), "not one PEM block"},
		{"a P-256 key", pkcs8(t, p256), "not Ed25519"},
		{"two keys", append(append([]byte{}, good...), good...), "not one PEM block"},
		{"a public key", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), "not one PEM block"},
		{"a public key that says it is private", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: public}), "not PKCS#8"},
	} {
		if _, err := token.ParseKey(row.data); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.says, err, row.want)
		}
	}
}

func TestAKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	encoded, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k)
	for _, text := range []string{
		fmt.Sprintf("%v", k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%+v", []token.Key{k}),
		string(encoded), log.String(),
	} {
		if !strings.Contains(text, "[signing key "+k.ID+"]") || len(text) > 250 {
			t.Errorf("it prints as %s", text)
		}
	}
}

func TestJWKSHoldsThePublicPartsAlone(t *testing.T) {
	t.Parallel()
	first, err := token.ParseKey(pkcs8(t, rfc8037(t)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := token.JWKS([]token.Key{first})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",` +
		`"kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","alg":"EdDSA","use":"sig"}]}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, err := token.JWKS(nil); err != nil || string(got) != `{"keys":[]}` {
		t.Errorf("without keys it is %s, %v", got, err)
	}
}
