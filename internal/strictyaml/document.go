// Package strictyaml reads the small YAML files that people write by hand, and
// refuses what it does not understand instead of passing over it: unknown and
// repeated keys, values of the wrong type or none at all, a second document,
// anchors, aliases, tags and directives. A misspelt key in a configuration
// must not silently mean the default.
//
// Every fault names file, line and column, and all are reported at once. A
// decoded value keeps its place, so that a rule which is checked later can
// point at it too:
//
//	var file struct {
//		Port int `yaml:"port"`
//	}
//	doc := strictyaml.Decode("app.yaml", data, 64<<10, &file)
//	if file.Port > 65535 {
//		doc.Refuse(&file.Port, "port %d is above 65535", file.Port)
//	}
//	return doc.Err()
package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Document is what Decode has read: where each value stands, and what is wrong
// with the file so far.
type Document struct {
	filename string
	places   map[any]place // by pointer to the decoded value
	faults   []fault
}

type place struct{ line, column int }

type fault struct {
	place
	message string
}

// ReadFile decodes a file. The error is the one met while reading; what is
// wrong with the content is told by Document.Err.
func ReadFile(filename string, maxBytes int, into any) (*Document, error) {
	f, err := os.Open(filename)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(maxBytes)+1))
	if err != nil {
		return nil, err
	}
	return Decode(filename, data, maxBytes, into), nil
}

// Has reports whether the file gives an acceptable value to *value, a pointer
// to something within what was decoded.
func (d *Document) Has(value any) bool {
	_, ok := d.places[value]
	return ok
}

// Place tells where *value stands, as file:line:column: at the beginning of the
// file if the file does not give it.
func (d *Document) Place(value any) string {
	at, ok := d.places[value]
	if !ok {
		at = place{1, 1}
	}
	return fmt.Sprintf("%s:%d:%d", d.filename, at.line, at.column)
}

// Refuse adds a fault at the place of *value, or at the beginning of the file
// if that has none.
func (d *Document) Refuse(value any, format string, args ...any) {
	at, ok := d.places[value]
	if !ok {
		at = place{1, 1}
	}
	d.refuseAt(at, format, args...)
}

func (d *Document) refuseAt(at place, format string, args ...any) {
	d.faults = append(d.faults, fault{at, fmt.Sprintf(format, args...)})
}

// Err returns all faults in the order of the file, one a line in the form
// file:line:column: message, or nil if there is none.
func (d *Document) Err() error {
	slices.SortStableFunc(d.faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	errs := make([]error, len(d.faults))
	for i, f := range d.faults {
		errs[i] = fmt.Errorf("%s:%d:%d: %s", d.filename, f.line, f.column, f.message)
	}
	return errors.Join(errs...)
}
