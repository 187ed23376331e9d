package clawctl

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End the login at the server",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			a, err := c.account()
			if err != nil {
				return err
			}
			if _, err := a.load(ctx); err != nil {
				return err
			}
			if a.kept.RefreshToken == "" {
				c.err.printf("There is no login at %s.\n", cleanLine(a.server))
				return nil
			}
			client, err := c.connect(api.WithTokenSource(a.renew), api.WithProof(a.prove))
			if err != nil {
				return err
			}
			// What is kept here goes in any case; that the server was not told is
			// worth an error, for the session then lives on until it expires.
			err = client.RevokeSession(ctx, "current")
			if answer := new(api.Error); errors.As(err, &answer) && answer.Status == http.StatusUnauthorized || errors.Is(err, errLoggedOut) {
				err = nil // it has ended already
			}
			return errors.Join(err, a.close(context.WithoutCancel(ctx)))
		},
	}
}

func (c *cli) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Tell for whom clawctl speaks",
		Args:  none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			me, err := client.Me(ctx)
			if err != nil {
				return err
			}
			return c.print(me, func() {
				address, _ := c.address() // the client has it already
				project := me.ProjectID
				if me.AllProjects {
					project = "all"
				}
				device := me.DeviceTrust
				if me.DeviceID != "" {
					device = me.DeviceID + " (" + me.DeviceTrust + ")"
				}
				c.details([][2]string{
					{"Server", address.url}, {"User", me.UserID}, {"Roles", strings.Join(me.Roles, ", ")},
					{"Permissions", strings.Join(me.Permissions, ", ")}, {"Project", project}, {"Session", me.SessionID}, {"Device", device},
				})
			})
		}),
	}
}

func (c *cli) passwordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "password",
		Short: "Change the password of your own local account",
		Args:  none,
		RunE: c.asking(func(ctx context.Context, client *api.Client, _ []string) error {
			before, err := c.password(ctx, "Password now: ", false, false)
			if err != nil {
				return err
			}
			next, err := c.password(ctx, "New password: ", false, true)
			if err != nil {
				return err
			}
			return client.ChangePassword(ctx, api.PasswordChange{Old: before, New: next})
		}),
	}
}

func (c *cli) sessionsCommand() *cobra.Command {
	list := listing(c, "List sessions, newest first", "sessions",
		everyOne(c, (*api.Client).Sessions), func(all []api.Session) any { return api.SessionList{Items: all} },
		[]string{"ID", "USER", "METHOD", "PROJECT", "DEVICE", "ADDRESS", "AGE", "STATE"},
		func(s api.Session) []string {
			return []string{s.ID, s.UserID, s.Method, s.ProjectID, s.DeviceID, s.Address, span(c.now().Sub(s.CreatedAt)), c.sessionState(s)}
		})
	revoke := c.each("revoke ID...", "End sessions at once, open streams included", "the id of a session", func(ctx context.Context, client *api.Client, id string) error {
		if err := client.RevokeSession(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s revoked\n", cleanLine(id)) })
	})
	return group("sessions", "See, pause and end sessions", append(c.pauseCommands(api.PauseSession), list, revoke)...)
}

func (c *cli) sessionState(s api.Session) string {
	switch {
	case s.RevokedAt != nil && s.RevokedBecause != "":
		return "revoked: " + s.RevokedBecause
	case s.RevokedAt != nil:
		return "revoked"
	case c.now().After(s.ExpiresAt):
		return "expired"
	}
	return "ends in " + span(s.ExpiresAt.Sub(c.now()))
}

// revoked is what a command that ends something prints as a document.
type revoked struct {
	ID string `json:"id"`
}

// everyOne is what a listing shows without conditions.
func everyOne[T any](c *cli, all func(*api.Client, context.Context) iter.Seq2[T, error]) func(*cobra.Command) (iter.Seq2[T, error], error) {
	return func(cmd *cobra.Command) (iter.Seq2[T, error], error) {
		client, err := c.client()
		if err != nil {
			return nil, err
		}
		return all(client, cmd.Context()), nil
	}
}

// each is a command that does something with each of several ids. What fails
// for one is told, and the others get their turn all the same.
func (c *cli) each(use, short, what string, do func(ctx context.Context, client *api.Client, id string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("this needs %s", what)
			}
			return nil
		},
		RunE: c.asking(func(ctx context.Context, client *api.Client, ids []string) error {
			var failed error
			for _, id := range ids {
				err := do(ctx, client, id)
				if ctx.Err() != nil {
					return err
				}
				if err != nil {
					c.report(err)
					failed = exitError(exitFailed)
				}
			}
			return failed
		}),
	}
}
