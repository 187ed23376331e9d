package audit_test

import (
	"testing"
)

func TestSealedEntriesAreProvedAndVerified(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.clean(t, 0)
	all := entries(137)
	for i, e := range all {
		r.append(t, e)
		if i%10 == 9 {
			r.seal(t, int64(i+1))
		}
	}
	r.seal(t, 137)
	report := r.clean(t, 137)
	if report.Checkpoints < 14 || report.Covered != 137 || report.Unsealed != 0 {
		t.Errorf("the report says %+v", report)
	}
	for _, e := range all {
		p, err := r.Proof(t.Context(), query(e.SessionID), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(r.verifier(t)); err != nil {
			t.Error(err)
		}
		p.Leaf = p.Leaf[:len(p.Leaf)-2] + "2}"
		if p.Check(r.verifier(t)) == nil {
			t.Error("the proof holds for another entry too")
		}
	}
	if _, err := r.Proof(t.Context(), query("another"), all[0].ID); err == nil {
		t.Error("an entry that the query does not select was proved")
	}
}
