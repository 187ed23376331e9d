package clawctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coderclaw/runtime/api"
)

var budgetKinds = []string{"session", "project"}

// budgetFlags say how much may be used.
type budgetFlags struct {
	cost      string
	tokens    int64
	toolCalls int64
	then      choice
}

func newBudgetFlags() budgetFlags {
	return budgetFlags{then: choice{of: []string{"fail", "approval"}}}
}

func (f *budgetFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.cost, "max-cost", "", "the most that it may cost: an `amount`, with its currency if that is not USD (1.50, or 1.50EUR)")
	flags.Int64Var(&f.tokens, "max-tokens", 0, "the most tokens that may be used, a `number`")
	flags.Int64Var(&f.toolCalls, "max-tool-calls", 0, "the most calls of tools, a `number`")
	flags.Var(&f.then, "on-exceeded", "what becomes of a task that uses more: fail (default), or approval, to wait for somebody to raise the budget")
}

// budget is what the flags say; nil: nothing.
func (f *budgetFlags) budget() (*api.Budget, error) {
	if f.tokens < 0 || f.toolCalls < 0 {
		return nil, usagef("--max-tokens and --max-tool-calls must not be negative")
	}
	b := &api.Budget{MaxTokens: f.tokens, MaxToolCalls: f.toolCalls, OnExceeded: api.OnExceeded(f.then.value)}
	if f.cost != "" {
		amount := strings.TrimRight(f.cost, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
		currency := f.cost[len(amount):]
		if currency == "" {
			currency = "USD"
		}
		b.MaxCost = &api.Cost{Amount: strings.TrimSpace(amount), Currency: currency}
	}
	switch {
	case b.MaxCost != nil || b.MaxTokens != 0 || b.MaxToolCalls != 0:
		return b, nil
	case b.OnExceeded != "":
		return nil, usagef("--on-exceeded goes with --max-cost, --max-tokens or --max-tool-calls")
	}
	return nil, nil
}

func (c *cli) budgetsCommand() *cobra.Command {
	list := listing(c, "List the budgets of sessions and projects", "budgets", everyOne(c, inOne((*api.Client).Budgets)),
		func(all []api.ScopeBudget) any { return api.ScopeBudgetList{Items: all} }, []string{"KIND", "OF", "MOST", "USED", "PERIOD", "THEN", "BY"},
		func(b api.ScopeBudget) []string {
			return []string{string(b.Kind), b.Name, mostText(b.Budget), usageText(b.Used), b.Period, thenText(b.Budget), b.UpdatedBy}
		})
	var name string
	kind := func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || !slices.Contains(budgetKinds, args[0]) {
			return usagef("this needs what the budget is of: %s", strings.Join(budgetKinds, " or "))
		}
		return nil
	}
	show := &cobra.Command{
		Use: "show KIND", Short: "Show what a session or a project may use, and has used", Args: kind,
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			b, err := client.Budget(ctx, api.BudgetKind(args[0]), name)
			if err != nil {
				return err
			}
			return c.print(b, func() { c.budgetDetails(b) })
		}),
	}
	f := newBudgetFlags()
	set := &cobra.Command{
		Use:     "set KIND",
		Short:   "Bound what the tasks of a session use together, or of a project in a calendar month (UTC)",
		Example: "  clawctl budgets set project --of shop --max-cost 200 --on-exceeded approval\n  clawctl budgets set session --max-tokens 2000000",
		Args:    kind,
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			n, err := f.budget()
			if err != nil {
				return err
			}
			if n == nil {
				return usagef("say what is bounded: --max-cost, --max-tokens or --max-tool-calls")
			}
			b, err := client.PutBudget(ctx, api.BudgetKind(args[0]), name, *n)
			if err != nil {
				return err
			}
			return c.print(b, func() { c.budgetDetails(b) })
		}),
	}
	f.register(set.Flags())
	completeFlag(set, "on-exceeded", f.then.of...)
	remove := &cobra.Command{
		Use: "delete KIND", Short: "Remove a budget", Args: kind,
		RunE: c.asking(func(ctx context.Context, client *api.Client, args []string) error {
			if err := client.DeleteBudget(ctx, api.BudgetKind(args[0]), name); err != nil {
				return err
			}
			return c.print(struct{}{}, func() {
				c.out.printf("%s: no budget\n", cleanLine(limitOf(api.LimitKind(args[0]), name)))
			})
		}),
	}
	for _, cmd := range []*cobra.Command{show, set, remove} {
		cmd.Flags().StringVar(&name, "of", "", "`id` of the session or project (default each that has no budget of its own)")
	}
	return group("budgets", "Bound what tasks use", list, show, set, remove)
}

func (c *cli) budgetDetails(b api.ScopeBudget) {
	c.details([][2]string{
		{"Of", limitOf(api.LimitKind(b.Kind), b.Name)}, {"Most", mostText(b.Budget)}, {"Used", usageText(b.Used)}, {"Raised by", usageText(b.Raised)},
		{"Period", b.Period}, {"Then", thenText(b.Budget)}, {"By", b.UpdatedBy},
	})
}

func mostText(b *api.Budget) string {
	if b == nil {
		return ""
	}
	u := api.Usage{Tokens: b.MaxTokens, ToolCalls: b.MaxToolCalls}
	if b.MaxCost != nil {
		u.Costs = []api.Cost{*b.MaxCost}
	}
	return usageText(&u)
}

func thenText(b *api.Budget) string {
	if b == nil {
		return ""
	}
	return string(b.OnExceeded)
}

func usageText(u *api.Usage) string {
	if u == nil {
		return ""
	}
	var parts []string
	for _, c := range u.Costs {
		parts = append(parts, c.Amount+" "+c.Currency)
	}
	if u.Tokens != 0 {
		parts = append(parts, strconv.FormatInt(u.Tokens, 10)+" tokens")
	}
	if u.ToolCalls != 0 {
		parts = append(parts, fmt.Sprintf("%d tool calls", u.ToolCalls))
	}
	return strings.Join(parts, ", ")
}
