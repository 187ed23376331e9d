// Package app puts the parts together: the commands of coderclawd, and the life
// of a server from its configuration to its graceful stop. It is the only
// package that imports everything.
package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
	_ "time/tzdata" // schedules name time zones, which an image may not have

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/postgres"
	"github.com/coderclaw/runtime/migrations"
)

// version is set by the linker.
var version = "dev"

// Main runs coderclawd with its arguments until it is done or ctx ends.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:           "coderclawd",
		Short:         "The CoderClaw runtime: a control plane for AI coding agents",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(devCommand(stderr), serveCommand(stderr), workerCommand(stderr), migrateCommand(), auditCommand(stderr), openapiCommand(), healthcheckCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func devCommand(stderr io.Writer) *cobra.Command {
	return serverCommand(stderr, "dev", "Run everything on this machine, with a private PostgreSQL", func(c *config.Config) {
		c.EmbeddedPostgres = c.DatabaseURL.Reveal() == ""
	})
}

func serveCommand(stderr io.Writer) *cobra.Command {
	return serverCommand(stderr, "serve", "Run the server on the database of CODERCLAW_DATABASE_URL", func(*config.Config) {})
}

// serverCommand is a command that runs a server, with the settings that set it
// apart.
func serverCommand(stderr io.Writer, use, short string, settings func(*config.Config)) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), stderr, func(c *config.Config) {
				settings(c)
				if listen != "" {
					c.Listen = listen
				}
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (CODERCLAW_LISTEN)")
	return cmd
}

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "migrate", Short: "Look after the database schema"}
	withURL := func(run func(cmd *cobra.Command, url string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := config.Load(config.Options{})
			if err != nil {
				return err
			}
			if cfg.DatabaseURL.Reveal() == "" {
				return errors.New("set CODERCLAW_DATABASE_URL to the database to look after")
			}
			return run(cmd, cfg.DatabaseURL.Reveal())
		}
	}
	var steps int
	down := &cobra.Command{
		Use: "down", Short: "Undo the latest migrations", Args: cobra.NoArgs,
		RunE: withURL(func(cmd *cobra.Command, url string) error {
			return postgres.MigrateDown(cmd.Context(), url, migrations.FS, steps)
		}),
	}
	down.Flags().IntVar(&steps, "steps", 1, "how many migrations to undo")
	var to uint
	force := &cobra.Command{
		Use: "force", Short: "Mark the schema as being at a version, after a repair by hand", Args: cobra.NoArgs,
		RunE: withURL(func(cmd *cobra.Command, url string) error {
			return postgres.MigrateForce(cmd.Context(), url, migrations.FS, to)
		}),
	}
	force.Flags().UintVar(&to, "version", 0, "the version that the schema has")
	_ = force.MarkFlagRequired("version") // the flag exists
	cmd.AddCommand(
		&cobra.Command{
			Use: "up", Short: "Bring the schema up to date", Args: cobra.NoArgs,
			RunE: withURL(func(cmd *cobra.Command, url string) error {
				return postgres.Migrate(cmd.Context(), url, migrations.FS)
			}),
		},
		down, force,
		&cobra.Command{
			Use: "status", Short: "Show the version of the schema", Args: cobra.NoArgs,
			RunE: withURL(func(cmd *cobra.Command, url string) error {
				st, err := postgres.MigrationStatus(cmd.Context(), url, migrations.FS)
				if err != nil {
					return err
				}
				cmd.Printf("version %d of %d, %d pending", st.Version, st.Latest, st.Pending)
				if st.Dirty {
					cmd.Print(", DIRTY: a migration did not finish; repair it by hand, then run coderclawd migrate force")
				}
				cmd.Println()
				return nil
			}),
		},
	)
	return cmd
}

func openapiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the OpenAPI document", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := openAPI()
			if err == nil {
				_, err = cmd.OutOrStdout().Write(doc)
			}
			return err
		},
	}
}

func healthcheckCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Exit with 0 if the server is ready, for containers without a shell", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			client := http.DefaultClient
			if url == "" {
				cfg, _, err := config.Load(config.Options{})
				if err != nil {
					return err
				}
				url, client = ownAddress(cfg)
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				var p api.Problem
				_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&p) // the status says enough
				return fmt.Errorf("%s/readyz: %s %s", url, resp.Status, p.Detail)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", os.Getenv("CODERCLAW_URL"), "address of the server (default where this configuration listens)")
	return cmd
}

// ownAddress is how a server of this configuration is reached from its own
// machine, and by what.
func ownAddress(cfg config.Config) (string, *http.Client) {
	network, address, _ := config.ParseListen(cfg.Listen) // it was checked
	transport := &http.Transport{
		// An address that is none in particular leads to this machine, too.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		// The certificate is for the name by which others call the server.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is this machine
	}
	if len(cfg.ACME.Domains) > 0 {
		// Who names none of them gets no handshake.
		transport.TLSClientConfig.ServerName = cfg.ACME.Domains[0]
	}
	scheme := "http"
	if cfg.ServesTLS() {
		scheme = "https"
	}
	// By this name every server may be called.
	return scheme + "://localhost", &http.Client{Transport: transport}
}
