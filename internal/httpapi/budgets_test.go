package httpapi_test

import (
	"fmt"
	"testing"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/task"
)

func TestBudgetsAndUseAreDecimalOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.work("w")
	const budget = `{"maxCost":{"amount":"1.5","currency":"EUR"},"maxToolCalls":7}`
	submitted := r.submit(`{"description":"d","input":"i","budget":` + budget + `}`)
	leases, _, err := r.tasks.Claim(t.Context(), task.InProcess, "w", 1, maxTestWait)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	total := task.Amounts{"EUR": 250_001, "USD": 1_000_000, task.Tokens: 1200}
	if _, err := r.tasks.Use(t.Context(), task.InProcess, leases[0].ID, leases[0].LeaseToken, []task.Used{{Total: total}}, false); err != nil {
		t.Fatal(err)
	}
	got := want[api.Task](r, 200, "GET", "/v1/tasks/"+submitted.ID, "")
	if b := got.Budget; b == nil || b.MaxCost == nil || *b.MaxCost != (api.Cost{Amount: "1.50", Currency: "EUR"}) || b.MaxToolCalls != 7 || b.MaxTokens != 0 || b.OnExceeded != api.FailExceeded {
		t.Errorf("the budget is %+v", got.Budget)
	}
	if u := got.Usage; u == nil || fmt.Sprint(*u) != "{[{0.250001 EUR} {1.00 USD}] 1200 0}" {
		t.Errorf("the usage is %+v", got.Usage)
	}
	made := want[api.Schedule](r, 201, "POST", "/v1/schedules", `{"name":"n","intervalSeconds":3600,"task":{"description":"d","input":"i","budget":`+budget+`}}`)
	if b := made.Task.Budget; b == nil || b.MaxCost == nil || b.MaxCost.Amount != "1.50" {
		t.Errorf("the schedule's budget is %+v", b)
	}
}

func TestFiguresThatAreNoneAreRefusedOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, bad := range []string{
		`{}`, `{"onExceeded":"approval"}`, `{"maxTokens":-1}`, `{"maxTokens":1.5}`, `{"maxTokens":1000000000000001}`, `{"maxTokens":9223372036854775808}`, `{"maxToolCalls":-3}`,
		`{"maxCost":1.5}`, `{"maxCost":{"amount":1.5,"currency":"USD"}}`, `{"maxCost":{"amount":"NaN","currency":"USD"}}`,
		`{"maxCost":{"amount":"-1","currency":"USD"}}`, `{"maxCost":{"amount":"1e3","currency":"USD"}}`, `{"maxCost":{"amount":"0","currency":"USD"}}`,
		`{"maxCost":{"amount":"1000000000","currency":"USD"}}`, `{"maxCost":{"amount":"0.0000001","currency":"USD"}}`,
		`{"maxCost":{"amount":"1","currency":"usd"}}`, `{"maxCost":{"amount":"1"}}`, `{"maxTokens":5,"onExceeded":"explode"}`,
	} {
		if resp, text := r.do("POST", "/v1/tasks", `{"description":"d","input":"i","budget":`+bad+`}`); resp.StatusCode != 422 {
			t.Errorf("a budget of %s: %d %s", bad, resp.StatusCode, text)
		}
	}
	if list := want[api.TaskList](r, 200, "GET", "/v1/tasks", ""); len(list.Items) != 0 {
		t.Errorf("accepted %d", len(list.Items))
	}
}

func TestAnApproverStatesTheFigureOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.work("w")
	r.submit(`{"description":"d","input":"i","budget":{"maxCost":{"amount":"1.5","currency":"EUR"},"onExceeded":"approval"}}`)
	leases, _, err := r.tasks.Claim(t.Context(), task.InProcess, "w", 1, maxTestWait)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	l := leases[0]
	q, err := r.tasks.Use(t.Context(), task.InProcess, l.ID, l.LeaseToken, []task.Used{{Total: task.Amounts{"EUR": 2_000_000}}}, false)
	if err != nil || q == nil {
		t.Fatal(q, err)
	}
	path := "/v1/approvals/" + q.ID.String()
	for _, bad := range []string{
		`{"approve":true,"raiseBy":0.25}`, `{"approve":true,"raiseBy":"0"}`, `{"approve":true,"raiseBy":"-1"}`, `{"approve":true,"raiseBy":"1e9"}`,
		`{"approve":true,"raiseBy":"1000000000"}`, `{"approve":false,"raiseBy":"0.25"}`, `{"raiseBy":"0.25"}`,
	} {
		if resp, text := r.do("POST", path, bad); resp.StatusCode != 422 {
			t.Errorf("%s: %d %s", bad, resp.StatusCode, text)
		}
	}
	got := want[api.Question](r, 200, "POST", path, `{"approve":true,"raiseBy":"0.25"}`)
	if got.Status != api.QuestionApproved || got.Answer == nil || got.Answer.RaiseBy != "0.25" {
		t.Errorf("it is %+v", got)
	}
	if held, err := r.tasks.Use(t.Context(), task.InProcess, l.ID, l.LeaseToken, []task.Used{{Total: task.Amounts{"EUR": 2_250_000}}}, false); held != nil || err != nil {
		t.Errorf("held by %v, %v", held, err)
	}
}
