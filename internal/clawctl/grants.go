package clawctl

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) grantsCommand() *cobra.Command {
	list := listing(c, "List the approvals that are remembered", "grants", everyOne(c, (*api.Client).Grants),
		func(all []api.Grant) any { return api.GrantList{Items: all} }, []string{"ID", "AGENT", "FOR", "BY", "USES", "EXPIRES", "WHAT"},
		func(g api.Grant) []string {
			return []string{g.ID, g.AgentID, grantScope(g), g.GrantedBy, strconv.Itoa(g.Uses), "in " + span(g.ExpiresAt.Sub(c.now())), g.Text}
		})
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Forget an approval: people are asked again", Args: exactly("the grant's id"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.RevokeGrant(ctx, args[0]); err != nil {
				return err
			}
			return c.print(struct{}{}, func() { c.out.printf("%s revoked\n", cleanLine(args[0])) })
		}),
	}
	return group("grants", "See and revoke the approvals that are remembered", list, revoke)
}

// grantScope is what a grant holds for.
func grantScope(g api.Grant) string {
	switch g.Scope {
	case api.GrantTask:
		return "task " + g.TaskID
	case api.GrantSession:
		return "session " + g.SessionID
	}
	return "project " + g.ProjectID
}
