package identity_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

func TestASessionRemembersForItselfAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	own, other := r.as(t, "ann"), r.as(t, "ann")
	id := uuid.MustParse(own.SessionID)
	put, err := r.PutMemory(t.Context(), own, id, "plan", json.RawMessage(`{ "step" : 1 }`), 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Memory(t.Context(), own, id, "plan")
	if err != nil || string(got.Value) != `{ "step" : 1 }` || got.Version != put.Version || !got.UpdatedAt.Equal(r.clock.Now()) {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := r.Memories(t.Context(), own, id); err != nil || len(list) != 1 || list[0].Size != len(got.Value) {
		t.Errorf("%v, %v", list, err)
	}
	for _, err := range []error{
		second(r.Memory(t.Context(), other, id, "plan")), second(r.Memories(t.Context(), other, id)),
		second(r.PutMemory(t.Context(), other, id, "plan", json.RawMessage(`1`), identity.AnyVersion)),
		r.DeleteMemory(t.Context(), other, id, "plan", identity.AnyVersion),
		second(r.Memory(t.Context(), policy.Caller{}, uuid.Nil, "plan")),
	} {
		wantFault(t, err, fault.NotFound, "no session")
	}
	if n := len(r.audited(t, "memory.put")); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestNoChangeOfMemoryIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	c := r.as(t, "ann")
	id := uuid.MustParse(c.SessionID)
	put := func(version int64) (identity.Memory, error) {
		return r.PutMemory(t.Context(), c, id, "k", json.RawMessage(`1`), version)
	}
	_, err := put(1)
	wantFault(t, err, fault.Conflict, "nothing is remembered")
	errs := together(4, func(int) error { return second(put(0)) })
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 4 were the first: %v", n, errs)
	}
	first, err := r.Memory(t.Context(), c, id, "k")
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, r.DeleteMemory(t.Context(), c, id, "k", first.Version+1), fault.Conflict, "is remembered")
	if err := r.DeleteMemory(t.Context(), c, id, "k", first.Version); err != nil {
		t.Fatal(err)
	}
	wantFault(t, r.DeleteMemory(t.Context(), c, id, "k", identity.AnyVersion), fault.NotFound, "no memory k")
	again, err := put(0)
	if err != nil || again.Version == first.Version {
		t.Errorf("a version comes twice: %+v, %v", again, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	c := r.as(t, "ann")
	id := uuid.MustParse(c.SessionID)
	put := func(key, value string) error {
		return second(r.PutMemory(t.Context(), c, id, key, json.RawMessage(value), identity.AnyVersion))
	}
	full := `"` + strings.Repeat("x", identity.MaxMemoryValue-2) + `"`
	wantFault(t, put("k", full+" "), fault.Invalid, "at most 65536 bytes")
	wantFault(t, put("k", `{"a":`), fault.Invalid, "must be JSON")
	wantFault(t, put("k", ""), fault.Invalid, "must be JSON")
	wantFault(t, put("a b\x00", "1"), fault.Invalid, "letters, digits")
	for i := range 15 {
		if err := put(fmt.Sprintf("k%d", i), full); err != nil {
			t.Fatal(err)
		}
	}
	wantFault(t, put("k15", full), fault.TooMany, "more than 1048576 bytes")
	if err := put("k14", full); err != nil {
		t.Errorf("what is there cannot be replaced: %v", err)
	}
	r.exec(t, `DELETE FROM session_memory`)
	r.exec(t, `INSERT INTO session_memory SELECT $1, now(), n, 'k' || n, '1' FROM generate_series(1, $2::int) n`, id, identity.MaxMemoryKeys)
	wantFault(t, put("more", "1"), fault.TooMany, "more than 1000 things")
}

func TestATicketOpensOneStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(t, "ann", policy.Developer)
	c := r.as(t, "ann")
	ticket := func() string {
		t.Helper()
		text, expires, err := r.Ticket(t.Context(), c)
		if err != nil || !expires.Equal(r.clock.Now().Add(identity.TicketTTL)) {
			t.Fatal(expires, err)
		}
		return text
	}
	one := ticket()
	errs := together(4, func(int) error { return second(r.Authenticate(t.Context(), identity.Request{Ticket: one})) })
	if n := succeeded(errs); n != 1 {
		t.Errorf("%d of 4 came in by one ticket: %v", n, errs)
	}
	two := ticket()
	r.clock.advance(identity.TicketTTL)
	r.refuses(t, identity.Request{Ticket: two}, "has expired")
	three := ticket()
	r.refuses(t, bearer(three), "")
	if err := r.Revoke(t.Context(), c, uuid.MustParse(c.SessionID)); err != nil {
		t.Fatal(err)
	}
	r.refuses(t, identity.Request{Ticket: three}, "the session was revoked")
	_, _, err := r.Ticket(t.Context(), policy.Caller{UserID: "operator"})
	wantFault(t, err, fault.Forbidden, "with a session")
}
