package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/internal/postgres/embedded"
)

var (
	// errTampered is a verification that went through and found something.
	errTampered = errors.New("the audit log is not what was sealed")
	// errNoCheckpoint keeps files that were emptied from passing for proof.
	errNoCheckpoint = errors.New("there is no checkpoint in what --checkpoint names")
)

func auditCommand(stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Look after the audit log"}
	cmd.AddCommand(auditVerifyCommand(stderr))
	return cmd
}

func auditVerifyCommand(stderr io.Writer) *cobra.Command {
	var checkpoints, keys []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Tell whether the audit log is what was sealed",
		Long: `Read the whole audit log and tell every contradiction: among the entries and
hashes in the database, and to the checkpoints that were kept elsewhere. Nothing
is changed. Exits with 1 if something is found.

The database is that of CODERCLAW_DATABASE_URL, or else the private one in the
data directory. The public keys of the checkpoints are those of --key, or else
that of the key file, CODERCLAW_AUDIT_KEY_FILE.`,
		Example: `  coderclawd audit verify --checkpoint /mnt/archive/checkpoints
  coderclawd audit verify --checkpoint - --key claw.example.com/audit+1a2b3c4d+AbCd…`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := verifyAudit(cmd.Context(), cmd.InOrStdin(), stderr, checkpoints, keys)
			if err != nil {
				return err
			}
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(report); err != nil {
					return err
				}
			} else {
				tell(cmd.OutOrStdout(), report, len(checkpoints) > 0)
			}
			switch {
			case !report.OK():
				return errTampered
			case len(checkpoints) > 0 && report.Checkpoints == 0:
				return errNoCheckpoint
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "`file` of checkpoints that were kept outside of the database, - for the standard input; may be repeated")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public `key` of the checkpoints; may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func verifyAudit(ctx context.Context, stdin io.Reader, stderr io.Writer, checkpoints, keys []string) (report *audit.Report, err error) {
	cfg, _, err := config.Load(config.Options{})
	if err != nil {
		return nil, err
	}
	o := audit.VerifyOptions{Verifiers: keys}
	if len(keys) == 0 {
		key, err := publicKey(cfg.Audit.KeyFile)
		if err != nil {
			return nil, err
		}
		o.Verifiers = []string{key}
	}
	var files []io.Reader
	defer func() {
		for _, f := range files {
			_ = f.(io.Closer).Close() // it was only read
		}
	}()
	for _, name := range checkpoints {
		f := io.NopCloser(stdin)
		if name != "-" {
			if f, err = os.Open(name); err != nil {
				return nil, err
			}
		}
		files = append(files, f)
	}
	if files != nil {
		o.Checkpoints = io.MultiReader(files...)
	}
	url, stop, err := existingDatabase(ctx, cfg, newLogger(stderr, cfg))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pool, err := postgres.Open(ctx, url, postgres.MaxConns(1))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return audit.Verify(ctx, pool, o)
}

// publicKey returns the public half of a signing key, which is not made anew
// here: it would have signed nothing.
func publicKey(path string) (string, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no key in %s: name the public one with --key", path)
	}
	key, err := audit.LoadOrCreateKey(path, "")
	if err != nil {
		return "", err
	}
	return key.Public(), nil
}

// existingDatabase is openDatabase for a private database that a server may be
// running on.
func existingDatabase(ctx context.Context, cfg config.Config, log *slog.Logger) (url string, stop func() error, err error) {
	if cfg.DatabaseURL.Reveal() != "" {
		return cfg.DatabaseURL.Reveal(), func() error { return nil }, nil
	}
	// What is not there is neither made nor installed to be looked at.
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "postgres", "data")); err != nil {
		return "", nil, fmt.Errorf("there is no database in %s: set CODERCLAW_DATABASE_URL, or CODERCLAW_DATA_DIR: %w", cfg.DataDir, err)
	}
	cfg.EmbeddedPostgres, cfg.NoInstall = true, true
	url, stop, err = openDatabase(ctx, cfg, log)
	if fault.CodeOf(err) == fault.Conflict {
		url, err = embedded.RunningURL(cfg.DataDir, embedded.Database)
		return url, func() error { return nil }, err
	}
	return url, stop, err
}

func tell(w io.Writer, r *audit.Report, outside bool) {
	for _, f := range r.Findings {
		where := ""
		if f.Seq >= 0 {
			where = fmt.Sprintf(" at %d", f.Seq)
		}
		if f.EntryID != uuid.Nil {
			where += " (entry " + f.EntryID.String() + ")"
		}
		fmt.Fprintf(w, "%s%s: %s\n", f.Kind, where, f.Text)
	}
	if more := r.Found - int64(len(r.Findings)); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	for _, d := range r.Dropped {
		fmt.Fprintf(w, "%s: %d entries were dropped by %s, when their time was over\n", d.Month, d.Entries, d.By)
	}
	if r.Damaged > 0 {
		fmt.Fprintf(w, "%d paragraphs of the checkpoint files are no checkpoints\n", r.Damaged)
	}
	fmt.Fprintf(w, "%d entries sealed, %d too young for that; compared with %d checkpoints from outside\n", r.Size, r.Unsealed, r.Checkpoints)
	switch {
	case !outside:
		fmt.Fprintf(w, "Without a --checkpoint file it does not show whether the end was cut off, or all of it rewritten by someone with the key.\n")
	case r.Covered < r.Size:
		fmt.Fprintf(w, "The newest checkpoint from outside is of %d entries: whether some that came after it were cut off does not show.\n", r.Covered)
	}
	if r.OK() {
		fmt.Fprintf(w, "The audit log is what was sealed.\n")
	}
}

// retain drops the months of the audit log whose time is over, at the start and
// then every day, until ctx ends.
func (s *server) retain(ctx context.Context) error {
	if s.cfg.Audit.RetentionDays == 0 {
		return nil
	}
	by := policy.Caller{UserID: "system", AllProjects: true, Local: true}
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		dropped, err := s.audit.DropBefore(ctx, by, time.Now().AddDate(0, 0, -s.cfg.Audit.RetentionDays))
		for _, d := range dropped {
			s.log.InfoContext(ctx, "a month of the audit log was dropped", "month", d.Month, "entries", d.Entries)
		}
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "the audit log keeps a month whose time is over", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-daily.C:
		}
	}
}
