package httpapi_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
)

// A claim with reports answers each of them by itself, and does not wait.
func TestAClaimCarriesReportsEachWithItsAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want[struct{}](r, 204, "POST", "/v1/workers", `{"id":"w","instance":"01890a5d-ac96-774b-bcce-b302099a8057","capacity":9}`)
	for range 3 {
		r.submit(`{"description":"d","input":"i"}`)
	}
	leases := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", `{"max":2}`).Leases
	if len(leases) != 2 {
		t.Fatalf("claimed %+v", leases)
	}
	report := func(task, lease, report string) string {
		return fmt.Sprintf(`{"taskId":%q,"leaseToken":%q,"report":%s}`, task, lease, report)
	}
	first, second := leases[0], leases[1]
	body := fmt.Sprintf(`{"max":5,"waitSeconds":60,"reports":[%s,%s,%s,%s,%s]}`,
		report(first.Task.ID, first.LeaseToken, `{"status":"running"}`),
		report(second.Task.ID, uuid.NewString(), `{"status":"running"}`),
		report(second.Task.ID, second.LeaseToken, `{"status":"completed"}`), // it does not run
		report(second.Task.ID, second.LeaseToken, `{"status":"failed","reason":"NO WAY"}`),
		report(first.Task.ID, first.LeaseToken, `{"status":"completed","output":"done"}`))
	answer := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", body)
	var got []string
	for _, a := range answer.Reports {
		slug := "recorded"
		if a.Problem != nil {
			slug = a.Problem.Type
		}
		got = append(got, slug)
	}
	if fmt.Sprint(got) != "[recorded /problems/lease-lost /problems/invalid-transition /problems/invalid recorded]" || len(answer.Leases) != 1 {
		t.Errorf("the reports are %v, with %d leases", got, len(answer.Leases))
	}
	if task := want[api.Task](r, 200, "GET", "/v1/tasks/"+first.Task.ID, ""); task.Status != api.TaskCompleted || task.Output != "done" {
		t.Errorf("the first task is %s with %q", task.Status, task.Output)
	}
	if task := want[api.Task](r, 200, "GET", "/v1/tasks/"+second.Task.ID, ""); task.Status != api.TaskPlanning {
		t.Errorf("the second task is %s", task.Status)
	}

	// With nothing to claim it answers all the same: what is reported is to be
	// heard of.
	began := time.Now()
	body = fmt.Sprintf(`{"max":1,"waitSeconds":60,"reports":[%s]}`, report(second.Task.ID, second.LeaseToken, `{"status":"failed"}`))
	if answer := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", body); len(answer.Reports) != 1 || answer.Reports[0].Problem != nil {
		t.Errorf("the answer is %+v", answer)
	}
	if took := time.Since(began); took > maxTestWait/2 {
		t.Errorf("a claim that carries a report waited for %s", took)
	}
	r.problem(422, "invalid", "POST", "/v1/workers/w/claim", `{"max":1,"reports":[{"taskId":"x","leaseToken":"y","report":{}}]}`)
	r.problem(422, "invalid", "POST", "/v1/workers/w/claim", `{"max":1,"reports":[`+report(second.Task.ID, second.LeaseToken, `{"status":"cancelled"}`)+`]}`)
}
