package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
)

var nasty = audit.Entry{
	ID: uuid.MustParse("01937b3c-5a00-7000-8000-000000000001"), CreatedAt: time.UnixMilli(1764000000123).UTC(), PolicyVersion: 4,
	UserID: "local:ann=admin|x", SessionID: "s1", DeviceID: "d1", ProjectID: "shop", Action: "task.submit", ResourceType: "task", ResourceID: "t1",
	Result: audit.Denied, Layer: "agent", Rule: "agentPolicies[x]", Reason: "line\nbreak = \\ |", RequestID: "r1", Address: "192.0.2.1",
	Details: json.RawMessage(`{"a":"<b>"}`),
}

func TestEntryAsCEF(t *testing.T) {
	t.Parallel()
	const want = `CEF:0|CoderClaw|CoderClaw|1|task.submit|task.submit denied|6|rt=1764000000123 externalId=01937b3c-5a00-7000-8000-000000000001 ` +
		`act=denied outcome=failure suid=local:ann\=admin|x src=192.0.2.1 reason=line\nbreak \= \\ | cs1Label=session cs1=s1 cs2Label=device cs2=d1 ` +
		`cs3Label=project cs3=shop cs4Label=resource cs4=task t1 cs5Label=policy cs5=agent agentPolicies[x] cs6Label=request cs6=r1 ` +
		`cn1Label=policyVersion cn1=4 msg={"a":"<b>"}`
	if got := nasty.CEF(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e := nasty
	e.Action, e.Address = "a|b\\\nc", "2001:db8::1"
	if got := e.CEF(); !strings.HasPrefix(got, `CEF:0|CoderClaw|CoderClaw|1|a\|b\\ c|`) || !strings.Contains(got, "c6a2=2001:db8::1") || strings.Contains(got, "\n") {
		t.Errorf("got %s", got)
	}
}

func TestEntryAsOCSF(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(nasty.OCSF())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"activity_id":1,"category_uid":6,"class_uid":6003,"type_uid":600301,"severity_id":3,"time":1764000000123,"status_id":2,` +
		`"status_detail":"line\nbreak = \\ |","action_id":2,"disposition_id":2,"message":"task.submit denied",` +
		`"metadata":{"uid":"01937b3c-5a00-7000-8000-000000000001","version":"1.3.0","profiles":["security_control"],"product":{"name":"CoderClaw","vendor_name":"CoderClaw"}},` +
		`"actor":{"user":{"uid":"local:ann=admin|x"},"session":{"uid":"s1"}},"api":{"operation":"task.submit","request":{"uid":"r1"}},` +
		`"src_endpoint":{"ip":"192.0.2.1","uid":"d1"},"resources":[{"type":"task","uid":"t1"}],` +
		`"policy":{"name":"agent","uid":"agentPolicies[x]","version":"4"},"unmapped":{"details":{"a":"\u003cb\u003e"},"projectId":"shop"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestExportWritesEveryEntryOnALine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(t, entries(1203)...) // more than two pages
	for format, prefix := range map[audit.Format]string{audit.JSON: `{"id":"`, audit.OCSF: `{"activity_id":1`, audit.CEF: "CEF:0|"} {
		var out bytes.Buffer
		if err := r.Export(t.Context(), &out, audit.Query{ProjectID: "shop"}, format); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 1203 {
			t.Errorf("%s: %d lines", format, len(lines))
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, prefix) || format != audit.CEF && !json.Valid([]byte(line)) {
				t.Fatalf("%s: %s", format, line)
			}
		}
	}
	if err := r.Export(t.Context(), nil, audit.Query{}, "xml"); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("as xml: %v", err)
	}
	gone := errors.New("the reader has gone")
	if err := r.Each(t.Context(), audit.Query{}, func(audit.Entry) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("Each = %v", err)
	}
}
