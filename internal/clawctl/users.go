package clawctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) usersCommand() *cobra.Command {
	list := listing(c, "List users, by id", "users",
		everyOne(c, (*api.Client).Users), func(all []api.User) any { return api.UserList{Items: all} },
		[]string{"ID", "PROVIDER", "STATE", "LAST LOGIN", "NAME"},
		func(u api.User) []string {
			return []string{u.ID, u.Provider, userState(u), c.ago(u.LastLoginAt), u.Name}
		})
	return group("users", "Administer users", list, c.usersCreateCommand(), c.usersPasswordCommand(),
		c.userSwitch("disable", "End the sessions of users, and let them in no more", true),
		c.userSwitch("enable", "Let users in again", false),
		c.each("delete ID...", "Delete users with all that is theirs but tasks", "the id of a user", func(ctx context.Context, client *api.Client, id string) error {
			if err := client.DeleteUser(ctx, id); err != nil {
				return err
			}
			return c.print(revoked{id}, func() { c.out.printf("%s deleted\n", cleanLine(id)) })
		}))
}

func userState(u api.User) string {
	if u.DisabledAt != nil {
		return "disabled"
	}
	return "active"
}

func (c *cli) printUser(u api.User) error {
	return c.print(u, func() { c.out.printf("%s is %s\n", cleanLine(u.ID), userState(u)) })
}

func (c *cli) usersCreateCommand() *cobra.Command {
	var n api.NewUser
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "create LOGIN",
		Short: "Make a local account",
		Args:  exactly("the name to log in with"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) (err error) {
			n.Login = args[0]
			if n.Password, err = c.password(ctx, "Password: ", fromStdin, true); err != nil {
				return err
			}
			u, err := client.CreateUser(ctx, n)
			if err != nil {
				return err
			}
			return c.printUser(u)
		}),
	}
	cmd.Flags().StringVar(&n.Name, "name", "", "the person's `name`")
	cmd.Flags().StringVar(&n.Email, "email", "", "the person's `address`, for display")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (c *cli) usersPasswordCommand() *cobra.Command {
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "password ID",
		Short: "Set the password of a local account",
		Args:  exactly("the id of the user"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			password, err := c.password(ctx, "New password: ", fromStdin, true)
			if err != nil {
				return err
			}
			u, err := client.UpdateUser(ctx, args[0], api.UserPatch{Password: &password})
			if err != nil {
				return err
			}
			return c.printUser(u)
		}),
	}
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (c *cli) userSwitch(name, short string, disabled bool) *cobra.Command {
	return c.each(name+" ID...", short, "the id of a user", func(ctx context.Context, client *api.Client, id string) error {
		u, err := client.UpdateUser(ctx, id, api.UserPatch{Disabled: &disabled})
		if err != nil {
			return err
		}
		return c.printUser(u)
	})
}

func (c *cli) bindingsCommand() *cobra.Command {
	list := listing(c, "List who has which role where", "role bindings",
		everyOne(c, (*api.Client).RoleBindings), func(all []api.RoleBinding) any { return api.RoleBindingList{Items: all} },
		[]string{"ID", "SUBJECT", "ROLE", "PROJECT", "AGE", "BY"},
		func(b api.RoleBinding) []string {
			return []string{b.ID, subject(b), b.Role, everywhere(b.ProjectID), span(c.now().Sub(b.CreatedAt)), b.CreatedBy}
		})
	var n api.NewRoleBinding
	grant := &cobra.Command{
		Use:     "grant ROLE",
		Short:   "Give a role to a user or to a group",
		Example: "  clawctl bindings grant developer --user github:583231 --project web",
		Args:    exactly("the role"),
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if (n.UserID == "") == (n.GroupID == "") {
				return usagef("bindings grant needs one of --user and --group")
			}
			n.Role = args[0]
			b, err := client.CreateRoleBinding(ctx, n)
			if err != nil {
				return err
			}
			return c.print(b, func() {
				c.out.printf("%s\n", cleanLine(b.ID))
				c.err.printf("%s\n", cleanLine(subject(b)+" is "+b.Role+" in "+everywhere(b.ProjectID)))
			})
		}),
	}
	grant.Flags().StringVar(&n.UserID, "user", "", "`id` of the user")
	grant.Flags().StringVar(&n.GroupID, "group", "", "`id` of the group of an identity provider, <provider>:<group>")
	grant.Flags().StringVar(&n.ProjectID, "project", "", "`id` of the project where it holds (default everywhere)")
	revoke := c.each("revoke ID...", "Take roles away, at once", "the id of a role binding", func(ctx context.Context, client *api.Client, id string) error {
		if err := client.DeleteRoleBinding(ctx, id); err != nil {
			return err
		}
		return c.print(revoked{id}, func() { c.out.printf("%s revoked\n", cleanLine(id)) })
	})
	return group("bindings", "Give and take roles", list, grant, revoke)
}

func subject(b api.RoleBinding) string {
	if b.GroupID != "" {
		return "group " + b.GroupID
	}
	return b.UserID
}

func everywhere(projectID string) string {
	if projectID == "" {
		return "all projects"
	}
	return projectID
}
