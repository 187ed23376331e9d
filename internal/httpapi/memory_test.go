package httpapi_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/coderclaw/runtime/api"
)

func TestWhatASessionRemembersIsChangedByWhoHasSeenIt(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	ann := r.login(admin, "ann", "developer", "")
	const path = "/v1/sessions/current/memory/plan"
	put := func(value string, headers ...string) *http.Response {
		t.Helper()
		resp, _ := r.do("PUT", path, `{"value":`+value+`}`, append(headers, bearer(ann)...)...)
		return resp
	}
	wants := func(resp *http.Response, status int) string {
		t.Helper()
		if resp.StatusCode != status {
			t.Errorf("status %d, want %d", resp.StatusCode, status)
		}
		return resp.Header.Get("ETag")
	}
	first := wants(put(`{"step":1}`, "If-None-Match", "*"), 200)
	wants(put(`2`, "If-None-Match", "*"), 409)
	second := wants(put(`[2]`, "If-Match", first), 200)
	if first == second || first == "" {
		t.Errorf("versions %s and %s", first, second)
	}
	wants(put(`3`, "If-Match", first), 409)
	for _, bad := range [][]string{
		{"If-Match", "1"}, {"If-Match", `"x"`}, {"If-Match", `W/"1"`}, {"If-Match", `"0"`}, {"If-Match", "*"},
		{"If-None-Match", `"1"`}, {"If-Match", second, "If-None-Match", "*"},
	} {
		wants(put(`4`, bad...), 422)
	}
	got := want[api.MemoryEntry](r, 200, "GET", path, "", bearer(ann)...)
	if string(got.Value) != `[2]` || fmt.Sprintf(`"%d"`, got.Version) != second {
		t.Errorf("it remembers %s as %s", got.Value, second)
	}

	var wg sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		wg.Go(func() { statuses[i] = put(`{"writer":true}`, "If-Match", second).StatusCode })
	}
	wg.Wait()
	won := 0
	for _, s := range statuses {
		switch s {
		case 200:
			won++
		case 409:
		default:
			t.Errorf("a writer got %d", s)
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 writers who had seen the same replaced it", won)
	}

	if resp, _ := r.do("DELETE", path, "", append([]string{"If-Match", first}, bearer(ann)...)...); resp.StatusCode != 409 {
		t.Errorf("an old version was deleted: %d", resp.StatusCode)
	}
	list := want[api.MemoryList](r, 200, "GET", "/v1/sessions/current/memory", "", bearer(ann)...)
	if len(list.Items) != 1 || list.Items[0].Key != "plan" || list.Items[0].Size != len(`{"writer":true}`) {
		t.Errorf("listed %+v", list.Items)
	}
	if resp, _ := r.do("DELETE", path, "", bearer(ann)...); resp.StatusCode != 204 {
		t.Errorf("deleted: %d", resp.StatusCode)
	}
	r.problem(404, "not-found", "GET", path, "", bearer(ann)...)
}
