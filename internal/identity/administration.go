package identity

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// decide asks the policy of the project that the caller is in.
func (s *Service) decide(ctx context.Context, c policy.Caller, r policy.Request) (policy.Decision, error) {
	p, err := s.policies.Policy(ctx, c.ProjectID)
	if err != nil {
		return policy.Decision{}, err
	}
	r.ProjectID = c.ProjectID
	return p.Decide(c, r), nil
}

// administers decides whether the caller administers a project, or, for "",
// everything.
func (s *Service) administers(ctx context.Context, c policy.Caller, projectID string) (policy.Decision, error) {
	d, err := s.decide(ctx, c, policy.Request{Permission: policy.AdminAll})
	if err == nil && d.Allowed && c.ProjectID != "" && c.ProjectID != projectID {
		d.Allowed, d.Layer = false, policy.LayerProject
		d.Reason = fmt.Sprintf("the session administers project %s only", c.ProjectID)
	}
	return d, err
}

// serves decides about what every known caller may do with what is its own.
func (s *Service) serves(ctx context.Context, c policy.Caller) (policy.Decision, error) {
	return s.decide(ctx, c, policy.Request{Permission: policy.Authenticated})
}

// administratorSQL asks whether anyone can administer everything: a user who
// is not disabled and has the role, or is known to be in a group that has it.
const administratorSQL = `
	SELECT EXISTS (
		SELECT FROM role_bindings b JOIN users u ON u.disabled_at IS NULL
			AND (b.subject_kind = 'user' AND u.id = b.subject OR b.subject_kind = 'group' AND b.subject = ANY (u.groups))
		WHERE b.role = 'admin' AND b.project_id = '')`

// keepAdministrator runs fn, which takes rights away, under the lock of
// lockAccess. It is a Conflict if nobody is left who could give them back.
func keepAdministrator(ctx context.Context, tx pgx.Tx, fn func() error) error {
	var before, after bool
	if err := tx.QueryRow(ctx, administratorSQL).Scan(&before); err != nil {
		return fmt.Errorf("look for an administrator: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, administratorSQL).Scan(&after); err != nil {
		return fmt.Errorf("look for an administrator: %w", err)
	}
	if before && !after {
		return fault.New(fault.Conflict, "this would leave nobody who can administer the server")
	}
	return nil
}

// Limits on what names and ids may be, in bytes.
const (
	maxIDBytes      = 128
	maxSubjectBytes = 300 // of users and groups, as providers name them
	maxNameBytes    = 200
	maxEmailBytes   = 320
)

var (
	idForm        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$`)
	loginNameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

// faults collects what is wrong with a request.
type faults []fault.Field

func (f *faults) bad(path, format string, args ...any) {
	*f = append(*f, fault.Field{Path: "body." + path, Message: fmt.Sprintf(format, args...)})
}

func (f *faults) id(path, value string) {
	if len(value) > maxIDBytes || !idForm.MatchString(value) {
		f.bad(path, "must be an id: at most %d letters, digits and . _ : @ / + -", maxIDBytes)
	}
}

// subject checks the name of a user or group: what comes from a provider may
// hold any printable text.
func (f *faults) subject(path, value string) {
	if value == "" || len(value) > maxSubjectBytes || !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable) {
		f.bad(path, "must be the id of a user or a group")
	}
}

// text checks what people write to tell things apart.
func (f *faults) text(path, value string, most int, required bool) {
	switch {
	case required && strings.TrimSpace(value) == "":
		f.bad(path, "is required")
	case len(value) > most:
		f.bad(path, "must have at most %d bytes, has %d", most, len(value))
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable):
		f.bad(path, "must be printable text")
	}
}

// storable reports whether the database can be asked about a text at all.
func storable(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func (f faults) err() error { return fault.InvalidFields(f) }

// printable makes text that a client sends about itself fit to be stored.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unprintable(r) {
			return -1
		}
		return r
	}, text)
	for len(text) > most {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}
