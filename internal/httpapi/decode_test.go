package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/httpapi"
)

// bodies are of the kinds that come most.
var bodies = map[string]struct {
	text string
	into func() any
}{
	"task": {`{"description":"Analyze project architecture","input":"Review the current codebase structure","agentId":"architecture-advisor","labels":{"team":"platform","env":"ci"},"metadata":{"path":"services/shop","ticket":1234}}`,
		func() any { return new(api.NewTask) }},
	"report": {`{"events":[` + strings.TrimSuffix(strings.Repeat(`{"type":"log","message":"a line of what the agent says, \"quoted\" here","data":{"stream":"stdout"}},`, 20), ",") + `],"progress":40}`,
		func() any { return new(api.Report) }},
	"batch": {`{"tasks":[` + strings.TrimSuffix(strings.Repeat(`{"description":"d","input":"i","agentId":"a","labels":{"k":"v"}},`, 1000), ",") + `]}`,
		func() any { return new(api.NewTaskBatch) }},
	"a long text": {`{"status":"completed","output":"` + strings.Repeat("the quick brown fox ", 50_000) + `"}`, func() any { return new(api.Report) }},
	"many labels": {`{"metadata":{` + many(1000) + `}}`, func() any { return new(api.NewTask) }},
}

func many(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"key-%d":1`, i)
	}
	return strings.Join(names, ",")
}

func TestNoMemberIsThereTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, twice string }{
		"at the top":        {`{"input":"a","description":"d","input":"b"}`, `"input"`},
		"within":            {`{"metadata":{"a":[1,{"x":1,"y":{},"x":2}]}}`, `"x"`},
		"spelt differently": {`{"input":"a","\u0069nput":"b"}`, `"input"`},
		"with escapes":      {`{"a\"b":1,"a\u0022b":1}`, `"a\"b"`},
		"the empty one":     {`{"":1,"":2}`, `""`},
		"spaced":            {"{ \"k\" : 1 ,\n\t\"k\"\r: 2 }", `"k"`},
		"after an object":   {`{"k":{"k":1},"k":2}`, `"k"`},
		"after an array":    {`{"k":["k","k"],"k":2}`, `"k"`},
		"among many":        {`{` + many(1000) + `,"key-500":1}`, `"key-500"`},
		"the last of many":  {`{` + many(17) + `,"key-16":1}`, `"key-16"`},
		"of a long name":    {`{"` + strings.Repeat("é", 200) + `":1,"` + strings.Repeat("é", 200) + `":2}`, `"` + strings.Repeat("é", 50) + `"`},
	} {
		var v any
		if err := httpapi.DecodeJSON([]byte(c.body), &v); err == nil || err.Error() != "must not have the member "+c.twice+" twice" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, body := range map[string]string{
		"one in each object":   `[{"k":1},{"k":2},{"a":{"k":1},"k":{"k":{"k":2}}}]`,
		"values like names":    `{"a":"a","b":"a","c":["a","a",{"a":"a"}]}`,
		"other capitals":       `{"k":1,"K":2}`,
		"names within strings": `{"a":"\"b\":1,\"b\":2","b":"{\"x\":1,\"x\":2}"}`,
		"many":                 `{"a":{` + many(1000) + `},"b":{` + many(1000) + `}}`,
		"a bare string":        `"k"`,
	} {
		var v any
		if err := httpapi.DecodeJSON([]byte(body), &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, broken := range []string{`{"a":1,"a`, `{"a`, `}}]]`, `{"\ud8":1,"\ud8":2}`, `"\`, `{"a" "a":1}`, `{,"a":1`, `]{"a":1}`, ``} {
		var v any
		if err := httpapi.DecodeJSON([]byte(broken), &v); err == nil {
			t.Errorf("%q is taken", broken)
		}
	}
}

func TestABodyWithAMemberTwiceIsRefusedByName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, body := range []string{
		`{"description":"d","input":"i","agentId":"architecture-advisor","agentId":"code-creator"}`,
		`{"description":"d","input":"i","metadata":{"agentId":1,"agentId":2}}`,
	} {
		p := r.problem(400, "bad-request", "POST", "/v1/tasks", body)
		if !strings.Contains(p.Detail, `"agentId" twice`) {
			t.Errorf("%s is answered with %+v", body, p)
		}
	}
	r.problem(422, "invalid", "POST", "/v1/tasks", `{"description":"d","input":"i","INPUT":"j"}`)
}

// FuzzScan compares with a decoder that shows every name.
func FuzzScan(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body.text))
	}
	for _, text := range []string{`{"a":1,"a":2}`, `{"a":{"a":[{"a":1}]},"\u0061":2}`, `[{},{"":[]}]`, `{"a":"b\\","a\\":1}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 || !json.Valid(data) || !utf8.Valid(data) {
			_ = httpapi.ScanJSON(data) // and does not crash
			return
		}
		err := httpapi.ScanJSON(data)
		if err != nil && !strings.HasSuffix(err.Error(), " twice") {
			return
		}
		if twice := repeats(json.NewDecoder(bytes.NewReader(data))); twice != (err != nil) {
			t.Errorf("%q: %v, but a member is there twice: %v", data, err, twice)
		}
	})
}

// repeats reads a value and reports whether an object in it has a member twice.
func repeats(d *json.Decoder) (twice bool) {
	first, err := d.Token()
	if err != nil {
		return false
	}
	delim, _ := first.(json.Delim)
	names := map[string]bool{}
	for (delim == '{' || delim == '[') && d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return twice
			}
			twice = twice || names[name.(string)]
			names[name.(string)] = true
		}
		twice = repeats(d) || twice
	}
	if delim == '{' || delim == '[' {
		_, _ = d.Token() // its end
	}
	return twice
}

func BenchmarkScan(b *testing.B) {
	for name, body := range bodies {
		b.Run(name, func(b *testing.B) {
			data := []byte(body.text)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := httpapi.ScanJSON(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, body := range bodies {
		b.Run(name, func(b *testing.B) {
			data := []byte(body.text)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := httpapi.DecodeJSON(data, body.into()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
