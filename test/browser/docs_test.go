// Package browser opens the server's pages in a real browser.
package browser

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/test/server"
)

// chromium finds a Chromium, by the names that systems give it.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("install chromium")
	return ""
}

func TestTheDocsPageWorksWithoutAnyOtherHost(t *testing.T) {
	t.Parallel()
	url := server.Start(t)
	cmd := exec.CommandContext(t.Context(), "node", "docs.mjs", url, chromium(t))
	cmd.Env = server.Environment()
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var found struct {
		Operations, Requests, Complaints []string
		Backgrounds                      map[string]string
		Tried                            string
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	document, err := os.ReadFile(server.Root + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range regexp.MustCompile(`operationId: (\w+)`).FindAllStringSubmatch(string(document), -1) {
		if !slices.Contains(found.Operations, id[1]) {
			t.Errorf("the page does not show %s; it shows %v", id[1], found.Operations)
		}
	}
	for _, request := range found.Requests {
		if !strings.HasPrefix(request, url+"/") && !strings.HasPrefix(request, "data:") {
			t.Errorf("the page asked another host: %s", request)
		}
	}
	if len(found.Complaints) > 0 {
		t.Errorf("the browser complained: %q", found.Complaints)
	}
	if found.Tried != "200" {
		t.Errorf("trying getStatus out answered %q", found.Tried)
	}
	if found.Backgrounds["light"] == found.Backgrounds["dark"] {
		t.Errorf("light and dark look alike: %v", found.Backgrounds)
	}
}
