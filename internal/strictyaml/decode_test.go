package strictyaml_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coderclaw/runtime/internal/strictyaml"
)

type garden struct {
	Name   string   `yaml:"name"`
	Open   bool     `yaml:"open"`
	Beds   int      `yaml:"beds"`
	Colour colour   `yaml:"colour"`
	Tools  []string `yaml:"tools"`
	Shed   *shed    `yaml:"shed"`
	Plants []plant  `yaml:"plants"`
	Secret string
}

type shed struct {
	Width int `yaml:"width"`
}

type plant struct {
	Name string `yaml:"name"`
}

type colour string

func (c *colour) UnmarshalText(text []byte) error {
	if string(text) != "green" {
		return fmt.Errorf("%q is not green", text)
	}
	*c = colour(text)
	return nil
}

const limit = 64 << 10

func TestDecodeReadsEveryKindOfValue(t *testing.T) {
	t.Parallel()
	var g garden
	doc := strictyaml.Decode("g.yaml", []byte("\ufeff"+`---
# A garden.
name: "Kew"     # quoted
open: true
beds: 12
colour: green
tools: [rake, 'hoe']
shed: {width: 3}
plants:
- name: |
    rose
    of Kew
-
  name: yes
...
`), limit, &g)
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	if g.Name != "Kew" || !g.Open || g.Beds != 12 || g.Colour != "green" ||
		strings.Join(g.Tools, " ") != "rake hoe" || g.Shed.Width != 3 ||
		len(g.Plants) != 2 || g.Plants[0].Name != "rose\nof Kew\n" || g.Plants[1].Name != "yes" {
		t.Errorf("read %+v", g)
	}
}

func TestDecodeRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":           {"name: a\nsize: 3\n", "2:1: unknown key \"size\"; known here: beds, colour, name, open, plants, shed, tools"},
		"a key in another case":    {"Name: a\n", "1:1: unknown key \"Name\"; known here: beds, colour, name, open, plants, shed, tools"},
		"a nested unknown key":     {"shed:\n  depth: 1\n", "2:3: unknown key \"depth\"; known here: width"},
		"a key of no yaml tag":     {"Secret: a\n", "1:1: unknown key \"Secret\"; known here: beds, colour, name, open, plants, shed, tools"},
		"a repeated key":           {"beds: 1\nname: a\nbeds: 2\n", "3:1: key \"beds\" is given twice, first in line 1"},
		"a number as a key":        {"7: a\n", "1:1: a key must be a plain name, not 7"},
		"a merge key":              {"shed:\n  <<: {width: 1}\n", "2:3: a key must be a plain name, not <<"},
		"a key without a value":    {"name: a\nopen:\n", "2:1: open has no value"},
		"a section of nothing":     {"shed:\n  # width: 3\n", "1:1: shed has no value"},
		"an explicit null":         {"name: ~\n", "1:1: name has no value"},
		"a list item of nothing":   {"tools: [rake, null]\n", "1:15: tools[1] has no value"},
		"text for a boolean":       {"open: \"true\"\n", "1:7: open must be true or false, not \"true\""},
		"yes for a boolean":        {"open: yes\n", "1:7: open must be true or false, not \"yes\""},
		"text for a number":        {"beds: many\n", "1:7: beds must be a whole number, not \"many\""},
		"a fraction":               {"beds: 1.5\n", "1:7: beds must be a whole number, not 1.5"},
		"a number too big":         {"beds: 99999999999999999999\n", "1:7: beds must be a whole number, not \"99999999999999999999\""},
		"a number for text":        {"name: 1.0\n", "1:7: name must be text; put 1.0 in quotes"},
		"a list for text":          {"name: [a]\n", "1:7: name must be text, not a list"},
		"text for a list":          {"tools: rake\n", "1:8: tools must be a list, not \"rake\""},
		"a list for a mapping":     {"shed:\n  - width\n", "2:3: shed must have keys, not a list"},
		"text for the document":    {"hello\n", "1:1: the document must have keys, not \"hello\""},
		"a value that is refused":  {"name: ünï\ncolour: red\n", "2:9: colour: \"red\" is not green"},
		"an anchor":                {"name: &a Kew\n", "1:7: anchors, aliases and tags are not accepted"},
		"an alias":                 {"name: *a\n", "1:7: anchors, aliases and tags are not accepted"},
		"a tag":                    {"name: !!str 1\n", "1:7: anchors, aliases and tags are not accepted"},
		"a directive":              {"%YAML 1.2\n---\nname: a\n", "1:1: directives are not accepted"},
		"a second document":        {"name: a\n---\nname: b\n", "2:1: a second document begins here; only one is accepted"},
		"an empty second document": {"---\nname: a\n---\n", "3:1: a second document begins here; only one is accepted"},
		"something after the end":  {"name: a\n...\nbeds: 1\n", "3:1: a second document begins here; only one is accepted"},
		"an open bracket":          {"name: a\ntools: [rake\n", "2:8: sequence end token ']' not found"},
		"broken UTF-8":             {"name: a\nb\xffd: 1\n", "2:2: a character is not UTF-8 text"},
		"a control character":      {"name: a\x00b\n", "1:8: a character is not UTF-8 text"},
		"too much":                 {strings.Repeat("#", limit+1), "1:1: the file is larger than 65536 bytes"},
		"deep brackets":            {"tools: " + strings.Repeat("[", 20_000), "1:39: nested deeper than 32 levels"},
		"deep dashes":              {strings.Repeat("- ", 20_000), "1:65: nested deeper than 32 levels"},
		"deep indentation":         {indented(40), "33:33: nested deeper than 32 levels"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := strictyaml.Decode("g.yaml", []byte(c.text), limit, &garden{}).Err()
			if err == nil || err.Error() != "g.yaml:"+c.want {
				t.Errorf("got  %v\nwant g.yaml:%s", err, c.want)
			}
		})
	}
}

