package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

const (
	prefix            = "CODERCLAW"
	configDirVariable = prefix + "_CONFIG_DIR"
	maxSecretBytes    = 16 << 10
)

// Names that are ours and not read here: the client's, the private
// PostgreSQL's, and those of our tests.
var (
	otherVariables = []string{prefix + "_URL", prefix + "_POSTGRES_BIN"}
	testPrefix     = prefix + "_TEST_"
)

// secretFiles names files that hold a secret, as container platforms mount
// them.
type secretFiles struct {
	TokenFile       string `split_words:"true"`
	DatabaseURLFile string `split_words:"true"`
	LLM             struct {
		APIKeyFile string `split_words:"true"`
	}
	Artifacts struct {
		S3 struct {
			SecretKeyFile string `split_words:"true"`
		}
	}
	GitHub, Google struct {
		ClientSecretFile string `split_words:"true"`
	}
}

// readEnvironment overrides c with the variables that are set, and returns the
// names of all that could be. A variable set to nothing counts as not set:
// compose files and CI pass on what they do not have that way.
func (c *Config) readEnvironment() (known []string, err error) {
	var files secretFiles
	var faults []error
	for _, spec := range []any{c, &files} {
		names, err := process(prefix, spec)
		known = append(known, names...)
		faults = append(faults, err)
	}
	for _, s := range []struct {
		variable, filename string
		into               *Secret
	}{
		{"CODERCLAW_TOKEN", files.TokenFile, &c.Token},
		{"CODERCLAW_DATABASE_URL", files.DatabaseURLFile, &c.DatabaseURL},
		{"CODERCLAW_LLM_API_KEY", files.LLM.APIKeyFile, &c.LLM.APIKey},
		{"CODERCLAW_ARTIFACTS_S3_SECRET_KEY", files.Artifacts.S3.SecretKeyFile, &c.Artifacts.S3.SecretKey},
		{"CODERCLAW_GITHUB_CLIENT_SECRET", files.GitHub.ClientSecretFile, &c.GitHub.ClientSecret},
		{"CODERCLAW_GOOGLE_CLIENT_SECRET", files.Google.ClientSecretFile, &c.Google.ClientSecret},
	} {
		if s.filename == "" {
			continue
		}
		if os.Getenv(s.variable) != "" {
			faults = append(faults, fmt.Errorf("%s_FILE: contradicts %s; set one of them", s.variable, s.variable))
			continue
		}
		if err := s.into.readFile(s.filename); err != nil {
			faults = append(faults, fmt.Errorf("%s_FILE: %w", s.variable, err))
		}
	}
	return known, errors.Join(faults...)
}

// process lets envconfig fill the struct that spec points at, from variables
// that begin with prefix. It goes field by field, because envconfig stops at the
// first value that it cannot read, and takes what is set to nothing as a value.
func process(prefix string, spec any) (names []string, err error) {
	var faults []error
	fields := reflect.ValueOf(spec).Elem()
	for i := range fields.NumField() {
		if isGroup(fields.Field(i)) {
			variables, err := process(prefix+"_"+strings.ToUpper(fields.Type().Field(i).Name), fields.Field(i).Addr().Interface())
			names, faults = append(names, variables...), append(faults, err)
			continue
		}
		one := reflect.New(reflect.StructOf([]reflect.StructField{fields.Type().Field(i)}))
		field := one.Elem().Field(0)
		field.Set(fields.Field(i))
		variables := variablesOf(prefix, one.Interface())
		names = append(names, variables...)
		if !slices.ContainsFunc(variables, func(name string) bool { return os.Getenv(name) != "" }) {
			continue
		}
		if err := envconfig.Process(prefix, one.Interface()); err != nil {
			faults = append(faults, explain(err))
			continue
		}
		fields.Field(i).Set(field)
	}
	return names, errors.Join(faults...)
}

// isGroup reports whether v is a struct of settings, and not one value.
func isGroup(v reflect.Value) bool {
	_, value := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	return v.Kind() == reflect.Struct && !value
}

// variablesOf returns the names that envconfig looks up for spec.
func variablesOf(prefix string, spec any) []string {
	var names strings.Builder
	if err := envconfig.Usagef(prefix, spec, &names, "{{range .}}{{usage_key .}} {{end}}"); err != nil {
		panic(fmt.Sprintf("config: list variables: %v", err)) // the template and the struct are ours
	}
	return strings.Fields(names.String())
}

func explain(err error) error {
	var wrong *envconfig.ParseError
	if !errors.As(err, &wrong) {
		return err
	}
	switch wrong.TypeName {
	case "bool":
		return fmt.Errorf("%s: %.40q is not true or false", wrong.KeyName, wrong.Value)
	case "int":
		return fmt.Errorf("%s: %.40q is not a whole number", wrong.KeyName, wrong.Value)
	case "time.Duration":
		return fmt.Errorf("%s: %.40q is not a duration such as 20s or 1m30s", wrong.KeyName, wrong.Value)
	default:
		return fmt.Errorf("%s: %w", wrong.KeyName, wrong.Err)
	}
}

// readFile takes a secret from a file, without the newline that editors put at
// its end. The errors leave the path out: it may be the secret by mistake.
func (s *Secret) readFile(filename string) error {
	f, err := os.Open(filename)
	if err != nil {
		return fmt.Errorf("the file cannot be read: %w", withoutPath(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return fmt.Errorf("the file cannot be read: %w", withoutPath(err))
	}
	if len(data) > maxSecretBytes {
		return fmt.Errorf("the file is larger than %d bytes", maxSecretBytes)
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return errors.New("the file is empty")
	}
	*s = NewSecret(text)
	return nil
}

func withoutPath(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}

// unknownVariables warns about names with our prefix that nothing reads, most
// likely misspelt.
func unknownVariables(known []string) []string {
	known = append(known, otherVariables...)
	var warnings []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix+"_") || strings.HasPrefix(name, testPrefix) || slices.Contains(known, name) {
			continue
		}
		warning := fmt.Sprintf("%s is set, but there is no such setting", name)
		if near := nearest(name, known); near != "" {
			warning += "; did you mean " + near + "?"
		}
		warnings = append(warnings, warning)
	}
	slices.Sort(warnings)
	return warnings
}

// nearest returns the candidate that takes the fewest edits to reach from
// name, or "" if that is more than three.
func nearest(name string, candidates []string) string {
	best, fewest := "", 4
	for _, c := range candidates {
		if n := edits(name, c); n < fewest {
			best, fewest = c, n
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
