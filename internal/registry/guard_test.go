package registry_test

import (
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
)

// store puts a document in force as a later version of the server would, which
// accepts others.
func store(t *testing.T, r *registry.Registry, projectID string, version int64, document string) {
	t.Helper()
	pool := registry.PoolOf(r)
	exec(t, pool, `INSERT INTO policy_documents (project_id, version, author, comment, origin, document, hash)
		VALUES ($1, $2, 'later', '', 'api', $3::text, sha256(convert_to($3::text, 'UTF8')))`, projectID, version, document)
	exec(t, pool, `INSERT INTO policies (project_id, version) VALUES ($1, $2)
		ON CONFLICT (project_id) DO UPDATE SET version = excluded.version`, projectID, version)
	r.Forget()
}

func TestAProjectsDocumentThatCannotBeUsedClosesTheProject(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	putPolicy(t, r, "", clerks)
	putPolicy(t, r, "shop", "{}")
	for _, document := range []string{"quantumTrust: true\n", "allowedRoles: [nobody-knows]\n"} {
		v, err := r.PolicyAt(t.Context(), admin, "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		store(t, r, "shop", v.Version+1, document)
		for _, c := range []policy.Caller{admin, in("shop", admin), in("shop", dev), in("shop", clerk)} {
			for _, q := range []policy.Request{
				submitIn("shop"),
				{Permission: policy.AdminAll, ProjectID: "shop"},
				{Permission: policy.Authenticated, ProjectID: "shop", Opening: true},
			} {
				if d := decide(t, r, c, q); d.Allowed || d.Layer != policy.LayerProject ||
					!strings.Contains(d.Reason, "this project's policy cannot be used: .coderClaw/security.yaml:1:") {
					t.Errorf("%s asks for %s: %+v", c.UserID, q.Permission, d)
				}
			}
		}
		if d := decide(t, r, in("bank", dev), submitIn("bank")); !d.Allowed {
			t.Errorf("another project suffers: %+v", d)
		}
		_, err = r.PutPolicy(t.Context(), in("shop", clerk), "shop", []byte("{}"), nil, "")
		refused(t, "mended by a clerk", err, fault.Forbidden, "admin:all is needed")
		_, err = r.PolicyAt(t.Context(), in("shop", clerk), "shop", 0)
		refused(t, "read by a clerk", err, fault.Forbidden, "admin:all is needed")
		if v, err := r.PolicyAt(t.Context(), admin, "shop", 0); err != nil || v.Document != document {
			t.Errorf("read by an administrator: %+v, %v", v, err)
		}
		mended, err := r.PutPolicy(t.Context(), admin, "shop", []byte("deniedUsers: [eve]"), nil, "")
		if err != nil || mended.Version != v.Version+2 {
			t.Errorf("mended by an administrator: %+v, %v", mended, err)
		}
		if d := decide(t, r, in("shop", dev), submitIn("shop")); !d.Allowed {
			t.Errorf("after that: %+v", d)
		}
	}
}

func TestAnOrganisationsDocumentThatCannotBeUsedClosesEverything(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	putPolicy(t, r, "shop", "{}")
	store(t, r, "", 1, "roles: {boss: {grants: everything}}\n")
	for _, projectID := range []string{"", "shop", "bank"} {
		if d := decide(t, r, admin, submitIn(projectID)); d.Allowed || d.Layer != policy.LayerOrganization || d.PolicyVersion != 1 ||
			!strings.Contains(d.Reason, `version 1 of the organisation's policy cannot be used: security.yaml:1:16: unknown key "grants"`) {
			t.Errorf("in %q: %+v", projectID, d)
		}
	}
	_, err := r.PutPolicy(t.Context(), admin, "", []byte("{}"), nil, "")
	refused(t, "mended through the API", err, fault.Forbidden, "cannot be used")
	_, _, err = r.PutAgent(t.Context(), admin, agent("a", "x"))
	refused(t, "a new agent", err, fault.Forbidden, "cannot be used")
	if p, err := r.Policy(t.Context(), ""); err != nil || p.Accepts(policy.Local) || len(p.Permissions(admin)) > 0 {
		t.Errorf("it accepts credentials, or grants something: %v", err)
	}
	if err := r.ImportFile(t.Context(), write(t, "security.yaml", "{}\n")); err != nil {
		t.Fatal(err)
	}
	if d := decide(t, r, admin, submitIn("shop")); !d.Allowed || d.PolicyVersion != 2 {
		t.Errorf("after the operator mended it: %+v", d)
	}
}

func TestWeakeningNeedsAdminAll(t *testing.T) {
	t.Parallel()
	recorder := &denials{}
	r := over(pgtest.DB(t), registry.Options{Recorder: recorder})
	strict := clerks + "deniedUsers: [eve]\n"
	putPolicy(t, r, "", strict)
	putPolicy(t, r, "shop", noDevs)
	strictest := strict + "deniedRoles: [ci]\n"
	if _, err := r.PutPolicy(t.Context(), clerk, "", []byte(strictest), nil, ""); err != nil {
		t.Errorf("a clerk narrows: %v", err)
	}
	for name, c := range map[string]struct{ projectID, document, reason string }{
		"lets someone in":       {"", clerks + "deniedRoles: [ci]\n", "the document weakens the policy: deniedUsers no longer has eve"},
		"turns a login on":      {"", strictest + "identity: {google: {clientId: x}}\n", "the document weakens the policy: identity.google is new"},
		"turns a login off":     {"", strictest + "identity: {providers: [github]}\n", "the document changes whose credentials are accepted"},
		"gives itself a right":  {"", strings.Replace(strictest, "config:write", "config:write, admin:all", 1), "nobody can give away what they do not hold: roles[clerk] grants admin:all"},
		"lets someone in there": {"shop", "{}", "the document weakens the policy: deniedUsers no longer has dev"},
	} {
		_, err := r.PutPolicy(t.Context(), in(c.projectID, clerk), c.projectID, []byte(c.document), nil, "")
		refused(t, "a clerk "+name, err, fault.Forbidden, c.reason)
		if !strings.Contains(recorder.last(), c.reason) || !strings.HasPrefix(recorder.last(), "policy.update policy ") {
			t.Errorf("a clerk %s: recorded is %q", name, recorder.last())
		}
		if name == "gives itself a right" || name == "turns a login off" {
			continue // below, or no way back for ann
		}
		if _, err := r.PutPolicy(t.Context(), admin, c.projectID, []byte(c.document), nil, ""); err != nil {
			t.Errorf("an administrator %s: %v", name, err)
		}
		if _, err := r.PutPolicy(t.Context(), admin, c.projectID, []byte(map[string]string{"": strictest, "shop": noDevs}[c.projectID]), nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.Rollback(t.Context(), clerk, "", 1, "")
	refused(t, "a clerk rolls back to something weaker", err, fault.Forbidden, "deniedRoles no longer has ci")
	limited := admin
	limited.Scopes = []policy.Permission{policy.ConfigWrite}
	_, err = r.PutPolicy(t.Context(), limited, "", []byte("{}"), nil, "")
	refused(t, "an administrator's limited key weakens", err, fault.Forbidden, "limited to config:write")
}

func TestNobodyPutsADocumentUnderWhichTheyCouldNotGoOn(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	ann := policy.Caller{UserID: "local:ann", SessionID: "s", Roles: []policy.Role{policy.Admin}, AllProjects: true}
	trusted := ann
	trusted.DeviceID, trusted.Trust = "d", policy.Verified
	for name, c := range map[string]struct {
		caller              policy.Caller
		projectID, document string
		reason              string
	}{
		"denies itself":                {ann, "", "deniedUsers: ['local:ann']", "local:ann is denied"},
		"is not in the roles":          {ann, "shop", "allowedRoles: [developer]", "one of the roles developer is needed"},
		"has no device":                {ann, "", "enforceTrust: true", "needs a verified device"},
		"could not open a session":     {trusted, "", "enforceTrust: true\ndeviceTrust: {minimumLevel: trusted}", "opening a session needs a trusted device"},
		"could not log in":             {ann, "", "identity: {providers: [oidc]}", "identity provider local would be off"},
		"is kept out by a rule":        {ann, "", "customRules: [{name: none, expression: 'permission != \"config:write\"'}]", "rule none does not hold"},
		"holds its device's level":     {trusted, "", "enforceTrust: true", ""},
		"leaves the login that it has": {ann, "", "identity: {providers: [local]}", ""},
	} {
		_, err := r.PutPolicy(t.Context(), c.caller, c.projectID, []byte(c.document), nil, "")
		if c.reason != "" {
			refused(t, name, err, fault.Conflict, "you could not change it back: ")
			refused(t, name, err, fault.Conflict, c.reason)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.PutPolicy(t.Context(), c.caller, c.projectID, []byte("{}"), nil, ""); err != nil {
			t.Errorf("%s, and takes it back: %v", name, err)
		}
	}
}

func TestAnOrganisationsDocumentLeavesThoseOfProjectsUsable(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	putPolicy(t, r, "", clerks)
	putPolicy(t, r, "shop", "allowedRoles: [clerk, admin]\n")
	putPolicy(t, r, "bank", "allowedRoles: [developer, admin]\n")
	_, err := r.PutPolicy(t.Context(), admin, "", []byte("{}"), nil, "")
	refused(t, "a role is taken away that a project names", err, fault.Conflict, `project shop: .coderClaw/security.yaml:1:16: allowedRoles: "clerk"`)
	putPolicy(t, r, "shop", "allowedRoles: [admin]\n")
	putPolicy(t, r, "", "{}")
}

func TestNothingOfAPolicyCrossesProjects(t *testing.T) {
	t.Parallel()
	recorder := &denials{}
	r := over(pgtest.DB(t), registry.Options{Recorder: recorder})
	putPolicy(t, r, "", clerks)
	putPolicy(t, r, "shop", "{}")
	read := func(c policy.Caller, projectID string) []error {
		_, list := r.PolicyVersions(t.Context(), c, projectID, 0, 10)
		_, at := r.PolicyAt(t.Context(), c, projectID, 0)
		_, diff := r.DiffPolicies(t.Context(), c, projectID, 0, 0)
		return []error{list, at, diff}
	}
	written := func(c policy.Caller, projectID string) []error {
		_, put := r.PutPolicy(t.Context(), c, projectID, []byte("{}"), nil, "")
		_, back := r.Rollback(t.Context(), c, projectID, 1, "")
		return []error{put, back}
	}
	for _, c := range []policy.Caller{in("bank", admin), in("bank", clerk), clerk, dev, {}} {
		for _, err := range append(read(c, "shop"), written(c, "shop")...) {
			refused(t, c.UserID+" of "+c.ProjectID+" asks for the shop's", err, fault.NotFound, `project "shop" has no such policy document`)
		}
	}
	if got := recorder.last(); !strings.HasPrefix(got, "policy.rollback policy shop: ") {
		t.Errorf("recorded last is %q", got)
	}
	for _, c := range []policy.Caller{in("shop", admin), in("shop", clerk)} {
		for _, err := range append(read(c, ""), written(c, "")...) {
			refused(t, c.UserID+" of the shop asks for the organisation's", err, fault.Forbidden, "confined to project shop")
		}
		for _, err := range append(read(c, "shop"), written(c, "shop")...) {
			if err != nil {
				t.Errorf("%s of the shop asks for its own: %v", c.UserID, err)
			}
		}
		_, _, err := r.PutAgent(t.Context(), c, agent("a", "x"))
		refused(t, "an agent for all", err, fault.Forbidden, "confined to project shop")
		_, _, err = r.PutSkill(t.Context(), c, skill("s"))
		refused(t, "a skill for all", err, fault.Forbidden, "confined to project shop")
		refused(t, "an agent's end", r.DeleteAgent(t.Context(), c, "a"), fault.Forbidden, "confined to project shop")
		refused(t, "a skill's end", r.DeleteSkill(t.Context(), c, "s"), fault.Forbidden, "confined to project shop")
	}
	for _, err := range read(in("shop", dev), "shop") {
		refused(t, "a developer reads the shop's", err, fault.Forbidden, "config:read is needed")
	}
	for _, err := range read(policy.Caller{UserID: "x", Roles: []policy.Role{policy.ReadOnly}, AllProjects: true}, "a\x00b") {
		refused(t, "no id of a project", err, fault.NotFound, "no such policy document")
	}
}
