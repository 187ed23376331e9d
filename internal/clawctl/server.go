package clawctl

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coderclaw/runtime/api"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell how the server is",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			st, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			err = c.print(st, func() {
				address, _ := c.address() // the client has it already
				health := "healthy"
				if !st.Healthy {
					health = "not healthy"
				}
				c.details([][2]string{
					{"Server", address.url}, {"Health", health}, {"Version", st.Version}, {"Mode", st.Mode},
					{"Up for", exactSpan(time.Duration(st.Uptime * float64(time.Second)))},
					{"Tasks", strconv.FormatInt(st.ActiveTasks, 10) + " active, " + strconv.FormatInt(st.TotalTasks, 10) + " in all"},
				})
			})
			if err == nil && !st.Healthy {
				return exitError(exitFailed)
			}
			return err
		},
	}
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell which clawctl this is",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return c.print(v, func() { c.out.printf("clawctl %s (%s, %s)\n", v.Version, v.Go, v.Platform) })
		},
	}
}

// version is what the Go tool recorded when it built the program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// details prints names and values, one pair on a line, without the pairs that
// have no value.
func (c *cli) details(pairs [][2]string) {
	widest := 0
	for _, p := range pairs {
		if p[1] != "" {
			widest = max(widest, len(p[0]))
		}
	}
	for _, p := range pairs {
		if p[1] != "" {
			c.out.printf("%-*s %s\n", widest+1, p[0]+":", cleanLine(p[1]))
		}
	}
}

func (c *cli) agentsCommand() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		agents, err := client.Agents(cmd.Context())
		if err != nil {
			return err
		}
		return c.print(api.AgentList{Items: agents}, func() {
			t := &table{heads: []string{"ID", "AVAILABLE", "EXECUTOR", "SOURCE", "DESCRIPTION"}, styles: map[int]func(string) style{1: yesStyle}}
			for _, a := range agents {
				t.row(a.ID, yes(a.Available), string(a.Executor), string(a.Source), a.Description)
			}
			c.out.table(t)
		})
	}
	get := func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		a, err := client.Agent(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.print(a, func() {
			available := yes(a.Available)
			if a.Unavailable != "" {
				available += ": " + a.Unavailable
			}
			pairs := [][2]string{
				{"Agent", a.ID}, {"Name", a.Name}, {"Description", a.Description}, {"Available", available},
				{"Executor", string(a.Executor)}, {"Source", string(a.Source)}, {"Model", a.Model}, {"Thinking", string(a.Thinking)},
				{"Capabilities", strings.Join(a.Capabilities, ", ")}, {"Skills", strings.Join(a.Skills, ", ")},
			}
			if a.HTTP != nil {
				pairs = append(pairs, [2]string{"URL", a.HTTP.URL})
			}
			if a.Process != nil {
				pairs = append(pairs, [2]string{"Command", strings.Join(a.Process.Command, " ")})
			}
			c.details(pairs)
			c.block("System prompt", a.SystemPrompt)
		})
	}
	cmd := c.registryCommand("agents", "agent", "See who can be asked to run a task", list, get)
	cmd.AddCommand(c.pauseCommands(api.PauseAgent)...)
	return cmd
}

func (c *cli) skillsCommand() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		skills, err := client.Skills(cmd.Context())
		if err != nil {
			return err
		}
		return c.print(api.SkillList{Items: skills}, func() {
			t := &table{heads: []string{"ID", "VERSION", "ENABLED", "DANGEROUS", "DESCRIPTION"}, styles: map[int]func(string) style{2: yesStyle}}
			for _, sk := range skills {
				t.row(sk.ID, sk.Version, yes(sk.Enabled), yes(sk.Dangerous), sk.Description)
			}
			c.out.table(t)
		})
	}
	get := func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		sk, err := client.Skill(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.print(sk, func() {
			c.details([][2]string{
				{"Skill", sk.ID}, {"Name", sk.Name}, {"Description", sk.Description}, {"Version", sk.Version},
				{"Enabled", yes(sk.Enabled)}, {"Dangerous", yes(sk.Dangerous)}, {"Required permissions", strings.Join(sk.RequiredPermissions, ", ")},
			})
		})
	}
	cmd := c.registryCommand("skills", "skill", "See what agents may do beyond answering", list, get)
	cmd.AddCommand(c.skillsExecuteCommand())
	return cmd
}

// registryCommand is a command that lists, as its subcommand "list" does, and
// has a subcommand to see one.
func (c *cli) registryCommand(plural, singular, short string, list, get func(*cobra.Command, []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: plural, Short: short, Args: noCommand, RunE: list}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List " + plural, Args: none, RunE: list},
		&cobra.Command{Use: "get ID", Short: "Show one " + singular, Args: exactly("the id of the " + singular), RunE: get},
	)
	return cmd
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func yesStyle(cell string) style {
	if cell == "no" {
		return dim
	}
	return ""
}
