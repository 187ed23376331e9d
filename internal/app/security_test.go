package app_test

import (
	"testing"

	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// A document that lets nobody in, or only from devices, is no reason for the
// server itself not to read it.
func TestAServerStartsUnderEveryDocument(t *testing.T) {
	t.Parallel()
	for what, text := range map[string]string{
		"only trusted devices": "enforceTrust: true\nminimumTrustLevel: trusted\n",
		"one user":             "allowedUsers: [local:root]\n",
		"one role":             "allowedRoles: [developer]\n",
		"nobody":               "allowedUsers: []\n",
		"no provider":          "identity: {providers: []}\n",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t, "CODERCLAW_DATABASE_URL="+pgtest.EmptyURL(t), "CODERCLAW_REQUIRE_AUTH=true")
			in.config("security.yaml", text)
			in.serving("serve")
		})
	}
}
