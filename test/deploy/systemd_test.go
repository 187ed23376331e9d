package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit returns the settings of the systemd unit, in order, by name.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/systemd/coderclawd.service"))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

func TestUnderSystemdWhatIsWrittenIsKeptAndSecretsAreCredentials(t *testing.T) {
	t.Parallel()
	settings := unit(t)
	var credentials []string
	for _, c := range settings["LoadCredential"] {
		name, _, _ := strings.Cut(c, ":")
		credentials = append(credentials, name)
	}
	var kept []string
	for _, directories := range settings["StateDirectory"] {
		kept = append(kept, strings.Fields(directories)...)
	}
	named := map[string]bool{}
	for _, e := range settings["Environment"] {
		variable, value, _ := strings.Cut(e, "=")
		named[variable] = true
		if credential, ok := strings.CutPrefix(value, "%d/"); ok && !slices.Contains(credentials, credential) {
			t.Errorf("%s: there is no credential %s", variable, credential)
		}
		if path, ok := strings.CutPrefix(value, "%S/"); ok && !slices.ContainsFunc(kept, func(dir string) bool {
			return path == dir || strings.HasPrefix(path, dir+"/")
		}) {
			t.Errorf("%s: %s is in none of the directories %v that may be written", variable, value, kept)
		}
	}
	for _, variable := range []string{
		"CODERCLAW_TOKEN_FILE", "CODERCLAW_DATABASE_URL_FILE", "CODERCLAW_DATA_DIR", "CODERCLAW_WORKSPACE_ROOT",
		"CODERCLAW_AUDIT_CHECKPOINT_FILE", "CODERCLAW_AUDIT_KEY_FILE",
	} {
		if !named[variable] {
			t.Errorf("%s is not set", variable)
		}
	}
}
