package task

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
)

// Amounts say how much of each unit: tokens, toolCalls, or a currency by its
// code (ISO 4217), in millionths.
type Amounts map[string]int64

// The units that are no currencies.
const (
	Tokens    = "tokens"
	ToolCalls = "toolCalls"
)

const (
	// MaxAmount is the most that a budget can be, or a source can have used.
	MaxAmount = 1e15
	// maxTotal is where sums stop.
	maxTotal = 9e18
	// maxSources is how many sources can tell of what one task uses.
	maxSources     = 1000
	maxReported    = 32 // at once
	maxSourceBytes = 128

	// millionths of a unit of currency, and how many digits that is.
	millionths = 1_000_000
	decimals   = 6
)

var (
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
	countForm    = regexp.MustCompile(`^[0-9]{1,16}$`)
	moneyForm    = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,6}))?$`)
)

// ParseMoney reads an amount of money, such as 1.50, and returns it in
// millionths. What is negative, has more than six decimals or is a billion or
// more is none.
func ParseMoney(text string) (int64, bool) {
	m := moneyForm.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1]+m[2]+strings.Repeat("0", decimals-len(m[2])), 10, 64)
	return n, err == nil
}

// FormatMoney writes millionths as ParseMoney reads them, with two decimals or
// as many more as it takes.
func FormatMoney(amount int64) string {
	cents := fmt.Sprintf("%0*d", decimals, amount%millionths)
	return fmt.Sprintf("%d.%s%s", amount/millionths, cents[:2], strings.TrimRight(cents[2:], "0"))
}

// formatAmount writes an amount for people.
func formatAmount(unit string, amount int64) string {
	switch unit {
	case Tokens:
		return fmt.Sprintf("%d tokens", amount)
	case ToolCalls:
		return fmt.Sprintf("%d tool calls", amount)
	}
	return FormatMoney(amount) + " " + unit
}

// String lists the amounts for people.
func (a Amounts) String() string {
	var parts []string
	for _, unit := range slices.Sorted(maps.Keys(a)) {
		parts = append(parts, formatAmount(unit, a[unit]))
	}
	return strings.Join(parts, ", ")
}

// faults lists what is no amount.
func (a Amounts) faults(path string) (bad []fault.Field) {
	for _, unit := range slices.Sorted(maps.Keys(a)) {
		switch {
		case unit != Tokens && unit != ToolCalls && !currencyForm.MatchString(unit):
			bad = append(bad, fault.Field{Path: path, Message: fmt.Sprintf("%.40q is no currency: three capital letters, as of ISO 4217", unit)})
		case a[unit] < 0 || a[unit] > MaxAmount:
			bad = append(bad, fault.Field{Path: path, Message: fmt.Sprintf("%s must be between 0 and %d", unit, int64(MaxAmount))})
		}
	}
	return bad
}

// OnExceeded says what becomes of a task that uses more than a budget has.
type OnExceeded string

// What becomes of it.
const (
	FailExceeded OnExceeded = "fail"
	AskExceeded  OnExceeded = "approval" // it waits for a person to raise the budget
)

// Budget is how much may be used.
type Budget struct {
	Most       Amounts    `json:"most"`
	OnExceeded OnExceeded `json:"onExceeded"` // default: FailExceeded
}

func (b *Budget) faults(path string) (bad []fault.Field) {
	bad = b.Most.faults(path)
	if len(b.Most) == 0 {
		bad = append(bad, fault.Field{Path: path, Message: "must bound something: maxCost, maxTokens or maxToolCalls"})
	}
	for unit, most := range b.Most {
		if most == 0 {
			bad = append(bad, fault.Field{Path: path, Message: unit + " must be more than nothing"})
		}
	}
	if b.OnExceeded != FailExceeded && b.OnExceeded != AskExceeded {
		bad = append(bad, fault.Field{Path: path + ".onExceeded", Message: "must be fail or approval"})
	}
	return bad
}

// Usage is what a task has used.
type Usage struct {
	Used Amounts `json:"used"`
	// Sources are the totals that each source has told of.
	Sources map[string]Amounts `json:"sources"`
	// Raised is by how much people have raised the task's budget.
	Raised Amounts `json:"raised,omitempty"`
	// Warned are the budgets, as scope:unit, whose end has been warned of.
	Warned []string `json:"warned,omitempty"`
}

// Used is what a source, such as a session of an agent, has used from its
// beginning on. Reporting the same again changes nothing.
type Used struct {
	Source string // "": the attempt
	Total  Amounts
}

// take adds what is more than the sources had told of before, and returns it.
func (u *Usage) take(lease uuid.UUID, reported []Used) (more Amounts, err error) {
	more = Amounts{}
	for _, r := range reported {
		source := r.Source
		if source == "" {
			source = "attempt:" + lease.String()
		}
		known := u.Sources[source]
		if known == nil {
			if len(u.Sources) >= maxSources {
				return nil, fault.New(fault.Conflict, "%d sources have told of what the task uses, the most that can", maxSources)
			}
			known = Amounts{}
			u.Sources[source] = known
		}
		for unit, total := range r.Total {
			if grown := total - known[unit]; grown > 0 {
				known[unit] = total
				more[unit] = sum(more[unit], grown)
				u.Used[unit] = sum(u.Used[unit], grown)
			}
		}
	}
	return more, nil
}

// sum adds amounts, up to maxTotal.
func sum(a, b int64) int64 {
	if a > maxTotal-b {
		return maxTotal
	}
	return a + b
}

// checkUsed lists what is wrong with a report of use.
func checkUsed(reported []Used) error {
	var bad []fault.Field
	if len(reported) > maxReported {
		bad = append(bad, fault.Field{Path: "body.usage", Message: fmt.Sprintf("must be of at most %d sources", maxReported)})
	}
	for i, r := range reported {
		at := fmt.Sprintf("body.usage[%d]", i)
		if message := (boundedText{"source", r.Source, maxSourceBytes}).fault(); message != "" {
			bad = append(bad, fault.Field{Path: at + ".source", Message: message})
		}
		if len(r.Total) > maxReported {
			bad = append(bad, fault.Field{Path: at + ".costs", Message: "are too many"})
		}
		bad = append(bad, r.Total.faults(at)...)
	}
	return fault.InvalidFields(bad)
}

// BudgetScope says whose budget it is.
type BudgetScope string

// The scopes. A session's budget is for all its life, a project's for each
// calendar month (UTC).
const (
	TaskBudget    BudgetScope = "task"
	SessionBudget BudgetScope = "session"
	ProjectBudget BudgetScope = "project"
)

// BudgetUse is how much is used of one unit of a budget. Its JSON form is the
// data of events and questions about it.
type BudgetUse struct {
	Scope  BudgetScope `json:"scope"`
	Name   string      `json:"name,omitempty"`   // of the session or project
	Period string      `json:"period,omitempty"` // of a project: the month
	Unit   string      `json:"unit"`
	Used   int64       `json:"used"`
	Limit  int64       `json:"limit"` // with what people have raised it by

	onExceeded OnExceeded
}

// exceeded reports whether more is used than there is. Who has used all of it,
// and no more, may end its work.
func (u BudgetUse) exceeded() bool { return u.Used > u.Limit }

// warns reports whether four fifths are used.
func (u BudgetUse) warns() bool { return u.Used >= u.Limit-u.Limit/5 }

func (u BudgetUse) key() string { return string(u.Scope) + ":" + u.Unit }

// String says for people how much is used of what.
func (u BudgetUse) String() string {
	of := "the task's budget"
	switch u.Scope {
	case SessionBudget:
		of = "the budget of session " + u.Name
	case ProjectBudget:
		of = "the budget of project " + u.Name + " for " + u.Period
	}
	return fmt.Sprintf("%s of %s of %s are used", formatAmount(u.Unit, u.Used), formatAmount(u.Unit, u.Limit), of)
}

// Figure reads how much more may be used: an amount of money in the budget's
// currency, as ParseMoney does, or a whole number of tokens or tool calls. It is
// more than 0 and less than MaxAmount, or ok is false.
func (u BudgetUse) Figure(text string) (amount int64, ok bool) {
	if u.Unit != Tokens && u.Unit != ToolCalls {
		amount, ok = ParseMoney(text)
		return amount, ok && amount > 0
	}
	if !countForm.MatchString(text) {
		return 0, false
	}
	amount, err := strconv.ParseInt(text, 10, 64)
	return amount, err == nil && amount > 0 && amount < MaxAmount
}

// raiseFault refuses a figure by which the question's budget cannot be raised.
func (q Question) raiseFault(figure string) error {
	if figure == "" {
		return nil
	}
	message := "is for approvals that raise a budget, and this is not one"
	if b := q.Budget; b != nil {
		if _, ok := b.Figure(figure); ok {
			return nil
		}
		message = fmt.Sprintf("must be how much more may be used, without its unit: more than 0, less than %s", formatAmount(b.Unit, MaxAmount))
	}
	return fault.InvalidFields([]fault.Field{{Path: "body.raiseBy", Message: message}})
}

// standings of the task's own budget.
func (t Task) standings() (all []BudgetUse) {
	if t.Budget == nil || t.Usage == nil {
		return nil
	}
	for _, unit := range slices.Sorted(maps.Keys(t.Budget.Most)) {
		all = append(all, BudgetUse{
			Scope: TaskBudget, Unit: unit, Used: t.Usage.Used[unit], onExceeded: t.Budget.OnExceeded,
			Limit: sum(t.Budget.Most[unit], t.Usage.Raised[unit]),
		})
	}
	return all
}
