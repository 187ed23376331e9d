package clawctl

import (
	"errors"
	"iter"
	"strconv"

	"github.com/spf13/cobra"
)

// limit is the flag that says how many items a list shows at most; 0 is all.
type limit int

func (l *limit) String() string { return strconv.Itoa(int(*l)) }
func (l *limit) Type() string   { return "number" }

func (l *limit) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return errors.New("want a number, 0 for all")
	}
	*l = limit(n)
	return nil
}

func (l *limit) register(cmd *cobra.Command, what string) {
	*l = 50
	cmd.Flags().Var(l, "limit", "`number` of "+what+" at most; 0 for all")
}

// page is how many items to ask for at once: one more than are shown tells that
// there are more.
func (l limit) page() int {
	if l == 0 {
		return 500
	}
	return int(min(l+1, 500))
}

// take returns what a list shows of seq, and whether there is more.
func take[T any](seq iter.Seq2[T, error], l limit) (items []T, more bool, err error) {
	items = []T{} // null is no list
	for it, err := range seq {
		if err != nil {
			return nil, false, err
		}
		if l > 0 && len(items) == int(l) {
			return items, true, nil
		}
		items = append(items, it)
	}
	return items, false, nil
}

func (c *cli) tellMore(more bool) {
	if more {
		c.err.printf("%s\n", c.err.style(dim, "There are more: --limit 0 lists all."))
	}
}

// listing is a command that lists what all yields, a row for each.
func listing[T any](c *cli, short, what string, all func(*cobra.Command) (iter.Seq2[T, error], error), wire func([]T) any, heads []string, row func(T) []string) *cobra.Command {
	var l limit
	cmd := &cobra.Command{
		Use:   "list",
		Short: short,
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			seq, err := all(cmd)
			if err != nil {
				return err
			}
			items, more, err := take(seq, l)
			if err != nil {
				return err
			}
			err = c.print(wire(items), func() {
				if len(items) == 0 {
					c.err.printf("No %s.\n", what)
					return
				}
				t := &table{heads: heads}
				for _, it := range items {
					t.row(row(it)...)
				}
				c.out.table(t)
			})
			c.tellMore(more)
			return err
		},
	}
	l.register(cmd, what)
	return cmd
}
