package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is the log at one size, signed.
type Checkpoint struct {
	Origin string    `json:"origin"` // the log's name
	Size   int64     `json:"size"`   // how many entries it has
	Root   tlog.Hash `json:"root"`   // of RFC 6962's tree of them, in base64
	// Note is the signed text, in the form of https://c2sp.org/tlog-checkpoint.
	Note string `json:"note"`
}

// sign returns the checkpoint of a tree.
func (k *Key) sign(size int64, root tlog.Hash) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", k.signer.Name(), size, root)
	signed, err := note.Sign(&note.Note{Text: text}, k.signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sign checkpoint %d: %w", size, err)
	}
	return Checkpoint{Origin: k.signer.Name(), Size: size, Root: root, Note: string(signed)}, nil
}

// OpenCheckpoint reads a checkpoint that one of the verifiers' keys has
// signed, under the name of its log.
func OpenCheckpoint(signed string, verifiers ...note.Verifier) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read a checkpoint: %w", err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	for _, s := range n.Sigs {
		if s.Name == c.Origin {
			c.Note = signed
			return c, nil
		}
	}
	return Checkpoint{}, fmt.Errorf("read a checkpoint: %q did not sign it itself", c.Origin)
}

// parseCheckpoint reads the text of a note, whoever signed it.
func parseCheckpoint(text string) (c Checkpoint, err error) {
	malformed := errors.New("read a checkpoint: malformed")
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return c, malformed
	}
	c.Origin = lines[0]
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return c, malformed
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, malformed
	}
	copy(c.Root[:], root)
	return c, nil
}
