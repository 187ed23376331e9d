package app_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/coderclaw/runtime/"

// may says what each package may import of ours and of others, by module. What
// is not listed may not. Tests are free.
var may = map[string]struct{ ours, others string }{
	"api":                                     {"", ""},
	"migrations":                              {"", ""},
	"internal/fault":                          {"", ""},
	"internal/policy":                         {"internal/fault internal/strictyaml", "cel.dev/cel-go"},
	"internal/edge":                           {"internal/fault", "github.com/go-chi/chi/v5 github.com/go-chi/cors github.com/hashicorp/golang-lru/v2 golang.org/x/crypto golang.org/x/time"},
	"internal/audit":                          {"internal/fault internal/policy internal/postgres", "github.com/jackc/pgx/v5 github.com/google/uuid golang.org/x/mod"},
	"internal/identity/jws":                   {"internal/fault", ""},
	"internal/identity/token":                 {"internal/fault internal/identity/jws", "github.com/golang-jwt/jwt/v5 golang.org/x/crypto golang.org/x/text"},
	"internal/identity/dpop":                  {"internal/fault internal/identity/jws", "github.com/golang-jwt/jwt/v5 filippo.io/edwards25519"},
	"internal/identity/provider":              {"internal/fault", "github.com/coreos/go-oidc/v3 github.com/go-jose/go-jose/v4 github.com/hashicorp/golang-lru/v2 code.dny.dev/ssrf"},
	"internal/identity/provider/providertest": {"", "github.com/go-jose/go-jose/v4"},
	"internal/identity": {"internal/fault internal/policy internal/audit internal/postgres internal/stream internal/identity/token internal/identity/dpop internal/identity/provider",
		"github.com/jackc/pgx/v5 github.com/google/uuid github.com/hashicorp/golang-lru/v2 golang.org/x/sync"},
	"internal/outbound":          {"", "code.dny.dev/ssrf"},
	"internal/webhook":           {"api internal/fault internal/policy internal/audit internal/outbound internal/postgres internal/stream internal/task", "github.com/jackc/pgx/v5 github.com/google/uuid"},
	"internal/artifact":          {"internal/fault internal/postgres", "github.com/jackc/pgx/v5 github.com/google/uuid github.com/minio/minio-go/v7"},
	"internal/strictyaml":        {"", "github.com/goccy/go-yaml"},
	"internal/stream":            {"", "github.com/jackc/pgx/v5"},
	"internal/config":            {"internal/strictyaml", "github.com/kelseyhightower/envconfig"},
	"internal/postgres":          {"internal/fault", "github.com/jackc/pgx/v5 github.com/golang-migrate/migrate/v4 github.com/vgarvardt/pgx-google-uuid/v5 github.com/google/uuid"},
	"internal/postgres/embedded": {"internal/fault", "github.com/jackc/pgx/v5 golang.org/x/sys"},
	"internal/postgres/pgtest":   {"internal/postgres internal/postgres/embedded migrations", "github.com/jackc/pgx/v5 golang.org/x/sys"},
	"internal/registry":          {"internal/fault internal/policy internal/audit internal/postgres internal/stream internal/strictyaml", "github.com/jackc/pgx/v5 golang.org/x/sync"},
	"internal/batch":             {"internal/fault", ""},
	"internal/task":              {"internal/batch internal/fault internal/policy internal/audit internal/postgres internal/stream", "github.com/jackc/pgx/v5 github.com/google/uuid github.com/adhocore/gronx github.com/santhosh-tekuri/jsonschema/v6 golang.org/x/text"},
	"internal/httpapi": {"api internal/edge internal/audit internal/identity internal/fault internal/policy internal/registry internal/stream internal/task internal/webhook",
		"github.com/danielgtaylor/huma/v2 github.com/go-chi/chi/v5 github.com/goccy/go-yaml github.com/google/uuid github.com/prometheus/client_golang golang.org/x/sync"},
	"internal/worker":                 {"api internal/batch internal/worker/executor", "github.com/google/uuid"},
	"internal/worker/executor":        {"api internal/outbound internal/worker/executor/survey", "github.com/coder/acp-go-sdk golang.org/x/sys"},
	"internal/worker/executor/survey": {"", ""},
	"internal/clawctl":                {"api internal/policy internal/identity/dpop", "github.com/zalando/go-keyring github.com/spf13/cobra github.com/spf13/pflag golang.org/x/term golang.org/x/sys golang.org/x/text"},
	// These put the others together and may import anything.
	"internal/app":       {"*", "*"},
	"internal/clawbench": {"*", "*"},
	"cmd/coderclawd":     {"internal/app", ""},
	"cmd/clawctl":        {"internal/clawctl", ""},
	"cmd/clawbench":      {"internal/clawbench", ""},
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	const root = "../.."
	imports := map[string]map[string]bool{}
	for _, top := range []string{"api", "cmd", "internal", "migrations"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			pkg := filepath.ToSlash(rel)
			if imports[pkg] == nil {
				imports[pkg] = map[string]bool{}
			}
			for _, spec := range file.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				imports[pkg][name] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		rule, listed := may[pkg]
		if !listed {
			t.Errorf("%s is a new package: say in the table what it may import", pkg)
			continue
		}
		for name := range imports[pkg] {
			if ours, ok := strings.CutPrefix(name, module); ok {
				if rule.ours != "*" && !slices.Contains(strings.Fields(rule.ours), ours) {
					t.Errorf("%s must not import %s", pkg, ours)
				}
				continue
			}
			if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") || rule.others == "*" {
				continue // the standard library, or anything goes
			}
			if !slices.ContainsFunc(strings.Fields(rule.others), func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }) {
				t.Errorf("%s must not import %s", pkg, name)
			}
		}
	}
	for pkg := range may {
		if imports[pkg] == nil {
			t.Errorf("the table lists %s, which does not exist", pkg)
		}
	}
}
