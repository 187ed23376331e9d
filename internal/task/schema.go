package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/coderclaw/runtime/internal/fault"
)

// maxSchemaFaults is how many faults of an answer are named.
const maxSchemaFaults = 20

// schemaFault says why a schema cannot be used, or "".
func schemaFault(schema json.RawMessage) string {
	if message := objectFault(schema); message != "" {
		return message
	}
	if _, err := compileSchema(schema); err != nil {
		return "must be a JSON Schema: " + cut(err.Error(), MaxLabelTextBytes)
	}
	return ""
}

// noLoader reads no schemas: neither files nor addresses.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%.200q is another document", url)
}

func compileSchema(schema json.RawMessage) (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	// References make a small schema as costly as one of any size, and need
	// never end. Forms can do without.
	if refers(document) {
		return nil, errors.New("references are not supported")
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("schema.json", document); err != nil {
		return nil, err
	}
	return c.Compile("schema.json")
}

// refers reports whether some object of the document has a reference.
func refers(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if _, text := value.(string); text && (key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef") || refers(value) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, refers)
	}
	return false
}

// dataFaults says how data, an object, does not meet the schema.
func dataFaults(schema, data json.RawMessage) ([]fault.Field, error) {
	compiled, err := compileSchema(schema)
	if err != nil {
		return nil, fmt.Errorf("compile the schema of a question: %w", err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read the data of an answer: %w", err)
	}
	err = compiled.Validate(value)
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if err != nil && !ok {
		return nil, fmt.Errorf("check the data of an answer: %w", err)
	}
	var found []fault.Field
	if invalid != nil {
		collect(invalid, message.NewPrinter(language.English), &found)
	}
	return found, nil
}

// collect adds the innermost faults, which name single values.
func collect(e *jsonschema.ValidationError, p *message.Printer, found *[]fault.Field) {
	if len(*found) == maxSchemaFaults {
		return
	}
	if len(e.Causes) == 0 {
		path := strings.Join(append([]string{"body.data"}, e.InstanceLocation...), ".")
		*found = append(*found, fault.Field{Path: cut(path, MaxLabelTextBytes), Message: cut(e.ErrorKind.LocalizedString(p), MaxLabelTextBytes)})
	}
	for _, cause := range e.Causes {
		collect(cause, p, found)
	}
}
