package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// Budgets is the part of the task engine that bounds what tasks use.
type Budgets interface {
	Budgets(ctx context.Context, c policy.Caller) ([]task.ScopeBudget, error)
	Budget(ctx context.Context, c policy.Caller, kind task.BudgetScope, name string) (task.ScopeBudget, error)
	PutBudget(ctx context.Context, c policy.Caller, kind task.BudgetScope, name string, b task.Budget) (task.ScopeBudget, error)
	DeleteBudget(ctx context.Context, c policy.Caller, kind task.BudgetScope, name string) error
}

// Spending is the part of the task engine by which workers tell what agents use.
type Spending interface {
	Use(ctx context.Context, c policy.Caller, id, lease uuid.UUID, reported []task.Used, final bool) (held *task.Question, err error)
}

// BudgetInput names a budget.
type BudgetInput struct {
	Kind string `path:"kind" enum:"session,project" doc:"What the budget is of. A session's is for all its life, a project's for each calendar month (UTC)."`
	Name string `query:"name" maxLength:"128" doc:"The id of the session or project; absent: each that has no budget of its own."`
}

func (s *Server) registerBudgets() {
	handle(s, operation{
		id: "listBudgets", action: "budget.list", method: http.MethodGet, path: "/v1/budgets", permission: policy.ConfigRead, tag: "Configuration",
		summary: "List the budgets of sessions and projects, with what is used",
	}, s.listBudgets)
	handle(s, operation{
		id: "getBudget", action: "budget.read", method: http.MethodGet, path: "/v1/budgets/{kind}", permission: policy.ConfigRead, tag: "Configuration",
		summary: "Get the budget that holds for a session or a project, and what is used", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getBudget)
	handle(s, operation{
		id: "putBudget", action: "budget.put", method: http.MethodPut, path: "/v1/budgets/{kind}", permission: policy.ConfigWrite, tag: "Configuration",
		summary: "Bound what the tasks of a session or a project use together", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		detail: "What was used already counts. When nothing is left tasks are not claimed, and those that use more are stopped as onExceeded says.",
	}, s.putBudget)
	handle(s, operation{
		id: "deleteBudget", action: "budget.delete", method: http.MethodDelete, path: "/v1/budgets/{kind}", permission: policy.ConfigWrite, tag: "Configuration",
		summary: "Remove a budget", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.deleteBudget)
	handle(s, operation{
		id: "reportUsage", action: "task.report", method: http.MethodPost, path: "/v1/tasks/{id}/usage", permission: policy.Work, agents: true, tag: "Workers",
		summary: "Report what the agent of a leased task has used",
		detail:  "In all, not since the last report: the same may be reported again. If the answer names a question, a budget is exceeded and the agent is to be held until the question is approved. A task that fails for it is answered with 409 lease-lost.",
		errors:  []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.reportUsage)
}

func (s *Server) listBudgets(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.ScopeBudgetList }, error) {
	all, err := s.budgets.Budgets(ctx, c)
	if err != nil {
		return nil, err
	}
	list := api.ScopeBudgetList{Items: make([]api.ScopeBudget, len(all))}
	for i, b := range all {
		list.Items[i] = wireScopeBudget(b)
	}
	return &struct{ Body api.ScopeBudgetList }{list}, nil
}

func (s *Server) getBudget(ctx context.Context, c policy.Caller, in *BudgetInput) (*struct{ Body api.ScopeBudget }, error) {
	b, err := s.budgets.Budget(ctx, c, task.BudgetScope(in.Kind), in.Name)
	return &struct{ Body api.ScopeBudget }{wireScopeBudget(b)}, err
}

func (s *Server) putBudget(ctx context.Context, c policy.Caller, in *struct {
	BudgetInput
	Body api.Budget
}) (*struct{ Body api.ScopeBudget }, error) {
	n, err := newBudget(&in.Body, "body")
	if err != nil {
		return nil, err
	}
	b, err := s.budgets.PutBudget(ctx, c, task.BudgetScope(in.Kind), in.Name, *n)
	return &struct{ Body api.ScopeBudget }{wireScopeBudget(b)}, err
}

func (s *Server) deleteBudget(ctx context.Context, c policy.Caller, in *BudgetInput) (*struct{}, error) {
	return nil, s.budgets.DeleteBudget(ctx, c, task.BudgetScope(in.Kind), in.Name)
}

func (s *Server) reportUsage(ctx context.Context, c policy.Caller, in *struct {
	LeasedInput
	Body api.UsageReport
}) (*struct{ Body api.UsageAnswer }, error) {
	id, lease, err := in.parse(c)
	if err != nil {
		return nil, err
	}
	used, err := NewUsed(in.Body.Usage)
	if err != nil {
		return nil, err
	}
	held, err := s.workers.Use(ctx, c, id, lease, used, in.Body.Final)
	return &struct{ Body api.UsageAnswer }{WireUsageAnswer(held)}, err
}

// WireUsageAnswer says whether an agent may go on; held is what it waits for, or
// nil.
func WireUsageAnswer(held *task.Question) (w api.UsageAnswer) {
	if held != nil {
		w.QuestionID = held.ID.String()
	}
	return w
}

// NewUsed reads what agents have used.
func NewUsed(reported []api.SourceUsage) ([]task.Used, error) {
	used := make([]task.Used, len(reported))
	for i, r := range reported {
		used[i] = task.Used{Source: r.Source, Total: task.Amounts{}}
		for j, c := range r.Costs {
			amount, err := parseCost(c, fmt.Sprintf("body.usage[%d].costs[%d]", i, j))
			if err != nil {
				return nil, err
			}
			used[i].Total[c.Currency] = amount
		}
		if r.Tokens != 0 {
			used[i].Total[task.Tokens] = r.Tokens
		}
		if r.ToolCalls != 0 {
			used[i].Total[task.ToolCalls] = r.ToolCalls
		}
	}
	return used, nil
}

// parseCost returns an amount of money in millionths.
func parseCost(c api.Cost, at string) (int64, error) {
	amount, ok := task.ParseMoney(c.Amount)
	if !ok {
		return 0, fault.InvalidFields([]fault.Field{{Path: at + ".amount", Message: "must be a decimal number below a billion, with at most six decimals"}})
	}
	return amount, nil
}

// newBudget reads a budget, or none.
func newBudget(b *api.Budget, at string) (*task.Budget, error) {
	if b == nil {
		return nil, nil
	}
	n := task.Budget{Most: task.Amounts{}, OnExceeded: task.OnExceeded(b.OnExceeded)}
	if b.MaxCost != nil {
		amount, err := parseCost(*b.MaxCost, at+".maxCost")
		if err != nil {
			return nil, err
		}
		n.Most[b.MaxCost.Currency] = amount
	}
	if b.MaxTokens != 0 {
		n.Most[task.Tokens] = b.MaxTokens
	}
	if b.MaxToolCalls != 0 {
		n.Most[task.ToolCalls] = b.MaxToolCalls
	}
	return &n, nil
}

func wireScopeBudget(b task.ScopeBudget) api.ScopeBudget {
	w := api.ScopeBudget{
		Kind: api.BudgetKind(b.Kind), Name: b.Name, Period: b.Period, Used: wireAmounts(b.Used), Raised: wireAmounts(b.Raised),
		UpdatedAt: utc(b.UpdatedAt), UpdatedBy: b.UpdatedBy,
	}
	if b.Most != nil {
		w.Budget = wireBudget(&task.Budget{Most: b.Most, OnExceeded: b.OnExceeded})
	}
	return w
}

func wireBudget(b *task.Budget) *api.Budget {
	if b == nil {
		return nil
	}
	most := wireAmounts(b.Most)
	w := &api.Budget{MaxTokens: most.Tokens, MaxToolCalls: most.ToolCalls, OnExceeded: api.OnExceeded(b.OnExceeded)}
	if len(most.Costs) > 0 {
		w.MaxCost = &most.Costs[0] // a budget bounds one currency
	}
	return w
}

// wireAmounts is what was used, as clients see it; nil: nothing.
func wireAmounts(a task.Amounts) *api.Usage {
	if a == nil {
		return nil
	}
	w := &api.Usage{Tokens: a[task.Tokens], ToolCalls: a[task.ToolCalls]}
	for _, unit := range slices.Sorted(maps.Keys(a)) {
		if unit != task.Tokens && unit != task.ToolCalls {
			w.Costs = append(w.Costs, api.Cost{Amount: task.FormatMoney(a[unit]), Currency: unit})
		}
	}
	return w
}
