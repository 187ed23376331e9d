package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
)

// VerifyOptions say what the database is compared with.
type VerifyOptions struct {
	// Verifiers are the public keys that checkpoints are signed with, as
	// [Key.Public] returns them. At least one.
	Verifiers []string
	// Checkpoints is what was kept outside of the database: the checkpoint
	// file, or several, one after the other. nil: what the database holds is
	// compared with itself alone, which does not show that its end was cut off.
	Checkpoints io.Reader
}

// Kind is how a finding came to light.
type Kind string

// The kinds of findings.
const (
	Changed    Kind = "changed"    // the entry is not the one that was sealed
	Deleted    Kind = "deleted"    // an entry that was sealed is gone
	Inserted   Kind = "inserted"   // an entry that was put in past the sealer
	Truncated  Kind = "truncated"  // the log was longer
	Rewritten  Kind = "rewritten"  // the log is not the one that was signed
	BadHash    Kind = "bad-hash"   // a stored hash does not follow from the entries
	BadCheckpt Kind = "checkpoint" // a checkpoint that no given key has signed
)

// Finding is one contradiction.
type Finding struct {
	Kind    Kind      `json:"kind"`
	Seq     int64     `json:"seq"`     // place in the log, from 0; -1: none
	EntryID uuid.UUID `json:"entryId"` // zero: no single entry
	Text    string    `json:"text"`
}

// Dropped is a month whose entries were dropped by [Log.DropBefore], as an
// entry of the log says.
type Dropped struct {
	Month    string    `json:"month"` // 2006-01
	Entries  int64     `json:"entries"`
	FirstSeq int64     `json:"firstSeq"`
	LastSeq  int64     `json:"lastSeq"`
	Digest   string    `json:"digest"` // SHA-256 of place and id of each, in hex
	By       string    `json:"by,omitempty"`
	EntryID  uuid.UUID `json:"entryId,omitzero"` // the entry that says so
}

// maxFindings bounds how many findings of a report are spelled out.
const maxFindings = 1000

// Report is what [Verify] found.
type Report struct {
	Size        int64 `json:"size"`        // entries that are sealed
	Unsealed    int64 `json:"unsealed"`    // younger ones, which nothing is known of yet
	Checkpoints int   `json:"checkpoints"` // that the log was compared with
	Damaged     int   `json:"damaged"`     // paragraphs among them that are none, such as of a write cut short
	// Covered is the size of the largest checkpoint from outside: what was
	// sealed after it could still be cut off unnoticed.
	Covered int64     `json:"covered"`
	Dropped []Dropped `json:"dropped,omitempty"`
	// Findings are the contradictions, the first thousand of Found.
	Findings []Finding `json:"findings,omitempty"`
	Found    int64     `json:"found"`
}

// OK reports whether the log is as it was sealed.
func (r *Report) OK() bool { return r.Found == 0 }

func (r *Report) find(kind Kind, seq int64, id uuid.UUID, format string, args ...any) {
	if r.Found++; len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{Kind: kind, Seq: seq, EntryID: id, Text: fmt.Sprintf(format, args...)})
	}
}

// Beginner is a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Verify reads the whole log and tells every contradiction: among the entries
// and hashes of the database, and to the checkpoints. It changes nothing and
// needs no more rights than to read. Memory does not grow with the entries,
// but with the checkpoints, by some hundred bytes each.
//
// The error is for what cannot be read, not for what was found; Invalid for a
// key that is none.
func Verify(ctx context.Context, db Beginner, o VerifyOptions) (*Report, error) {
	// Before the database: what was signed by now, it must show.
	var r Report
	known, verifiers, err := r.readOutside(o)
	if err != nil {
		return nil, err
	}
	err = pgx.BeginTxFunc(ctx, db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		return r.compare(ctx, tx, known, verifiers)
	})
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("verify the audit log: %w", err))
	}
	return &r, nil
}

// readOutside reads the checkpoints from outside, smallest first.
func (r *Report) readOutside(o VerifyOptions) (known []Checkpoint, verifiers []note.Verifier, err error) {
	for _, key := range o.Verifiers {
		v, err := note.NewVerifier(key)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid, "%.100q is not a public key of checkpoints", key)
		}
		verifiers = append(verifiers, v)
	}
	if len(verifiers) == 0 {
		return nil, nil, fault.New(fault.Invalid, "the public key of the checkpoints is missing")
	}
	if o.Checkpoints == nil {
		return nil, verifiers, nil
	}
	r.Damaged, err = readCheckpoints(o.Checkpoints, func(signed string) error {
		c, err := OpenCheckpoint(signed, verifiers...)
		if err != nil {
			r.find(BadCheckpt, -1, uuid.Nil, "checkpoint %d from outside: %v", r.Checkpoints+1, err)
			return nil
		}
		c.Note, c.Origin = "", "" // not needed any more
		known = append(known, c)
		r.Covered = max(r.Covered, c.Size)
		r.Checkpoints++
		return nil
	})
	slices.SortStableFunc(known, func(a, b Checkpoint) int { return int(a.Size - b.Size) })
	return known, verifiers, err
}

