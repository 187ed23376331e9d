package httpapi

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"

	"github.com/coderclaw/runtime/api"
)

//go:embed docs
var docsFiles embed.FS

// APIVersion is that of the contract, which only grows; it is not the server's.
const APIVersion = "1.0.0"

func newConfig() huma.Config {
	cfg := huma.DefaultConfig("CoderClaw runtime", APIVersion)
	cfg.Info.Description = "A control plane for AI coding agents: submit tasks, watch workers run them, keep every step."
	cfg.Info.License = &huma.License{Name: "MIT", URL: "https://opensource.org/license/mit"}
	cfg.Servers = []*huma.Server{{URL: "/", Description: "The server that serves this document."}}
	cfg.Tags = []*huma.Tag{
		{Name: "Tasks", Description: "Submit, list, change and cancel tasks."},
		{Name: "Artifacts", Description: "Files that tasks leave behind."},
		{Name: "People", Description: "What agents ask of people: to answer, to approve and to deny."},
		{Name: "Schedules", Description: "Submit tasks again and again."},
		{Name: "Streams", Description: "Follow tasks as they run (Server-Sent Events)."},
		{Name: "Registry", Description: "Agents and skills."},
		{Name: "Sessions", Description: "Log in and out, and what a session remembers."},
		{Name: "Access", Description: "Users, roles and API keys."},
		{Name: "Devices", Description: "The machines that users work on, and how far they are trusted."},
		{Name: "Policy", Description: "Who may do what: the organisation's document, the projects', and what they decide."},
		{Name: "Audit", Description: "The record of every decision, and the proof that it is whole."},
		{Name: "System", Description: "The server itself."},
	}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "Not needed on a loopback server with security.requireAuth false."},
	}
	// Problems within answers are those of the contract, too.
	cfg.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[Problem](), reflect.TypeFor[api.Problem]())
	// The document is rendered below, and the docs page is our own:
	// huma's handlers render lazily without a lock, and its page loads scripts
	// from another host.
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", "", nil
	format := huma.Format{Marshal: encodeJSON, Unmarshal: decodeJSON}
	cfg.Formats = map[string]huma.Format{"application/json": format, "json": format}
	return cfg
}

// describeObjects says of the fields that hold any JSON object that they are
// objects, which their Go type does not tell.
func describeObjects(schemas map[string]*huma.Schema) {
	for name, field := range map[string]string{
		"NewTask": "metadata", "Task": "metadata", "TaskPatch": "data", "Event": "data", "NewDevice": "key", "AuditEntry": "details",
	} {
		p := schemas[name].Properties[field]
		p.Type, p.AdditionalProperties = huma.TypeObject, true
		p.PrecomputeMessages()
	}
}

// OpenAPI renders the description of all operations as YAML, in the order that
// a reader expects.
func (s *Server) OpenAPI() ([]byte, error) { return orderedYAML(s.api.OpenAPI().MarshalJSON()) }

// orderedYAML turns a JSON document, unless it could not be had, into YAML that
// begins with what it is.
func orderedYAML(doc []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("render the OpenAPI document: %w", err)
	}
	var fields yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(doc, &fields, yaml.UseOrderedMap()); err != nil {
		return nil, fmt.Errorf("render the OpenAPI document: %w", err)
	}
	var ordered yaml.MapSlice
	for _, name := range []string{"openapi", "info", "servers", "tags", "security", "paths", "components"} {
		for _, f := range fields {
			if f.Key == name {
				ordered = append(ordered, f)
			}
		}
	}
	if len(ordered) != len(fields) {
		return nil, fmt.Errorf("render the OpenAPI document: it has %d fields, %d of them known", len(fields), len(ordered))
	}
	var b bytes.Buffer
	b.WriteString("# Generated from the operations by `coderclawd openapi`. Do not edit.\n")
	if err := yaml.NewEncoder(&b, yaml.Indent(2), yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true)).Encode(ordered); err != nil {
		return nil, fmt.Errorf("render the OpenAPI document: %w", err)
	}
	return b.Bytes(), nil
}

// serveDocuments serves the OpenAPI document in its forms and the page that
// shows it.
func (s *Server) serveDocuments() error {
	doc := s.api.OpenAPI()
	for path, d := range map[string]struct {
		contentType string
		render      func() ([]byte, error)
	}{
		"/openapi.json":     {"application/vnd.oai.openapi+json;version=3.1", doc.MarshalJSON},
		"/openapi.yaml":     {"application/vnd.oai.openapi;version=3.1", s.OpenAPI},
		"/openapi-3.0.json": {"application/vnd.oai.openapi+json;version=3.0", doc.Downgrade},
		"/openapi-3.0.yaml": {"application/vnd.oai.openapi;version=3.0", func() ([]byte, error) { return orderedYAML(doc.Downgrade()) }},
	} {
		// Most servers are never asked, and rendering takes longer than the
		// rest of the start.
		rendered := sync.OnceValues(d.render)
		s.router.Get(path, func(w http.ResponseWriter, r *http.Request) {
			text, err := rendered()
			if err != nil {
				writeProblem(w, r, problemOf(r.Context(), s.log, fmt.Errorf("render %s: %w", path, err)))
				return
			}
			w.Header().Set("Content-Type", d.contentType)
			_, _ = w.Write(text) // the client may be gone
		})
	}
	files, err := fs.Sub(docsFiles, "docs")
	if err != nil {
		return fmt.Errorf("open the docs page: %w", err)
	}
	page := http.StripPrefix("/docs/", http.FileServerFS(files))
	s.router.Get("/docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently).ServeHTTP)
	s.router.Get("/docs/*", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'")
		w.Header().Set("Cache-Control", "no-cache")
		if strings.HasSuffix(r.URL.Path, "/") && r.URL.Path != "/docs/" {
			s.notFound(w, r) // no listings of directories
			return
		}
		page.ServeHTTP(w, r)
	})
	return nil
}
