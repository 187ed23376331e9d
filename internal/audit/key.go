package audit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/coderclaw/runtime/internal/fault"
)

// Key signs checkpoints: an Ed25519 key that is used for nothing else. It
// cannot be printed.
type Key struct {
	signer note.Signer
	public string
}

// Public returns the key by which signatures are checked, in the form that
// note.NewVerifier takes: name+hash+base64.
func (k *Key) Public() string { return k.public }

// Name returns the name of the log, which is part of the key.
func (k *Key) Name() string { return k.signer.Name() }

func (*Key) String() string { return "[secret]" }

// GoString keeps %#v from printing the key.
func (k *Key) GoString() string { return k.String() }

// LoadOrCreateKey reads the signing key in a file, or makes one for the log of
// that name, e.g. claw.example.com/audit. Servers of one database share one.
//
// The file holds two lines, the private key and the public one. Invalid is the
// fault for a file that others than its owner may read or write, or that holds
// something else.
func LoadOrCreateKey(path, name string) (*Key, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(path, name); err != nil {
		return nil, fmt.Errorf("create the audit key: %w", err)
	}
	return loadKey(path) // that of another process, if it was faster
}

func loadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the audit key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the audit key: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fault.New(fault.Invalid, "the audit key %s has mode %v; only its owner may have access (chmod 600)", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("read the audit key: %w", err)
	}
	private, public, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n")
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the audit key %s does not hold a key", path) // not err: it may hold a part
	}
	verifier, err := note.NewVerifier(public)
	if err != nil || verifier.Name() != signer.Name() || verifier.KeyHash() != signer.KeyHash() {
		return nil, fault.New(fault.Invalid, "the second line of the audit key %s is not the public key of the first", path)
	}
	return &Key{signer: signer, public: public}, nil
}

// createKey makes the file, whole or not at all.
func createKey(path, name string) error {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	if _, err := note.NewSigner(private); err != nil {
		return fault.New(fault.Invalid, "%q cannot name an audit log: it may hold neither spaces nor +", name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".audit-key-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "%s\n%s\n", private, public)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) { // unlike a rename, never replaces
		return err
	}
	return nil
}
