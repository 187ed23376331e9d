package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Decode reads one YAML document of at most maxBytes into the struct that into
// points at. Keys are the fields' yaml tags; a field without one is not read.
// Fields are structs, slices, maps with keys of text, strings, whole numbers,
// booleans, pointers to those, or implement encoding.TextUnmarshaler, whose
// error then becomes a fault at the value; a slice that does so may be given as
// a list as well. What the document does not name, or names with a fault, stays
// as it was; an empty document names nothing.
//
// The values of a map have no address and so no place, except those that are
// pointers, which stand where their keys do, and the items of lists.
func Decode(filename string, data []byte, maxBytes int, into any) *Document {
	d := &Document{filename: filename, places: map[any]place{}}
	tokens := d.scan(data, maxBytes)
	if tokens == nil {
		return d
	}
	// Repeated keys are allowed here to be refused below, with all other faults.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.refuseSyntax(err)
		return d
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			d.value("the document", doc.Body, reflect.ValueOf(into).Elem())
		}
	}
	return d
}

func (d *Document) refuseSyntax(err error) {
	at, message := place{1, 1}, err.Error()
	if syntax, ok := errors.AsType[yaml.Error](err); ok {
		message = syntax.GetMessage()
		if t := syntax.GetToken(); t != nil {
			at = placeOf(t)
		}
	}
	d.refuseAt(at, "%s", message)
}

func (d *Document) value(name string, n ast.Node, v reflect.Value) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.refuseAt(nodePlace(n), "anchors, aliases and tags are not accepted")
		return
	case *ast.NullNode:
		d.refuseAt(nodePlace(n), "%s has no value", name)
		return
	}
	_, listed := n.(*ast.SequenceNode)
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok && !(listed && v.Kind() == reflect.Slice) {
		d.text(name, n, v, func(s string) error { return u.UnmarshalText([]byte(s)) })
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.keep(n, v)
		d.value(name, n, v.Elem())
	case reflect.Struct:
		d.mapping(name, n, v)
	case reflect.Slice:
		d.list(name, n, v)
	case reflect.Map:
		d.table(name, n, v)
	case reflect.String:
		d.text(name, n, v, func(s string) error { v.SetString(s); return nil })
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			d.keep(n, v)
			return
		}
		d.refuseAt(nodePlace(n), "%s must be true or false, not %s", name, describe(n))
	case reflect.Int, reflect.Int64:
		if i, ok := n.(*ast.IntegerNode); ok {
			if number, err := strconv.ParseInt(i.Token.Value, 10, v.Type().Bits()); err == nil {
				v.SetInt(number)
				d.keep(n, v)
				return
			}
		}
		d.refuseAt(nodePlace(n), "%s must be a whole number, not %s", name, describe(n))
	default:
		panic(fmt.Sprintf("strictyaml: no rule to decode into %s", v.Type()))
	}
}

func (d *Document) mapping(name string, n ast.Node, v reflect.Value) {
	fields, known := fieldsOf(v)
	ok := d.pairs(name, n, func(key *ast.StringNode, value ast.Node) {
		field, ok := fields[key.Value]
		if !ok {
			d.refuseAt(nodePlace(key), "unknown key %.40q; known here: %s", key.Value, strings.Join(known, ", "))
			return
		}
		d.entry(key, value, field)
	})
	if ok {
		d.keep(n, v)
	}
}

// table is a mapping whose keys are up to whoever writes the file.
func (d *Document) table(name string, n ast.Node, v reflect.Value) {
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	ok := d.pairs(name, n, func(key *ast.StringNode, value ast.Node) {
		if key.Value == "" {
			d.refuseAt(nodePlace(key), "a key of %s is empty", name)
			return
		}
		entry := reflect.New(t.Elem()).Elem()
		d.entry(key, value, entry)
		if entry.Kind() == reflect.Pointer {
			if entry.IsNil() {
				return
			}
			d.places[entry.Interface()] = nodePlace(key)
		}
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(t.Key()), entry)
	})
	if ok {
		d.keep(n, v)
	}
}

func (d *Document) entry(key *ast.StringNode, value ast.Node, v reflect.Value) {
	if _, ok := value.(*ast.NullNode); ok {
		d.refuseAt(nodePlace(key), "%s has no value", key.Value)
		return
	}
	d.value(key.Value, value, v)
}

// pairs calls each with the keys and values of a mapping, and refuses what has
// no keys, and keys that are repeated or no text.
func (d *Document) pairs(name string, n ast.Node, each func(key *ast.StringNode, value ast.Node)) bool {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.refuseAt(nodePlace(n), "%s must have keys, not %s", name, describe(n))
		return false
	}
	seen := map[string]int{}
	for _, pair := range pairs {
		at := nodePlace(pair.Key)
		key, ok := pair.Key.(*ast.StringNode)
		if !ok {
			d.refuseAt(at, "a key must be a plain name, not %s", describe(pair.Key))
			continue
		}
		if line, ok := seen[key.Value]; ok {
			d.refuseAt(at, "key %q is given twice, first in line %d", key.Value, line)
			continue
		}
		seen[key.Value] = at.line
		each(key, pair.Value)
	}
	return true
}

func (d *Document) list(name string, n ast.Node, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.refuseAt(nodePlace(n), "%s must be a list, not %s", name, describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	d.keep(n, v)
	for i, item := range list.Values {
		d.value(fmt.Sprintf("%s[%d]", name, i), item, v.Index(i))
	}
}

func (d *Document) text(name string, n ast.Node, v reflect.Value, set func(string) error) {
	var s string
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = n.Value.Value
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		d.refuseAt(nodePlace(n), "%s must be text, not %s", name, describe(n))
		return
	default:
		d.refuseAt(nodePlace(n), "%s must be text; put %s in quotes", name, describe(n))
		return
	}
	if err := set(s); err != nil {
		d.refuseAt(nodePlace(n), "%s: %s", name, err)
		return
	}
	d.keep(n, v)
}

// keep remembers where v's value stands.
func (d *Document) keep(n ast.Node, v reflect.Value) {
	d.places[v.Addr().Interface()] = nodePlace(n)
}

// fieldsOf returns v's fields by key, and the keys in order.
func fieldsOf(v reflect.Value) (fields map[string]reflect.Value, keys []string) {
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("yaml"); key != "" {
			fields[key] = v.Field(i)
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return fields, keys
}

// nodePlace is where n begins. A block mapping's own token is the colon after
// its first key.
func nodePlace(n ast.Node) place {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && n.Start.Type != token.MappingStartType {
			return nodePlace(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return nodePlace(n.Key)
	}
	return placeOf(n.GetToken())
}

func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return fmt.Sprintf("%.40q", n.Value)
	case *ast.LiteralNode:
		return "a block of text"
	default:
		return fmt.Sprintf("%.40s", n.GetToken().Value)
	}
}
