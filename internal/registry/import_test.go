package registry_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
)

// write returns the path of a new file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func importFile(t *testing.T, r *registry.Registry, path string) {
	t.Helper()
	if err := r.ImportFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
}

// inForce returns the organisation's document.
func inForce(t *testing.T, r *registry.Registry) registry.PolicyVersion {
	t.Helper()
	v, err := r.PolicyAt(t.Context(), admin, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheTeamsFileIsImportedAndDecides(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	importFile(t, r, "../policy/testdata/seed/team.yaml")
	lead := policy.Caller{UserID: "lena", Roles: []policy.Role{"team-developer"}}
	verified := lead
	verified.DeviceID, verified.Trust = "d", policy.Verified
	guest := policy.Caller{UserID: "gus", Roles: []policy.Role{policy.ReadOnly}, DeviceID: "d", Trust: policy.Trusted}
	readConfig := policy.Request{Permission: policy.ConfigRead}
	local := admin
	local.Local = true
	for what, c := range map[string]struct {
		caller  policy.Caller
		asks    policy.Request
		allowed bool
	}{
		"a team developer on a verified device":        {verified, submit, true},
		"what the role adds to developer":              {verified, readConfig, true},
		"a team developer without a device":            {lead, submit, false},
		"a role that is not listed":                    {guest, readConfig, false},
		"an administrator on the server's own machine": {local, submit, true},
	} {
		if d := decide(t, r, c.caller, c.asks); d.Allowed != c.allowed || d.PolicyVersion != 1 {
			t.Errorf("%s: %+v", what, d)
		}
	}
	v, err := r.PolicyAt(t.Context(), local, "", 0)
	if err != nil || v.Version != 1 || v.Author != "file" || v.Origin != registry.OriginFile || !strings.Contains(v.Document, "team-developer") {
		t.Errorf("imported %+v, %v", v, err)
	}
	if got := audited(t, pool); len(got) != 1 || !strings.HasPrefix(got[0], `policy.update organization {"version":1,"weakens":[`) {
		t.Errorf("the audit log holds %q", got)
	}
}

func TestAFileIsImportedOnceForEachOfItsTexts(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	path := write(t, "security.yaml", noDevs)
	var servers sync.WaitGroup
	for range 6 {
		servers.Go(func() { importFile(t, over(pool, registry.Options{}), path) })
	}
	servers.Wait()
	if v := inForce(t, r); v.Version != 1 {
		t.Errorf("six servers at once made %d versions", v.Version)
	}
	putPolicy(t, r, "", noOthers)
	importFile(t, r, path)
	if v := inForce(t, r); v.Document != noOthers {
		t.Errorf("the file took back what came by the API since: %+v", v)
	}
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	importFile(t, r, path)
	if v := inForce(t, r); v.Version != 3 || v.Document != "{}\n" {
		t.Errorf("an edited file is not in force: %+v", v)
	}
	importFile(t, r, filepath.Join(t.TempDir(), "security.yaml"))
	if v := inForce(t, r); v.Version != 3 {
		t.Errorf("no file: %+v", v)
	}
}

func TestAFileThatCannotBeUsedIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	path := write(t, "security.yaml", "enforceTrust: yes\nroles:\n  boss: {inherits: nobody}\n")
	err := r.ImportFile(t.Context(), path)
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	if len(lines) != 2 || !strings.HasPrefix(lines[0], path+":1:15: ") || !strings.HasPrefix(lines[1], path+":3:20: ") {
		t.Errorf("got %v", err)
	}
	if err := r.ImportFile(t.Context(), t.TempDir()); err == nil {
		t.Error("a directory was taken for a file")
	}
	if got := audited(t, pool); !slices.Equal(got, nil) {
		t.Errorf("something was done: %q", got)
	}
	unknown := over(pool, registry.Options{DefaultRoles: []policy.Role{"clerk"}})
	if err := unknown.ImportFile(t.Context(), "no such file"); err == nil || !strings.Contains(err.Error(), `defaultRoles: "clerk" is not one of the roles`) {
		t.Errorf("default roles that nobody defines: %v", err)
	}
	importFile(t, unknown, write(t, "security.yaml", clerks))
}
