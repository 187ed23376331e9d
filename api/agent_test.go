package api_test

import (
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

func TestAnAgentsTokenNamesItsTaskAndHidesItsLease(t *testing.T) {
	t.Parallel()
	const task, lease = "0190b8a1-2345-7678-9abc-def012345678", "6f9619ff-8b86-4011-b42d-00c04fc964ff"
	token := api.AgentToken(task, lease)
	if id, ok := api.TaskOfAgentToken(token); !ok || id != task {
		t.Errorf("%s is for task %q", token, id)
	}
	if token != api.AgentToken(strings.ToUpper(task), strings.ToUpper(lease)) {
		t.Error("it depends on how ids are written")
	}
	seen := map[string]bool{token: true}
	for _, other := range []string{
		api.AgentToken(lease, task), api.AgentToken(task, task), api.AgentToken(lease, lease), api.AgentToken(task, ""), api.AgentToken("", lease),
	} {
		if seen[other] {
			t.Errorf("%s is the token of two leases", other)
		}
		seen[other] = true
	}
	for name, bad := range map[string]string{
		"nothing": "", "only the prefix": api.AgentTokenPrefix, "another prefix": "ccl_" + token[4:], "cut short": token[:len(token)-1],
		"too long": token + "A", "no task": api.AgentToken("", lease), "not base64": token[:20] + "!" + token[21:],
	} {
		if id, ok := api.TaskOfAgentToken(bad); ok {
			t.Errorf("%s is taken for a token of task %s", name, id)
		}
	}
}