// verification is the state of reading through the log.
type verification struct {
	*Report
	known []Checkpoint // that were not met yet
	head  head
	f     frontier
	next  int64 // the place that comes next
	leaf  []byte
	months
	rewritten bool
	agreed    int64 // the size of the last checkpoint that agrees
}

// compare does Verify's work on one snapshot.
func (r *Report) compare(ctx context.Context, tx pgx.Tx, known []Checkpoint, verifiers []note.Verifier) error {
	h, err := readHead(ctx, tx)
	if err != nil {
		return err
	}
	// The checkpoint in the database is one more, and the log must end there.
	if h.size > 0 || h.checkpoint != "" {
		c, err := OpenCheckpoint(h.checkpoint, verifiers...)
		switch {
		case err != nil:
			r.find(BadCheckpt, -1, uuid.Nil, "the checkpoint in the database: %v", err)
		case c.Size != h.size:
			r.find(Rewritten, -1, uuid.Nil, "the database says that %d entries are sealed, its checkpoint %d", h.size, c.Size)
			fallthrough
		default:
			known = append(known, c)
			slices.SortStableFunc(known, func(a, b Checkpoint) int { return int(a.Size - b.Size) })
		}
	}
	v := verification{Report: r, known: known, head: h, months: months{}}
	if err := v.meet(); err != nil {
		return err
	}
	if err := eachLeaf(ctx, tx, v.add); err != nil {
		return err
	}
	r.Size = v.next
	if v.next > h.size {
		r.find(Inserted, h.size, uuid.Nil, "%d leaves after the %d that were sealed", v.next-h.size, h.size)
	}
	if v.next < h.size {
		r.find(Truncated, v.next, uuid.Nil, "%d entries were sealed, but the database has %d", h.size, v.next)
	}
	if n := len(v.known); n > 0 && v.known[n-1].Size > max(h.size, v.next) {
		r.find(Truncated, v.next, uuid.Nil, "there is a checkpoint of %d entries, but the database has %d", v.known[n-1].Size, v.next)
	}
	if err := v.readUnsealed(ctx, tx); err != nil {
		return err
	}
	v.settle(v.Report)
	return nil
}

// leafRow is a leaf and its entry, nil if that is gone.
type leafRow struct {
	seq    int64
	id     uuid.UUID
	hashes []byte
	entry  *row
}

// leafBatch is how many leaves are read at once.
const leafBatch = 5000

// eachLeaf calls yield for all leaves, in order.
func eachLeaf(ctx context.Context, tx pgx.Tx, yield func(leafRow) error) error {
	for after := int64(math.MinInt64); ; {
		rows, err := tx.Query(ctx, `SELECT l.seq, l.entry_id, l.hashes, `+rowColumns+`
			FROM (SELECT * FROM audit_leaves WHERE seq > $1 ORDER BY seq LIMIT $2) l
			LEFT JOIN audit_entries e ON e.id = l.entry_id ORDER BY l.seq`, after, leafBatch)
		if err != nil {
			return fmt.Errorf("read leaves: %w", err)
		}
		n := 0
		for ; rows.Next(); n++ {
			var l leafRow
			if l.entry, err = scanRow(rows, &l.seq, &l.id, &l.hashes); err == nil {
				err = yield(l)
			}
			if err != nil {
				rows.Close()
				return err
			}
			after = l.seq
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("read leaves: %w", err)
		}
		if n < leafBatch {
			return nil
		}
	}
}

// maxSeq is more than any log has entries.
const maxSeq = 1 << 48

