package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Cost is an amount of money.
type Cost struct {
	Amount   string `json:"amount" pattern:"^[0-9]{1,9}(\\.[0-9]{1,6})?$" doc:"Decimal, at most six decimals." example:"1.50"`
	Currency string `json:"currency" pattern:"^[A-Z]{3}$" doc:"Its code, as of ISO 4217." example:"USD"`
}

// Usage is how much was used.
type Usage struct {
	Costs     []Cost `json:"costs,omitempty" maxItems:"30" doc:"One for each currency."`
	Tokens    int64  `json:"tokens,omitempty" minimum:"0" maximum:"9000000000000000000"`
	ToolCalls int64  `json:"toolCalls,omitempty" minimum:"0" maximum:"9000000000000000000"`
}

// OnExceeded says what becomes of a task that uses more than a budget has.
type OnExceeded string

// What becomes of it.
const (
	FailExceeded OnExceeded = "fail"
	AskExceeded  OnExceeded = "approval" // it waits for a person to raise the budget
)

// Budget is how much may be used. What is absent is not bounded; one of the
// three must be there.
type Budget struct {
	MaxCost      *Cost      `json:"maxCost,omitempty" doc:"Costs in other currencies do not count."`
	MaxTokens    int64      `json:"maxTokens,omitempty" minimum:"1" maximum:"1000000000000000"`
	MaxToolCalls int64      `json:"maxToolCalls,omitempty" minimum:"1" maximum:"1000000000000000"`
	OnExceeded   OnExceeded `json:"onExceeded,omitempty" enum:"fail,approval" doc:"fail (default): the task fails with statusReason budget-exceeded. approval: it waits until a person raises the budget, and fails if nobody does."`
}

// BudgetKind says what a shared budget is of.
type BudgetKind string

// The kinds of shared budgets.
const (
	SessionBudget BudgetKind = "session" // for all its life
	ProjectBudget BudgetKind = "project" // for each calendar month, UTC
)

// ScopeBudget is the budget of a session or a project, and what is used of it.
type ScopeBudget struct {
	Kind      BudgetKind `json:"kind" enum:"session,project"`
	Name      string     `json:"name,omitempty" doc:"Of which; absent: of each that has no budget of its own."`
	Budget    *Budget    `json:"budget,omitempty" doc:"What holds for it, if anything does: its own, or that of each which has none."`
	Period    string     `json:"period,omitempty" doc:"The present period: of a project the month. A session's is its life." example:"2026-01"`
	Used      *Usage     `json:"used,omitempty" doc:"By all its tasks in this period."`
	Raised    *Usage     `json:"raised,omitempty" doc:"By how much people have raised the budget in this period."`
	UpdatedAt *time.Time `json:"updatedAt,omitempty"`
	UpdatedBy string     `json:"updatedBy,omitempty"`
}

// ScopeBudgetList is the budgets that concern the caller, by kind and name.
type ScopeBudgetList struct {
	Items []ScopeBudget `json:"items"`
}

// BudgetStanding is how much is used of one unit of a budget.
type BudgetStanding struct {
	Scope  string `json:"scope" enum:"task,session,project"`
	Name   string `json:"name,omitempty" doc:"Of the session or project."`
	Period string `json:"period,omitempty" doc:"Of a project: the month."`
	Unit   string `json:"unit" doc:"tokens, toolCalls or a currency."`
	Used   int64  `json:"used" doc:"Money in millionths."`
	Limit  int64  `json:"limit" doc:"Money in millionths."`
}

// UsageReport is the body of POST /v1/tasks/{id}/usage: what the agent of a
// leased task has used.
type UsageReport struct {
	Usage []SourceUsage `json:"usage,omitempty" maxItems:"32"`
	Final bool          `json:"final,omitempty" doc:"The agent has ended: it is counted, and nothing is stopped any more."`
}

// SourceUsage is what a source, such as a session of an agent that several
// attempts continue, has used from its beginning on. The same may be reported
// again: only what is more counts.
type SourceUsage struct {
	Source string `json:"source,omitempty" maxLength:"128" doc:"Absent: the attempt."`
	Usage
}

// UsageAnswer says whether the agent may go on.
type UsageAnswer struct {
	QuestionID string `json:"questionId,omitempty" doc:"Hold the agent until this question is approved: a budget is exceeded. If it has another outcome the task fails."`
}

// Budgets returns the budgets that concern the caller.
func (c *Client) Budgets(ctx context.Context) ([]ScopeBudget, error) {
	var out ScopeBudgetList
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/budgets", out: &out})
	return out.Items, err
}

// Budget returns the budget that holds for a session or a project, and what is
// used.
func (c *Client) Budget(ctx context.Context, kind BudgetKind, name string) (ScopeBudget, error) {
	var out ScopeBudget
	return out, c.do(ctx, call{method: http.MethodGet, path: budgetPath(kind), query: limitName(name), out: &out})
}

// PutBudget bounds what the tasks of a session or a project use together.
func (c *Client) PutBudget(ctx context.Context, kind BudgetKind, name string, b Budget) (ScopeBudget, error) {
	var out ScopeBudget
	return out, c.do(ctx, call{method: http.MethodPut, path: budgetPath(kind), query: limitName(name), in: b, out: &out})
}

// DeleteBudget removes the budget of a session or a project.
func (c *Client) DeleteBudget(ctx context.Context, kind BudgetKind, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: budgetPath(kind), query: limitName(name)})
}

func budgetPath(kind BudgetKind) string { return "/v1/budgets/" + url.PathEscape(string(kind)) }

// ReportUsage says what the agent of a leased task has used. It may be repeated.
func (c *Client) ReportUsage(ctx context.Context, taskID, leaseToken string, r UsageReport) (UsageAnswer, error) {
	var out UsageAnswer
	return out, c.leased(ctx, taskID, leaseToken, call{method: http.MethodPost, path: "/usage", in: r, out: &out})
}
