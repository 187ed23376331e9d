package audit

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestLeafOfAnEntryNeverChanges holds the form that hashes were made of:
// whatever it costs, it stays.
func TestLeafOfAnEntryNeverChanges(t *testing.T) {
	t.Parallel()
	r := &row{txid: 1<<63 + 5, Entry: Entry{
		ID:        uuid.MustParse("01937b3c-5a00-7000-8000-000000000001"),
		CreatedAt: time.Date(2026, 2, 3, 4, 5, 6, 7000, time.FixedZone("", 3600)), PolicyVersion: 7,
		UserID: "local:ann", SessionID: "s", DeviceID: "d", ProjectID: "p", Action: "task.submit", ResourceType: "task", ResourceID: "t",
		Result: Allowed, Layer: "custom", Rule: "r", Reason: "a \"b\" \\ \b\t\n\f\r\x01\x1f\x7f <&> ü\u2028", RequestID: "q", Address: "::1",
		Details: json.RawMessage(`{ "b":1 }`),
	}}
	const want = `{"action":"task.submit","address":"::1","createdAt":"2026-02-03T03:05:06.000007Z","details":"{ \"b\":1 }","deviceId":"d",` +
		`"id":"01937b3c-5a00-7000-8000-000000000001","layer":"custom","policyVersion":7,"projectId":"p",` +
		`"reason":"a \"b\" \\ \b\t\n\f\r\u0001\u001f` + "\x7f" + ` <&> ü` + "\u2028" + `","requestId":"q","resourceId":"t","resourceType":"task",` +
		`"result":"allowed","rule":"r","sessionId":"s","txid":"9223372036854775813","userId":"local:ann","v":1}`
	if got := string(appendLeaf(nil, r)); got != want || !json.Valid([]byte(got)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFloodsAreToldApartAndForgotten(t *testing.T) {
	t.Parallel()
	var f floods
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fail := func(address string) bool { return f.admit(Entry{Address: address, Action: authenticate}, now) }
	for i := range maxFlooders {
		if !fail(fmt.Sprintf("10.%d.%d.1", i>>8, i&255)) {
			t.Fatal("the first failure of an address is held back")
		}
	}
	admitted := 0
	for i := range 1000 { // no more are told apart
		if fail(fmt.Sprintf("11.%d.%d.1", i>>8, i&255)) {
			admitted++
		}
	}
	if admitted != floodLimit || len(f.from) != maxFlooders+1 {
		t.Errorf("%d failures of further addresses were admitted, %d addresses are kept", admitted, len(f.from))
	}
	if entries := f.release(now.Add(floodWindow - 1)); len(entries) != 0 || !f.pending(now) {
		t.Errorf("released early: %v", entries)
	}
	now = now.Add(floodWindow)
	entries := f.release(now)
	if len(entries) != 1 || string(entries[0].Details[:13]) != `{"count":990,` || len(f.from) != 0 || f.pending(now) {
		t.Errorf("released %v, %d addresses are kept", entries, len(f.from))
	}
	if !fail("10.0.0.1") {
		t.Error("an address is not forgiven")
	}
}
