package httpapi_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/coderclaw/runtime/api"
)

// What a request allocates, middleware, validation, JSON and the database's
// driver included, is bounded: a change that costs more is to be one that means to.
func TestRequestsAllocateNoMoreThanTheyNeed(t *testing.T) { // not parallel: allocations are the whole process's
	r := newRig(t)
	want[struct{}](r, 204, "POST", "/v1/workers", `{"id":"w","instance":"01890a5d-ac96-774b-bcce-b302099a8057","capacity":9}`)
	r.submit(`{"description":"d","input":"i"}`)
	lease := want[api.ClaimAnswer](r, 200, "POST", "/v1/workers/w/claim", `{"max":1}`).Leases[0]
	for _, c := range []struct {
		method, path, body string
		status             int
		most               float64
	}{
		{"GET", "/v1/tasks/" + lease.Task.ID, "", 200, 220},
		{"POST", "/v1/tasks", `{"description":"d","input":"i","dispatch":"manual"}`, 201, 430},
		{"POST", "/v1/tasks/" + lease.Task.ID + "/reports", `{"events":[{"type":"progress","progress":5,"message":"on the way"}]}`, 204, 410},
		{"POST", "/v1/workers/w/heartbeat", fmt.Sprintf(`{"leaseTokens":[%q]}`, lease.LeaseToken), 200, 210},
		{"POST", "/v1/workers/w/claim", `{"max":1}`, 200, 170},
	} {
		request := func() {
			req := httptest.NewRequest(c.method, "http://localhost"+c.path, bytes.NewBufferString(c.body))
			req.RemoteAddr = "127.0.0.1:1"
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Lease-Token", lease.LeaseToken)
			w := httptest.NewRecorder()
			r.http.ServeHTTP(w, req)
			if w.Code != c.status {
				t.Fatalf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
			}
		}
		request() // statements are prepared, and buffers made
		if got := testing.AllocsPerRun(50, request); got > c.most {
			t.Errorf("%s %s: %v allocations, at most %v are needed", c.method, c.path, got, c.most)
		}
	}
}
