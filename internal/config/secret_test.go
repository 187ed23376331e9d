package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/coderclaw/runtime/internal/config"
)

func TestSecretsDoNotShow(t *testing.T) {
	t.Parallel()
	type hidden struct{ inner config.Secret }
	secret := config.NewSecret("hunter2")
	c := config.Default()
	c.Token, c.DatabaseURL, c.LLM.APIKey = secret, secret, secret
	c.GitHub.ClientSecret, c.Google.ClientSecret = secret, secret

	var shown bytes.Buffer
	for _, value := range []any{secret, &secret, c, &c, hidden{secret}, []config.Secret{secret}, map[string]config.Secret{"k": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&shown, verb+"\n", value)
		}
		for _, handler := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
			slog.New(handler).Info("value", "value", value)
		}
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, func(v any) ([]byte, error) { return yaml.Marshal(v) }} {
			text, err := marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			shown.Write(text)
		}
	}
	for _, trace := range []string{"hunter2", "68756e74657232", "[104 117"} {
		if bytes.Contains(shown.Bytes(), []byte(trace)) {
			t.Errorf("%q shows in\n%s", trace, shown.String())
		}
	}
	if secret.Reveal() != "hunter2" || (config.Secret{}).Reveal() != "" {
		t.Error("Reveal does not return the text")
	}
}

func TestOnlyASetSecretPrintsAsOne(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]config.Secret{"": {}, "[secret]": config.NewSecret("x")} {
		if got := s.String(); got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
}
