package clawctl

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) keysCommand() *cobra.Command {
	list := listing(c, "List API keys", "API keys",
		everyOne(c, (*api.Client).APIKeys), func(all []api.APIKey) any { return api.APIKeyList{Items: all} },
		[]string{"ID", "NAME", "AS", "PROJECT", "ROLES", "LAST USED", "STATE"},
		func(k api.APIKey) []string {
			return []string{k.ID, k.Name, keyUser(k), k.ProjectID, strings.Join(k.Roles, ","), c.ago(k.LastUsedAt), c.keyState(k)}
		})
	revoke := c.each("revoke ID...", "End API keys, at once", "the id of a key", func(ctx context.Context, client *api.Client, id string) error {
		if err := client.RevokeAPIKey(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s revoked\n", cleanLine(id)) })
	})
	return group("keys", "Administer the API keys of services", list, c.keysCreateCommand(), revoke)
}

// printKey shows a key, which nobody can do again.
func (c *cli) printKey(k api.CreatedAPIKey) error {
	return c.print(k, func() {
		c.out.printf("%s\n", cleanLine(k.Key))
		c.err.printf("This is key %s, good until %s. It is not shown again.\n", cleanLine(k.ID), k.ExpiresAt.In(c.zone).Format(time.RFC3339))
	})
}

func keyUser(k api.APIKey) string {
	if k.UserID == "" {
		return "key:" + k.ID
	}
	return k.UserID
}

func (c *cli) keyState(k api.APIKey) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case c.now().After(k.ExpiresAt):
		return "expired"
	}
	return "ends in " + span(k.ExpiresAt.Sub(c.now()))
}

func (c *cli) keysCreateCommand() *cobra.Command {
	var n api.NewAPIKey
	expires := duration{90 * 24 * time.Hour}
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make an API key, and show it this once",
		Example: "  clawctl keys create nightly --role ci --project web --expires 30d",
		Args:    exactly("a name for people"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			n.Name, n.ExpiresSeconds = args[0], expires.seconds()
			k, err := client.CreateAPIKey(ctx, n)
			if err != nil {
				return err
			}
			return c.printKey(k)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&n.ProjectID, "project", "", "`id` of the project that it is confined to")
	flags.StringSliceVar(&n.Roles, "role", nil, "`roles` that it has; repeat it or separate by commas")
	flags.StringSliceVar(&n.Scopes, "scope", nil, "the only `permissions` that it carries (default all that the roles grant)")
	flags.BoolVar(&n.Personal, "personal", false, "it acts as you, instead of as a service of its own")
	flags.Var(&expires, "expires", "how long it is good for, at most a year")
	return cmd
}