// add checks the next leaf and its entry.
func (v *verification) add(l leafRow) error {
	switch {
	case l.seq < 0 || l.seq > maxSeq:
		v.find(Inserted, l.seq, l.id, "the leaf has a place that there is not")
		return nil
	case l.seq != v.next:
		v.find(Deleted, v.next, uuid.Nil, "the leaves %d to %d are missing", v.next, l.seq-1)
		v.next = l.seq // the tree is broken; what follows is still compared by itself
	}
	v.next++
	if len(l.hashes) < tlog.HashSize {
		v.find(BadHash, l.seq, l.id, "the leaf has no hash")
		l.hashes = make([]byte, tlog.HashSize)
	}
	stored := tlog.Hash(l.hashes[:tlog.HashSize])
	if l.entry == nil {
		v.missing(l)
	} else {
		v.leaf = appendLeaf(v.leaf[:0], l.entry)
		if tlog.RecordHash(v.leaf) != stored {
			v.find(Changed, l.seq, l.id, "the entry is not the one that was sealed")
		}
		v.noteDrop(l.entry)
	}
	hashes, err := v.f.add(l.seq, stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(joined(hashes), l.hashes) {
		v.find(BadHash, l.seq, l.id, "the stored hashes do not follow from those before")
	}
	return v.meet()
}

// meet compares the tree as it stands with the checkpoints of its size.
func (v *verification) meet() error {
	for len(v.known) > 0 && v.known[0].Size <= v.next {
		c := v.known[0]
		v.known = v.known[1:]
		if c.Size < v.next {
			continue // within leaves that are missing
		}
		root, err := tlog.TreeHash(v.next, &v.f)
		if err != nil {
			return fmt.Errorf("hash the tree: %w", err)
		}
		if root != c.Root && !v.rewritten {
			v.rewritten = true // and so is all that follows
			v.find(Rewritten, v.next-1, uuid.Nil, "the log is not the one of which a checkpoint of %d entries was signed; up to %d it is", c.Size, v.agreed)
		}
		if !v.rewritten {
			v.agreed = c.Size
		}
	}
	return nil
}

// readUnsealed looks at the entries that are not in the log. Those that were
// written after its last are young; the sealer has passed others by, so they
// came later than they say.
func (v *verification) readUnsealed(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT e.txid >= pg_snapshot_xmax(pg_current_snapshot()), `+rowColumns+` FROM audit_entries e
		WHERE NOT EXISTS (SELECT FROM audit_leaves l WHERE l.entry_id = e.id)`)
	if err != nil {
		return fmt.Errorf("read unsealed entries: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var ahead bool
		e, err := scanRow(rows, &ahead)
		if err != nil {
			return fmt.Errorf("read unsealed entries: %w", err)
		}
		if !v.head.renumbered && (e.txid <= v.head.last || ahead) {
			v.find(Inserted, -1, e.ID, "the entry was not written by the transaction that it names")
			continue
		}
		v.Unsealed++
		v.noteDrop(e)
	}
	return rows.Err()
}

// months are those that entries are missing of, by the time in their ids.
type months map[string]*monthOfGaps

// monthOfGaps is what is missing of a month, and what the log says of it.
type monthOfGaps struct {
	Dropped
	digest hash.Hash
	first  []Finding
	said   *Dropped
}

// firstGaps is how many missing entries of a month are named.
const firstGaps = 100

func (m months) of(name string) *monthOfGaps {
	g := m[name]
	if g == nil {
		g = &monthOfGaps{Dropped: Dropped{Month: name, FirstSeq: -1}, digest: sha256.New()}
		m[name] = g
	}
	return g
}

// missing notes a leaf without entry.
func (m months) missing(l leafRow) {
	g := m.of(monthOfID(l.id))
	g.count(l.seq, l.id)
	if len(g.first) < firstGaps {
		g.first = append(g.first, Finding{Kind: Deleted, Seq: l.seq, EntryID: l.id, Text: "the entry is gone"})
	}
}

func (g *monthOfGaps) count(seq int64, id uuid.UUID) {
	if g.FirstSeq < 0 {
		g.FirstSeq = seq
	}
	g.LastSeq = seq
	g.Entries++
	fmt.Fprintf(g.digest, "%d %s\n", seq, id)
}

func (g *monthOfGaps) sum() string { return hex.EncodeToString(g.digest.Sum(nil)) }

// noteDrop notes what an entry says of a month that was dropped.
func (m months) noteDrop(e *row) {
	if e.Action != dropAction || e.Result != Allowed {
		return
	}
	var d Dropped
	if json.Unmarshal(e.Details, &d) != nil || d.Month == "" {
		return
	}
	d.By, d.EntryID = e.UserID, e.ID
	m.of(d.Month).said = &d
}

// settle reports what was dropped, and what else is missing.
func (m months) settle(r *Report) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		g := m[name]
		if g.said != nil && g.said.Entries == g.Entries && (g.Entries == 0 || g.said.Digest == g.sum()) {
			r.Dropped = append(r.Dropped, *g.said)
			continue
		}
		if g.said != nil {
			r.find(Deleted, g.FirstSeq, uuid.Nil, "of %s %d entries were dropped by retention, but others are gone: %d",
				name, g.said.Entries, g.Entries)
		}
		for _, f := range g.first {
			r.find(f.Kind, f.Seq, f.EntryID, "%s", f.Text)
		}
		r.Found += max(0, g.Entries-int64(len(g.first)))
	}
}

// monthOfID returns the month of a UUIDv7, by which entries are dropped.
func monthOfID(id uuid.UUID) string {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC().Format(monthLayout)
}
