package jws_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/internal/identity/jws"
)

func TestSplitReturnsThePartsAndWhatIsSigned(t *testing.T) {
	t.Parallel()
	got, err := jws.Split("aGVhZA.Ym9keQ.c2ln", 100)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Header) != "head" || string(got.Payload) != "body" || string(got.Signature) != "sig" || got.Signed != "aGVhZA.Ym9keQ" {
		t.Errorf("got %q %q %q over %q", got.Header, got.Payload, got.Signature, got.Signed)
	}
}

func TestSplitRefusesASecondTextForTheSameToken(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ says, raw, want string }{
		{"nothing", "", "three parts"},
		{"two parts", "aGVhZA.Ym9keQ", "three parts"},
		{"four parts", "aGVhZA.Ym9keQ.c2ln.c2ln", "three parts"},
		{"an empty header", ".Ym9keQ.c2ln", "its header is empty"},
		{"an empty payload", "aGVhZA..c2ln", "its payload is empty"},
		{"an empty signature", "aGVhZA.Ym9keQ.", "its signature is empty"},
		{"padding", "aGVhZA==.Ym9keQ.c2ln", "its header is not strict base64url"},
		{"bits that do not count", "aGVhZB.Ym9keQ.c2ln", "its header is not strict base64url"},
		{"the standard alphabet", "aGVhZA.Ym9keQ.c2l+", "its signature is not strict base64url"},
		{"a line feed in the signature", "aGVhZA.Ym9keQ.c2\nln", "its signature is not strict base64url"},
		{"a carriage return at the end", "aGVhZA.Ym9keQ.c2ln\r", "its signature is not strict base64url"},
		{"a space in front", " aGVhZA.Ym9keQ.c2ln", "its header is not strict base64url"},
		{"more than the limit", strings.Repeat("a", 101), "longer than 100 bytes"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			if _, err := jws.Split(row.raw, 100); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestReadFillsWhatIsKnownAndNamesWhatIsNot(t *testing.T) {
	t.Parallel()
	var sub, jkt string
	exp := int64(7)
	unknown, err := jws.Read([]byte(` {"x":[{"sub":1}], "\u0073ub":"me", "cnf":{"jkt":"k","y":null}, "Z":null} `), jws.Fields{
		"sub": &sub, "exp": &exp, "cnf": jws.Fields{"jkt": &jkt}, "crit": jws.Refused{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if sub != "me" || jkt != "k" {
		t.Errorf("got sub %q, jkt %q", sub, jkt)
	}
	if exp != 7 {
		t.Errorf("an absent member changed its value to %d", exp)
	}
	if !slices.Equal(unknown, []string{"x", "Z"}) {
		t.Errorf("unknown members are %q", unknown)
	}
}

func TestReadRefusesWhatParsersDisagreeAbout(t *testing.T) {
	t.Parallel()
	var members []string
	for i := range 65 {
		members = append(members, `"m`+strings.Repeat("x", i)+`":0`)
	}
	for _, row := range []struct{ says, text, want string }{
		{"nothing", ``, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"a list", `[{"sub":"a"}]`, "not a JSON object"},
		{"a member twice", `{"sub":"a","sub":"b"}`, `"sub" comes twice`},
		{"a member twice, once escaped", `{"sub":"a","\u0073ub":"b"}`, `"sub" comes twice`},
		{"a member again in another case", `{"sub":"a","Sub":"b"}`, `"Sub" comes twice`},
		{"a member in another case alone", `{"SUB":"a"}`, `"sub" is written "SUB"`},
		{"a member in a case that only Unicode knows", `{"ſub":"a"}`, `"sub" is written "ſub"`},
		{"an unknown member twice", `{"x":1,"x":2}`, `"x" comes twice`},
		{"a member twice in an object inside", `{"cnf":{"jkt":"a","jkt":"b"}}`, `in "cnf" "jkt" comes twice`},
		{"a text for the object inside", `{"cnf":"a"}`, `in "cnf" the text is not a JSON object`},
		{"null for a text", `{"sub":null}`, `"sub" has a value of the wrong type`},
		{"a number for a text", `{"sub":1}`, `"sub" has a value of the wrong type`},
		{"a text for a number", `{"exp":"1"}`, `"exp" has a value of the wrong type`},
		{"a fraction for a whole number", `{"exp":1.5}`, `"exp" has a value of the wrong type`},
		{"a number beyond 64 bits", `{"exp":1e99}`, `"exp" has a value of the wrong type`},
		{"a member that is refused", `{"crit":[]}`, `"crit" is not accepted`},
		{"an object that does not end", `{"sub":"a"`, "not a JSON object"},
		{"a member without a value", `{"sub"}`, "not a JSON object"},
		{"a comma at the end", `{"sub":"a",}`, "not a JSON object"},
		{"another bracket at the end", `{"sub":"a"]`, "not a JSON object"},
		{"a second object", `{"sub":"a"}{"sub":"b"}`, "not a JSON object"},
		{"a member without a name", `{:1}`, "not a JSON object"},
		{"a byte after the object", `{"sub":"a"}x`, "not a JSON object"},
		{"a text that is not UTF-8", "{\"sub\":\"\xff\"}", "not UTF-8"},
		{"more members than anyone needs", "{" + strings.Join(members, ",") + "}", "more than 64 members"},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			var sub, jkt string
			var exp int64
			_, err := jws.Read([]byte(row.text), jws.Fields{
				"sub": &sub, "exp": &exp, "cnf": jws.Fields{"jkt": &jkt}, "crit": jws.Refused{},
			})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

// What Read accepts, encoding/json reads alike.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"sub":"a","exp":1,"cnf":{"jkt":"k"},"x":[null]}`))
	f.Add([]byte(`{"sub":"a","Sub":"b"}`))
	f.Add([]byte(`{"\ud800":"a"}`))
	f.Add([]byte(" { \"a\\\"\" : [ {\"x\":\"]}\\\\\"} , 1 ] ,\n\"b\":-1.5e3 ,\"c\" : true\t,\"sub\":\"\\\"\"} "))
	f.Fuzz(func(t *testing.T, data []byte) {
		var sub string
		unknown, err := jws.Read(data, jws.Fields{"sub": &sub})
		if err != nil {
			return
		}
		var all map[string]any
		if err := json.Unmarshal(data, &all); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		want, _ := all["sub"].(string)
		if sub != want {
			t.Errorf("sub is %q, encoding/json reads %q", sub, want)
		}
		delete(all, "sub")
		if names := slices.Sorted(maps.Keys(all)); !slices.Equal(names, slices.Sorted(slices.Values(unknown))) {
			t.Errorf("unknown members are %q, encoding/json reads %q", unknown, names)
		}
	})
}

// What Split accepts has no other text.
func FuzzSplit(f *testing.F) {
	f.Add("aGVhZA.Ym9keQ.c2ln")
	f.Add("aGVhZB.Ym9keQ.c2l\n")
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := jws.Split(raw, 1000)
		if err != nil {
			return
		}
		var parts []string
		for _, part := range [][]byte{got.Header, got.Payload, got.Signature} {
			parts = append(parts, base64.RawURLEncoding.EncodeToString(part))
		}
		if again := strings.Join(parts, "."); again != raw {
			t.Errorf("%q is also %q", raw, again)
		}
	})
}
