package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// send gives a request to the server without a socket, which a fuzzer would
// exhaust, and returns the answer's status.
func (r *rig) send(method, path, body string, headers ...string) int {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "localhost"
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header[headers[i]] = []string{headers[i+1]}
	}
	rec := httptest.NewRecorder()
	r.http.ServeHTTP(rec, req)
	return rec.Code
}

func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"description":"d","input":"i","dispatch":"manual"}`,
		`{"description":"d","input":"i","labels":{"a":"b"},"metadata":{"x":[1,{"y":null}]},"runAfter":"2026-01-01T00:00:00Z","priority":-3}`,
		`{"tasks":[{"description":"d","input":"i","dependsOn":["0190b8a1-0000-7000-8000-000000000000"]}]}`,
		`{"status":"running","progress":5,"output":"o","message":"m","data":{"a":1}}`,
		`{"description":"mine","executor":"process","process":{"command":["echo","{{input}}"]}}`,
		"{\"description\":\"\xff\"}", `{"description":"\u0000"}`, `{"metadata":` + strings.Repeat("[", 100), `{"priority":1e999}`, `{"description":"\ud800"}`,
	} {
		f.Add(seed)
	}
	r := newRig(f)
	id := r.manual().ID
	f.Fuzz(func(t *testing.T, body string) {
		for _, op := range [][2]string{
			{http.MethodPost, "/v1/tasks"}, {http.MethodPost, "/v1/tasks/batch"}, {http.MethodPatch, "/v1/tasks/" + id}, {http.MethodPut, "/v1/agents/fuzzed"},
		} {
			if status := r.send(op[0], op[1], body); status >= 500 {
				t.Errorf("%s %s: %d for %q", op[0], op[1], status, body)
			}
		}
	})
}

func FuzzResumeCursor(f *testing.F) {
	for _, seed := range []string{"0", "1", "-1", "5-7", "zz-0", "1-1-1", "99999999999999999999", "3w5e11264sgsf-1y2p0ij32e8e7", "\x00", "\xff", " 1", "+1", "1\n2"} {
		f.Add(seed)
	}
	r := newRig(f)
	task := r.manual()
	r.patch(task.ID, `{"status":"cancelled"}`)
	r.http.EndStreams() // so that each stream ends after what there is
	f.Fuzz(func(t *testing.T, cursor string) {
		for _, path := range []string{"/v1/stream", "/v1/tasks/" + task.ID + "/stream"} {
			if status := r.send(http.MethodGet, path, "", "Last-Event-Id", cursor); status >= 500 {
				t.Errorf("%s: %d for %q", path, status, cursor)
			}
		}
	})
}