func indented(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

func TestFaultsAreReportedTogetherInTheOrderOfTheFile(t *testing.T) {
	t.Parallel()
	var g garden
	doc := strictyaml.Decode("g.yaml", []byte("name: Kew\nplants:\n  - name: 3\n  - name: rose\nbeds: many\n"), limit, &g)
	doc.Refuse(&g.Plants[1], "no roses")
	doc.Refuse(&g.Open, "it must be open")
	want := `g.yaml:1:1: it must be open
g.yaml:3:11: name must be text; put 3 in quotes
g.yaml:4:5: no roses
g.yaml:5:7: beds must be a whole number, not "many"`
	if err := doc.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	for name, c := range map[string]struct {
		value any
		want  bool
	}{
		"a given value":   {&g.Name, true},
		"an absent one":   {&g.Open, false},
		"a refused one":   {&g.Beds, false},
		"one in a list":   {&g.Plants[1].Name, true},
		"a refused there": {&g.Plants[0].Name, false},
	} {
		if got := doc.Has(c.value); got != c.want {
			t.Errorf("Has(%s) is %t", name, got)
		}
	}
}

func TestAnEmptyDocumentNamesNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n\n", "# only a comment\n", "---\n", "---\n# nothing\n...\n"} {
		g := garden{Name: "Kew"}
		doc := strictyaml.Decode("g.yaml", []byte(text), limit, &g)
		if err := doc.Err(); err != nil || doc.Has(&g.Name) || g.Name != "Kew" {
			t.Errorf("%q: %v, read %+v", text, err, g)
		}
	}
}

func TestReadFileStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "g.yaml")
	if err := os.WriteFile(name, []byte("name: Kew\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for bytes, want := range map[int]string{10: "", 9: name + ":1:1: the file is larger than 9 bytes"} {
		doc, err := strictyaml.ReadFile(name, bytes, &garden{})
		if err != nil {
			t.Fatal(err)
		}
		if err := doc.Err(); err != nil && err.Error() != want || err == nil && want != "" {
			t.Errorf("with a limit of %d: %v", bytes, err)
		}
	}
	if _, err := strictyaml.ReadFile(name+"s", limit, &garden{}); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		"name: Kew\nopen: true\nbeds: 12\nplants:\n- name: |\n    rose\n", "tools: [rake, {a: b}]\n? x\n: y\n",
		"a: &b [*b]\n<<: !!x {}\n", "---\n%a\n...\n", "- - - ? - >-\n", "\"\\0\": 'a''b'\n\t- |2+\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		done := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("still decoding %q", data)) })
		defer done.Stop()
		var g garden
		doc := strictyaml.Decode("g.yaml", data, limit, &g)
		if doc.Err() == nil && g.Colour != "" && g.Colour != "green" {
			t.Errorf("accepted colour %q", g.Colour)
		}
	})
}

func TestDecodeReadsMapsAndListsThatMayBeText(t *testing.T) {
	t.Parallel()
	var f struct {
		Beds   map[string]*plant              `yaml:"beds"`
		Owners map[colour][]string            `yaml:"owners"`
		Nested map[string]map[string][]colour `yaml:"nested"`
		Tools  words                          `yaml:"tools"`
		Seeds  words                          `yaml:"seeds"`
		Number int64                          `yaml:"number"`
	}
	doc := strictyaml.Decode("g.yaml", []byte(`beds:
  front:
    name: rose
  back: {name: sage}
owners: {green: [ann, bob]}
nested: {a: {"b/c": [green]}}
tools: rake hoe
seeds: [pea, bean]
number: 583231000000
`), limit, &f)
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	if f.Beds["front"].Name != "rose" || f.Beds["back"].Name != "sage" || len(f.Owners["green"]) != 2 ||
		f.Nested["a"]["b/c"][0] != "green" || len(f.Tools) != 2 || len(f.Seeds) != 2 || f.Number != 583231000000 {
		t.Errorf("decoded %+v", f)
	}
	for value, want := range map[any]string{
		f.Beds["front"]: "g.yaml:2:3", &f.Owners["green"][1]: "g.yaml:5:23", &f.Number: "g.yaml:9:9", new(int): "g.yaml:1:1",
	} {
		if got := doc.Place(value); got != want {
			t.Errorf("%v stands at %s, want %s", value, got, want)
		}
	}
	for text, want := range map[string]string{
		"beds: 3\n":                        "1:7: beds must have keys, not 3",
		"beds:\n  a: {size: 1}\n":          `2:7: unknown key "size"; known here: name`,
		"beds:\n  a:\n":                    "2:3: a has no value",
		"beds: {a: *x}\n":                  "1:11: anchors, aliases and tags are not accepted",
		"beds: {'': {name: a}}\n":          "1:8: a key of beds is empty",
		"beds:\n  a: {}\n  b: {}\n  a: {}": `4:3: key "a" is given twice, first in line 2`,
		"owners: {green: ann}\n":           `1:17: green must be a list, not "ann"`,
	} {
		if err := strictyaml.Decode("g.yaml", []byte(text), limit, &f).Err(); err == nil || err.Error() != "g.yaml:"+want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

type words []string

func (w *words) UnmarshalText(text []byte) error {
	*w = strings.Fields(string(text))
	return nil
}
