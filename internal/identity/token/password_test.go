package token_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/token"
)

const passphrase = "correct horse battery staple"

func TestAPasswordVerifiesAgainstItsHashAlone(t *testing.T) {
	t.Parallel()
	encoded, err := token.HashPassword(t.Context(), passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`).MatchString(encoded) {
		t.Errorf("it is stored as %s", encoded)
	}
	if again, err := token.HashPassword(t.Context(), passphrase); err != nil || again == encoded {
		t.Errorf("the same password is stored alike twice (%v)", err)
	}
	for password, want := range map[string]bool{
		passphrase:                     true,
		passphrase + " ":               false,
		strings.ToUpper(passphrase):    false,
		strings.Repeat(passphrase, 50): false,
	} {
		ok, rehash, err := token.VerifyPassword(t.Context(), encoded, password)
		if err != nil || ok != want || rehash {
			t.Errorf("%.40q: %v, rehash %v, %v", password, ok, rehash, err)
		}
	}
}

func TestAPasswordIsTheSameFromEveryKeyboard(t *testing.T) {
	t.Parallel()
	encoded, err := token.HashPassword(t.Context(), "caf\u00e9 caf\u00e9 caf\u00e9 creme")
	if err != nil {
		t.Fatal(err)
	}
	ok, _, err := token.VerifyPassword(t.Context(), encoded, "cafe\u0301 cafe\u0301 cafe\u0301 creme")
	if err != nil || !ok {
		t.Errorf("composed and decomposed letters differ: %v, %v", ok, err)
	}
}

// The text is from the reference implementation's own tests.
func TestPasswordsHashedElsewhereVerifyAndAreHashedAnew(t *testing.T) {
	t.Parallel()
	const encoded = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	ok, rehash, err := token.VerifyPassword(t.Context(), encoded, "password")
	if err != nil || !ok || !rehash {
		t.Errorf("%v, rehash %v, %v", ok, rehash, err)
	}
	ok, rehash, err = token.VerifyPassword(t.Context(), encoded, "Password")
	if err != nil || ok || rehash {
		t.Errorf("a wrong password: %v, rehash %v, %v", ok, rehash, err)
	}
}

func TestHashPasswordRefusesWeakPasswords(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ says, password, want string }{
		{"an empty one", "", "fewer than 15 characters"},
		{"one of fourteen letters", "abcdefghijklmn", "fewer than 15 characters"},
		{"one of seven letters in fourteen bytes", "äöüßéèç", "fewer than 15 characters"},
		{"one key held down", strings.Repeat("a", 20), "fewer than 5 different characters"},
		{"a short word repeated", strings.Repeat("1234", 5), "fewer than 5 different characters"},
		{"one that is not UTF-8", "correct horse batter\xff", "not valid UTF-8"},
		{"one of more than a KiB", strings.Repeat("abcdefgh", 128) + "i", "more than 1024 bytes"},
	} {
		_, err := token.HashPassword(t.Context(), row.password)
		if fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.says, err, row.want)
		}
		if len(row.password) > 3 && err != nil && strings.Contains(err.Error(), row.password) {
			t.Errorf("the refusal of %s repeats it: %v", row.says, err)
		}
	}
	for _, password := range []string{"äöüßéèçàùâêîôûë", strings.Repeat("abcdefgh", 128)} {
		if _, err := token.HashPassword(t.Context(), password); err != nil {
			t.Errorf("%.20q: %v", password, err)
		}
	}
}

func TestVerifyPasswordRefusesAStoredTextThat(t *testing.T) {
	t.Parallel()
	const good = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, row := range []struct{ says, old, with, want string }{
		{"is empty", good, "", "PHC string format"},
		{"is bcrypt", good, "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "PHC string format"},
		{"is argon2i", "$argon2id$", "$argon2i$", "PHC string format"},
		{"is of another version", "v=19", "v=16", "PHC string format"},
		{"has a part more", "/4", "/4$", "PHC string format"},
		{"has something in front", "$argon2id", "x$argon2id", "PHC string format"},
		{"asks for 4 TiB", "m=256", "m=4294967295", "out of bounds"},
		{"asks for a KiB more than is given", "m=256", "m=65537", "out of bounds"},
		{"asks for more memory than a number holds", "m=256", "m=4294967552", "m=,t=,p="},
		{"asks for less memory than its lanes need", "m=256", "m=7", "out of bounds"},
		{"asks for no memory", "m=256", "m=0", "out of bounds"},
		{"asks for negative memory", "m=256", "m=-1", "m=,t=,p="},
		{"asks for a million rounds", "t=2", "t=1000000", "out of bounds"},
		{"asks for no round", "t=2", "t=0", "out of bounds"},
		{"asks for 255 threads", "p=1", "p=255", "out of bounds"},
		{"asks for no thread", "p=1", "p=0", "out of bounds"},
		{"asks for threads that wrap around", "p=1", "p=257", "m=,t=,p="},
		{"has its cost in another order", "m=256,t=2", "t=2,m=256", "m=,t=,p="},
		{"has a key id", "p=1", "p=1,keyid=x", "m=,t=,p="},
		{"has a zero in front", "m=256", "m=0256", "m=,t=,p="},
		{"has a sign", "m=256", "m=+256", "m=,t=,p="},
		{"has a space", "m=256,", "m=256, ", "m=,t=,p="},
		{"has no salt", "c29tZXNhbHQ", "", "salt: not base64"},
		{"has a short salt", "c29tZXNhbHQ", "c29tZQ", "salt: not base64"},
		{"has a long salt", "c29tZXNhbHQ", strings.Repeat("c29t", 22), "salt: not base64"},
		{"has a salt with a line feed", "c29tZXNhbHQ", "c29t\nZXNhbHQ", "salt: not base64"},
		{"has a padded salt", "c29tZXNhbHQ", "c29tZXNhbHQ=", "salt: not base64"},
		{"has no hash", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "", "hash: not base64"},
		{"has a hash that is short enough to guess", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "nf65", "hash: not base64"},
		{"is endless", "c29tZXNhbHQ", strings.Repeat("c29t", 1000), "PHC string format"},
	} {
		encoded := strings.Replace(good, row.old, row.with, 1)
		if encoded == good {
			t.Fatalf("nothing says %s", row.old)
		}
		ok, rehash, err := token.VerifyPassword(t.Context(), encoded, "password")
		if ok || rehash || err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("one that %s: %v, %v, %v; want %q", row.says, ok, rehash, err, row.want)
		}
		if fault.CodeOf(err) != "" {
			t.Errorf("that it %s is shown to users: %v", row.says, err)
		}
	}
}

// Not parallel: it takes every place for hashing.
func TestWaitingForAPlaceToHashEndsWithTheContext(t *testing.T) {
	release := token.OccupyHashing()
	defer release()
	for says, hash := range map[string]func(context.Context) error{
		"HashPassword": func(ctx context.Context) error {
			_, err := token.HashPassword(ctx, passphrase)
			return err
		},
		"VerifyPassword": func(ctx context.Context) error {
			_, _, err := token.VerifyPassword(ctx,
				"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password")
			return err
		},
		"DummyVerify": func(ctx context.Context) error { return token.DummyVerify(ctx, passphrase) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- hash(ctx) }()
		cancel()
		if err := <-ended; fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestDummyVerifyTakesAnyPassword(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"\xff", strings.Repeat("a", 2000)} {
		if err := token.DummyVerify(t.Context(), password); err != nil {
			t.Errorf("%.20q: %v", password, err)
		}
	}
}

// What is read of a stored text is all that it says, and affordable.
func FuzzStoredPassword(f *testing.F) {
	f.Add("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$$")
	f.Fuzz(func(t *testing.T, encoded string) {
		again, memory, rounds, err := token.RewritePassword(encoded)
		if err != nil {
			return
		}
		if again != encoded {
			t.Errorf("%q is also %q", encoded, again)
		}
		if memory > 64<<10 || rounds > 4 {
			t.Errorf("%q asks for %d KiB and %d rounds", encoded, memory, rounds)
		}
	})
}

func BenchmarkHashPassword(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.HashPassword(b.Context(), passphrase); err != nil {
			b.Fatal(err)
		}
	}
}
