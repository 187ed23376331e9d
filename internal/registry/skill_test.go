package registry_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
)

// skill returns a valid definition.
func skill(id string) registry.Skill {
	return registry.Skill{
		ID: id, Name: "A skill", Description: "Does things.", Version: "1.2.3",
		RequiredPermissions: []string{"skill:execute"}, Enabled: true,
	}
}

func putSkill(t *testing.T, r *registry.Registry, sk registry.Skill) (created bool) {
	t.Helper()
	_, created, err := r.PutSkill(t.Context(), admin, sk)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func using(skillID string) policy.Request {
	return policy.Request{Permission: policy.TaskSubmit, Action: "task.submit", SkillID: skillID}
}

func TestSkillsOfTheAPIComeAndGo(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	deploy := skill("deploy")
	if !putSkill(t, r, deploy) {
		t.Error("a new skill does not count as created")
	}
	deploy.Name = ""
	if putSkill(t, r, deploy) {
		t.Error("a replaced skill counts as created")
	}
	got, err := r.Skill(t.Context(), "deploy")
	if err != nil || got.Name != "deploy" || got.Description != deploy.Description || got.Version != "1.2.3" || !got.Enabled || got.Dangerous ||
		!slices.Equal(got.RequiredPermissions, deploy.RequiredPermissions) {
		t.Errorf("got %+v, %v", got, err)
	}
	all, err := r.Skills(t.Context())
	if err != nil || !slices.IsSortedFunc(all, func(a, b registry.Skill) int { return strings.Compare(a.ID, b.ID) }) ||
		!slices.ContainsFunc(all, func(sk registry.Skill) bool { return sk.ID == "deploy" }) {
		t.Errorf("the list is %+v, %v", all, err)
	}
	shipper := agent("shipper", "x")
	shipper.Skills = []string{"deploy", "file-read"}
	put(t, r, shipper)

	hidden := skill("file-read")
	hidden.Enabled = false
	if putSkill(t, r, hidden) {
		t.Error("a built-in skill counts as created")
	}
	for _, id := range []string{"deploy", "file-read"} {
		if err := r.DeleteSkill(t.Context(), admin, id); err != nil {
			t.Error(err)
		}
	}
	if sk, err := r.Skill(t.Context(), "file-read"); err != nil || !sk.Enabled || sk.Name != "Read files" {
		t.Errorf("the built-in skill is not back: %+v, %v", sk, err)
	}
	refused(t, "deleted twice", r.DeleteSkill(t.Context(), admin, "deploy"), fault.NotFound, `no skill "deploy"`)
	refused(t, "a built-in skill", r.DeleteSkill(t.Context(), admin, "file-read"), fault.Conflict, "built in")
	refused(t, "no id", r.DeleteSkill(t.Context(), admin, "a\x00b"), fault.NotFound, "no skill")
	if got, want := audited(t, pool), []string{
		"skill.put deploy", "skill.put deploy", "agent.put shipper", "skill.put file-read", "skill.delete deploy", "skill.delete file-read",
	}; !slices.Equal(got, want) {
		t.Errorf("the audit log holds %q", got)
	}
}

func TestPutSkillNamesEveryFaultyField(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	_, _, err := r.PutSkill(t.Context(), admin, registry.Skill{
		ID: "-", Name: "a\nb", Version: strings.Repeat("1", 65), RequiredPermissions: []string{"skill:execute", "task:destroy"},
	})
	got := fields(err)
	for i, f := range got {
		got[i], _, _ = strings.Cut(f, " ")
	}
	if want := []string{"body.description", "body.name", "body.requiredPermissions[1]", "body.version", "path.id"}; !slices.Equal(got, want) {
		t.Errorf("refused %v (%v)", got, err)
	}
}

func TestADefinitionDecidesWhoMayUseASkill(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	verified := dev
	verified.DeviceID, verified.Trust = "d", policy.Verified
	steer := skill("steer")
	steer.RequiredPermissions = []string{"config:write"}
	putSkill(t, r, steer)
	off := skill("off")
	off.Enabled = false
	putSkill(t, r, off)
	exec(t, registry.PoolOf(r), `INSERT INTO skills (id, definition) VALUES ('odd', '{"name": 3, "enabled": true}')`)
	r.Forget()
	for _, c := range []struct {
		caller policy.Caller
		skill  string
		reason string // of a denial
	}{
		{dev, "file-read", ""},
		{dev, "shell-exec", "the dangerous skill shell-exec needs a verified device"},
		{verified, "shell-exec", ""},
		{verified, "steer", "config:write is needed"},
		{admin, "steer", ""},
		{admin, "off", "skill off is disabled"},
		{admin, "odd", "needs a verified device"},
		{admin, "teleport", `there is no skill "teleport"`},
		{policy.Caller{}, "teleport", "nobody is known to ask"},
	} {
		d := decide(t, r, c.caller, using(c.skill))
		if d.Allowed != (c.reason == "") || !strings.Contains(d.Reason, c.reason) {
			t.Errorf("%s uses %s: %+v", c.caller.UserID, c.skill, d)
		}
	}
	trusted := admin
	trusted.DeviceID, trusted.Trust = "d", policy.Trusted
	if d := decide(t, r, trusted, using("odd")); d.Allowed || d.Reason != "skill odd is disabled" {
		t.Errorf("a definition that cannot be read: %+v", d)
	}

	putPolicy(t, r, "", "organizationPolicy: {deniedSkills: [web-fetch]}\n")
	q := submit
	q.AgentID = "code-modifier"
	if d := decide(t, r, dev, q); !d.Allowed {
		t.Errorf("an agent without the denied skill: %+v", d)
	}
	fetcher := agent("fetcher", "x")
	fetcher.Skills = []string{"web-fetch"}
	put(t, r, fetcher)
	q.AgentID = "fetcher"
	if d := decide(t, r, dev, q); d.Allowed || d.Layer != policy.LayerOrganization {
		t.Errorf("an agent with the denied skill: %+v", d)
	}
}

func TestToAskForLessASkillNeedsAdminAll(t *testing.T) {
	t.Parallel()
	recorder := &denials{}
	r := over(pgtest.DB(t), registry.Options{Recorder: recorder})
	putPolicy(t, r, "", clerks)
	change := func(what string, sk registry.Skill, allowed bool) {
		t.Helper()
		_, _, err := r.PutSkill(t.Context(), clerk, sk)
		switch {
		case allowed && err != nil:
			t.Errorf("%s: %v", what, err)
		case !allowed:
			refused(t, what, err, fault.Forbidden, "would ask for less than it does now: admin:all is needed")
			if !strings.HasPrefix(recorder.last(), "skill.put skill "+sk.ID+": ") {
				t.Errorf("%s: recorded is %q", what, recorder.last())
			}
		}
	}
	sk := skill("deploy")
	change("a new skill", sk, true)
	sk.Dangerous = true
	change("more dangerous", sk, true)
	sk.Dangerous = false
	change("dangerous no more", sk, false)
	sk.Dangerous, sk.RequiredPermissions = true, nil
	change("with nothing required", sk, false)
	sk.RequiredPermissions, sk.Enabled = []string{"config:read", "skill:execute"}, false
	change("with more required, and disabled", sk, true)
	sk.Enabled = true
	change("enabled again", sk, false)
	refused(t, "deleted, to be defined anew", r.DeleteSkill(t.Context(), clerk, "deploy"), fault.Forbidden, "admin:all")
	shell := skill("shell-exec")
	change("a built-in one that is dangerous no more", shell, false)
	shell.Dangerous, shell.Enabled = true, false
	change("a built-in one disabled", shell, true)
	refused(t, "a built-in one brought back", r.DeleteSkill(t.Context(), clerk, "shell-exec"), fault.Forbidden, "admin:all")
	putSkill(t, r, skill("deploy"))
	if err := r.DeleteSkill(t.Context(), admin, "shell-exec"); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeRecordedIsNotDone(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	put(t, r, agent("there", "x"))
	putSkill(t, r, skill("there"))
	putPolicy(t, r, "shop", "{}")
	putPolicy(t, r, "shop", noDevs)
	before := len(audited(t, pool))
	exec(t, owner(t, pool), `REVOKE INSERT ON audit_entries FROM coderclaw_app`)

	_, _, putAgent := r.PutAgent(t.Context(), admin, agent("new", "x"))
	_, _, putSkill := r.PutSkill(t.Context(), admin, skill("new"))
	_, putPolicy := r.PutPolicy(t.Context(), admin, "shop", []byte(noOthers), nil, "")
	_, rollback := r.Rollback(t.Context(), admin, "shop", 1, "")
	for what, err := range map[string]error{
		"put an agent": putAgent, "put a skill": putSkill, "put a policy": putPolicy, "roll a policy back": rollback,
		"delete an agent": r.DeleteAgent(t.Context(), admin, "there"),
		"delete a skill":  r.DeleteSkill(t.Context(), admin, "there"),
		"import a file":   r.ImportFile(t.Context(), write(t, "security.yaml", noDevs)),
	} {
		refused(t, what, err, fault.AuditUnavailable, "nothing was changed")
	}

	get(t, r, "there")
	_, err := r.Agent(t.Context(), "new")
	refused(t, "the agent", err, fault.NotFound, "")
	_, err = r.Skill(t.Context(), "new")
	refused(t, "the skill", err, fault.NotFound, "")
	if _, err := r.Skill(t.Context(), "there"); err != nil {
		t.Error(err)
	}
	if v, err := r.PolicyAt(t.Context(), admin, "shop", 0); err != nil || v.Version != 2 {
		t.Errorf("in force is %+v, %v", v, err)
	}
	_, err = r.PolicyAt(t.Context(), admin, "", 0)
	refused(t, "the organisation's", err, fault.NotFound, "")
	if after := len(audited(t, pool)); after != before {
		t.Errorf("%d entries, %d before", after, before)
	}
}

func TestTheServerCanOnlyAddVersions(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	putPolicy(t, over(pool, registry.Options{}), "", noDevs)
	for _, sql := range []string{
		`UPDATE policy_documents SET author = 'nobody'`, `DELETE FROM policy_documents`, `TRUNCATE policy_documents CASCADE`,
		`DELETE FROM policies`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	_, err := pool.Exec(t.Context(), `INSERT INTO policy_documents (project_id, version, author, comment, origin, document, hash)
		VALUES ('', 2, 'x', '', 'api', 'a text', sha256('another'))`)
	if err == nil || !strings.Contains(err.Error(), "policy_documents_hash_right") {
		t.Errorf("a wrong hash: %v", err)
	}
}
