package token_test

import (
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/token"
)

func TestASecretIsFoundByItsHashAlone(t *testing.T) {
	t.Parallel()
	plain, hash := token.NewSecret("clr_")
	other, otherHash := token.NewSecret("clr_")
	if plain == other || token.Equal(hash, otherHash) {
		t.Fatal("two secrets are the same")
	}
	if !strings.HasPrefix(plain, "clr_") || len(plain) != len("clr_")+52 {
		t.Errorf("a secret is %q", plain)
	}
	got, ok := token.ParseSecret("clr_", plain)
	if !ok || !token.Equal(got, hash) {
		t.Errorf("its hash is %x, %v; want %x", got, ok, hash)
	}
}

func TestParseSecretRefuses(t *testing.T) {
	t.Parallel()
	plain, _ := token.NewSecret("clr_")
	for says, text := range map[string]string{
		"nothing":                        "",
		"the prefix alone":               "clr_",
		"another prefix":                 "cle_" + plain[4:],
		"no prefix":                      plain[4:],
		"one letter less":                plain[:len(plain)-1],
		"one letter more":                plain + "A",
		"a small letter":                 plain[:len(plain)-1] + "a",
		"a line feed":                    plain[:len(plain)-1] + "\n",
		"a letter outside in the middle": plain[:20] + "1" + plain[21:],
	} {
		if hash, ok := token.ParseSecret("clr_", text); ok || hash != nil {
			t.Errorf("%s is taken for a secret", says)
		}
	}
}

func TestAnAPIKeyTellsItsID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"7", "0198c5a0-0000-7000-8000-0123456789ab", strings.Repeat("Z", 64)} {
		plain, hash := token.NewAPIKey(id)
		if !strings.HasPrefix(plain, "ccl_"+id+"_") {
			t.Errorf("the key of %s is %s", id, plain)
		}
		gotID, gotHash, ok := token.ParseAPIKey(plain)
		if !ok || gotID != id || !token.Equal(gotHash, hash) {
			t.Errorf("parsed %q, %x, %v; want %q, %x", gotID, gotHash, ok, id, hash)
		}
	}
}

func TestAnAPIKeyWithAnotherIDHasAnotherHash(t *testing.T) {
	t.Parallel()
	plain, hash := token.NewAPIKey("1")
	_, moved, ok := token.ParseAPIKey(strings.Replace(plain, "ccl_1_", "ccl_2_", 1))
	if !ok || token.Equal(moved, hash) {
		t.Error("the secret of one key opens another")
	}
}

func TestParseAPIKeyRefuses(t *testing.T) {
	t.Parallel()
	_, secret, _ := strings.Cut(strings.TrimPrefix(first(token.NewAPIKey("1")), "ccl_"), "_")
	for says, text := range map[string]string{
		"nothing":                    "",
		"a refresh token":            "clr_" + secret,
		"no id":                      "ccl__" + secret,
		"no separator":               "ccl_" + secret,
		"a long id":                  "ccl_" + strings.Repeat("a", 65) + "_" + secret,
		"an id with a dot":           "ccl_a.b_" + secret,
		"an id with a NUL":           "ccl_a\x00_" + secret,
		"an id with an underscore":   "ccl_a_b_" + secret,
		"an id with another letter":  "ccl_é_" + secret,
		"a short secret":             "ccl_1_" + secret[1:],
		"a prefix in capitals":       "CCL_1_" + secret,
		"a space in front":           " ccl_1_" + secret,
		"something after the secret": "ccl_1_" + secret + "_x",
	} {
		if id, hash, ok := token.ParseAPIKey(text); ok || id != "" || hash != nil {
			t.Errorf("%s is taken for an API key", says)
		}
	}
}

func first(plain string, _ []byte) string { return plain }

func TestNewAPIKeyPanicsOnAnIDThatCouldNotBeFoundAgain(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "a_b", strings.Repeat("a", 65), "a\n"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the id %q is taken", id)
				}
			}()
			token.NewAPIKey(id)
		}()
	}
}

func TestAnEmptyHashEqualsNothing(t *testing.T) {
	t.Parallel()
	hash := token.Hash("a")
	for _, row := range [][2][]byte{{nil, nil}, {{}, {}}, {hash, nil}, {nil, hash}, {hash, hash[:31]}, {hash, token.Hash("b")}} {
		if token.Equal(row[0], row[1]) {
			t.Errorf("%x equals %x", row[0], row[1])
		}
	}
	if !token.Equal(hash, token.Hash("a")) {
		t.Error("a hash does not equal itself")
	}
}
