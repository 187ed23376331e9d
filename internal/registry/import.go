package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
)

// errKnown ends the import of a file that was imported before.
var errKnown = errors.New("known")

// ImportFile is called at start. It puts the operator's security.yaml in force,
// as the organisation's document, if it is another than when it was imported
// last; what was put through the API since then stays in force until someone
// edits the file. No file imports nothing. Of several servers that start at
// once with the same file one imports it.
//
// The error holds all that is wrong with the file, as file:line:column:
// message; or says why the document that is in force now cannot be used.
func (r *Registry) ImportFile(ctx context.Context, path string) error {
	text, err := readFile(path)
	switch {
	case err == nil:
		err = r.importText(ctx, path, text)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	p, err := r.Policy(ctx, "")
	if err == nil && p.IsClosed() {
		err = errors.New(p.Decide(policy.Caller{UserID: "file"}, policy.Request{Permission: policy.AdminAll}).Reason)
	}
	return err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, policy.MaxDocumentBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return text, nil
}

func (r *Registry) importText(ctx context.Context, path string, text []byte) error {
	document, err := policy.ParseDocument(text, path, policy.Organization)
	if err != nil {
		return err
	}
	if _, err := r.compile(document, nil, 0); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	to := parsed{text: string(text), document: document}
	a := onPolicy(policy.Caller{UserID: "file"}, "policy.update", "")
	a.decision = policy.Decision{Allowed: true, Reason: "the operator's file " + path + " was read at start"}
	err = r.commit(ctx, a, func(tx pgx.Tx, e *audit.Entry) error {
		if err := lock(ctx, tx, policies); err != nil {
			return err
		}
		var known bool
		var from parsed
		err := tx.QueryRow(ctx, `
			SELECT coalesce((SELECT hash = sha256(convert_to($1, 'UTF8')) FROM policy_documents
					WHERE project_id = '' AND origin = 'file' ORDER BY version DESC LIMIT 1), false),
				coalesce(max(version), 0), coalesce(max(document), '')
			FROM policies JOIN policy_documents USING (project_id, version) WHERE project_id = ''`, to.text).
			Scan(&known, &from.version, &from.text)
		switch {
		case err != nil:
			return fmt.Errorf("read the policy in force: %w", err)
		case known:
			return errKnown
		}
		if from.version > 0 {
			from = parse("", from.version, from.text)
		}
		v := PolicyVersion{Version: from.version + 1, Author: a.caller.UserID, Origin: OriginFile, Document: to.text}
		weaker := weakens(from, to)
		e.Details = versionDetails{Version: v.Version, Weakens: weaker[:min(len(weaker), maxListed)]}.json()
		return insert(ctx, tx, &v)
	})
	if errors.Is(err, errKnown) {
		return nil
	}
	return err
}
