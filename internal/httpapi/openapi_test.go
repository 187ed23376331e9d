package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coderclaw/runtime/internal/httpapi"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/stream"
)

var update = flag.Bool("update", false, "write openapi.yaml anew")

func openAPI(t *testing.T) []byte {
	t.Helper()
	s, err := httpapi.New(httpapi.Options{
		Bus: &stream.Memory{}, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := s.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheCommittedOpenAPIDocumentIsTheServersOwn(t *testing.T) {
	t.Parallel()
	const file = "../../openapi.yaml"
	want := openAPI(t)
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("openapi.yaml is stale (%v): go test ./internal/httpapi -run OpenAPI -update", err)
	}
}

func TestTheOpenAPIDocumentIsServedInEachOfItsForms(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for path, c := range map[string]struct {
		contentType string
		parse       func([]byte, any) error
		version     string
	}{
		"/openapi.json":     {"application/vnd.oai.openapi+json;version=3.1", json.Unmarshal, "3.1.0"},
		"/openapi.yaml":     {"application/vnd.oai.openapi;version=3.1", unmarshalYAML, "3.1.0"},
		"/openapi-3.0.json": {"application/vnd.oai.openapi+json;version=3.0", json.Unmarshal, "3.0.3"},
		"/openapi-3.0.yaml": {"application/vnd.oai.openapi;version=3.0", unmarshalYAML, "3.0.3"},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			resp, text := r.do("GET", path, "")
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != c.contentType {
				t.Errorf("%s of type %q", resp.Status, resp.Header.Get("Content-Type"))
			}
			var doc struct {
				OpenAPI string                    `json:"openapi" yaml:"openapi"`
				Paths   map[string]map[string]any `json:"paths" yaml:"paths"`
			}
			if err := c.parse([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			if doc.OpenAPI != c.version || doc.Paths["/v1/tasks"]["post"] == nil {
				t.Errorf("it is of version %s with %d paths", doc.OpenAPI, len(doc.Paths))
			}
			if _, again := r.do("GET", path, ""); again != text {
				t.Error("it is another one the second time")
			}
		})
	}
}

func unmarshalYAML(text []byte, v any) error { return yaml.Unmarshal(text, v) }

func TestEveryOperationNamesItsPermissionAndItsErrors(t *testing.T) {
	t.Parallel()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string         `yaml:"operationId"`
			Summary     string         `yaml:"summary"`
			Permission  string         `yaml:"x-permission"`
			Responses   map[string]any `yaml:"responses"`
		} `yaml:"paths"`
	}
	text := openAPI(t)
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{string(policy.Public): true, string(policy.Authenticated): true, string(policy.Admitted): true, string(policy.Work): true}
	for _, p := range policy.Permissions {
		known[string(p)] = true
	}
	operations := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			operations++
			if !known[op.Permission] || op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s: permission %q, id %q, summary %q", method, path, op.Permission, op.OperationID, op.Summary)
			}
			// Logins are open to anyone, and refuse bad credentials.
			if _, ok := op.Responses["401"]; ok == (op.Permission == string(policy.Public)) && !strings.HasPrefix(path, "/v1/sessions") && !strings.HasPrefix(path, "/v1/logins") {
				t.Errorf("%s %s with permission %q documents 401: %v", method, path, op.Permission, ok)
			}
			if _, ok := op.Responses["500"]; !ok {
				t.Errorf("%s %s does not document 500", method, path)
			}
		}
	}
	if operations < 15 {
		t.Errorf("only %d operations", operations)
	}
	for _, wrong := range []string{"$schema", "- \"null\"", "unpkg"} {
		if strings.Contains(string(text), wrong) {
			t.Errorf("the document contains %s", wrong)
		}
	}
}
