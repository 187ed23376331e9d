package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
)

// leased are two tasks that a worker w holds, of three.
func (r *rig) leased() (first, second api.Lease) {
	r.t.Helper()
	want[struct{}](r, 204, "POST", "/v1/workers", `{"id":"w","instance":"01890a5d-ac96-774b-bcce-b302099a8057","capacity":9}`)
	for range 3 {
		r.submit(`{"description":"d","input":"i"}`)
	}
	leases := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", `{"max":2}`).Leases
	if len(leases) != 2 {
		r.t.Fatalf("claimed %+v", leases)
	}
	return leases[0], leases[1]
}

func leaseReport(task, lease, report string) string {
	return fmt.Sprintf(`{"taskId":%q,"leaseToken":%q,"report":%s}`, task, lease, report)
}

// Each of several reports is recorded or refused by itself, whether they come by
// themselves or with a claim.
func TestReportsAreEachAnswered(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(r *rig, reports string) []api.ReportAnswer{
		"with a claim": func(r *rig, reports string) []api.ReportAnswer {
			answer := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", `{"max":5,"waitSeconds":60,"reports":`+reports+`}`)
			if len(answer.Leases) != 1 {
				r.t.Errorf("claimed %d tasks", len(answer.Leases))
			}
			return answer.Reports
		},
		"by themselves": func(r *rig, reports string) []api.ReportAnswer {
			return want[api.LeaseReportsAnswer](r, 200, "POST", "/v1/tasks/reports", `{"reports":`+reports+`}`).Reports
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			first, second := r.leased()
			var got []string
			for _, a := range send(r, fmt.Sprintf(`[%s,%s,%s,%s,%s]`,
				leaseReport(first.Task.ID, first.LeaseToken, `{"status":"running"}`),
				leaseReport(second.Task.ID, uuid.NewString(), `{"status":"running"}`),
				leaseReport(second.Task.ID, second.LeaseToken, `{"status":"completed"}`), // it does not run
				leaseReport(second.Task.ID, second.LeaseToken, `{"status":"failed","reason":"NO WAY"}`),
				leaseReport(first.Task.ID, first.LeaseToken, `{"status":"completed","output":"done"}`))) {
				slug := "recorded"
				if a.Problem != nil {
					slug = a.Problem.Type
				}
				got = append(got, slug)
			}
			if fmt.Sprint(got) != "[recorded /problems/lease-lost /problems/invalid-transition /problems/invalid recorded]" {
				t.Errorf("the reports are %v", got)
			}
			if task := want[api.Task](r, 200, "GET", "/v1/tasks/"+first.Task.ID, ""); task.Status != api.TaskCompleted || task.Output != "done" {
				t.Errorf("the first task is %s with %q", task.Status, task.Output)
			}
			if task := want[api.Task](r, 200, "GET", "/v1/tasks/"+second.Task.ID, ""); task.Status != api.TaskPlanning {
				t.Errorf("the second task is %s", task.Status)
			}
		})
	}
}

func TestReportsThatAreNoneAreRefusedWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, _ := r.leased()
	for _, reports := range []string{
		`{"taskId":"x","leaseToken":"y","report":{}}`,
		leaseReport(first.Task.ID, first.LeaseToken, `{"status":"cancelled"}`),
		strings.TrimSuffix(strings.Repeat(leaseReport(first.Task.ID, first.LeaseToken, `{"message":"m"}`)+",", 101), ","),
	} {
		r.problem(422, "invalid", "POST", "/v1/workers/w/claim", `{"max":1,"reports":[`+reports+`]}`)
		r.problem(422, "invalid", "POST", "/v1/tasks/reports", `{"reports":[`+reports+`]}`)
	}
	r.problem(422, "invalid", "POST", "/v1/tasks/reports", `{"reports":[]}`)
}

// With nothing to claim a claim that carries reports answers all the same: what
// is reported is to be heard of.
func TestAClaimWithReportsDoesNotWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, _ := r.leased()
	want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", `{"max":1}`) // the third
	began := time.Now()
	answer := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim",
		fmt.Sprintf(`{"max":1,"waitSeconds":60,"reports":[%s]}`, leaseReport(first.Task.ID, first.LeaseToken, `{"status":"failed"}`)))
	if len(answer.Reports) != 1 || answer.Reports[0].Problem != nil {
		t.Errorf("the answer is %+v", answer)
	}
	if took := time.Since(began); took > maxTestWait/2 {
		t.Errorf("a claim that carries a report waited for %s", took)
	}
}
