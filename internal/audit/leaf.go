package audit

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"
)

// row is an entry as it stands in the database.
type row struct {
	Entry
	txid uint64
}

// rowColumns are those that scanRow reads, of a table called e.
const rowColumns = `e.id, e.created_at, e.txid, e.policy_version, e.user_id, e.session_id, e.device_id, e.project_id,
	e.action, e.resource_type, e.resource_id, e.result, e.layer, e.rule, e.reason, e.request_id, e.address, e.details::text`

// scanRow reads rowColumns, and what stands before them into first. Where an
// outer join found no entry it returns nil.
func scanRow(rows pgx.Rows, first ...any) (*row, error) {
	var (
		id      *uuid.UUID
		created *time.Time
		txid    *uint64
		version *int64
		text    [13]*string
		details *string
	)
	target := slices.Concat(first, []any{&id, &created, &txid, &version})
	for i := range text {
		target = append(target, &text[i])
	}
	if err := rows.Scan(append(target, &details)...); err != nil || id == nil {
		return nil, err
	}
	r := &row{txid: *txid, Entry: Entry{
		ID: *id, CreatedAt: created.UTC(), PolicyVersion: *version,
		UserID: *text[0], SessionID: *text[1], DeviceID: *text[2], ProjectID: *text[3],
		Action: *text[4], ResourceType: *text[5], ResourceID: *text[6], Result: Result(*text[7]),
		Layer: *text[8], Rule: *text[9], Reason: *text[10], RequestID: *text[11], Address: *text[12],
	}}
	if details != nil {
		r.Details = []byte(*details)
	}
	return r, nil
}

// leafTime is RFC 3339 in UTC, always with six decimals.
const leafTime = "2006-01-02T15:04:05.000000Z"

// appendLeaf appends what is hashed of an entry: all its columns, as JSON in
// the canonical form of RFC 8785, so that the same entry has the same bytes
// for ever and in any language. Details stand in it as text, as they were
// written; the transaction's number too, since it may exceed what a number in
// that form can hold.
//
// A change of this form is another version, and needs the old one for what
// was sealed before.
func appendLeaf(b []byte, r *row) []byte {
	b = appendString(append(b, `{"action":`...), r.Action)
	b = appendString(append(b, `,"address":`...), r.Address)
	b = r.CreatedAt.UTC().AppendFormat(append(b, `,"createdAt":"`...), leafTime)
	b = append(b, `","details":`...)
	if r.Details == nil {
		b = append(b, "null"...)
	} else {
		b = appendString(b, string(r.Details))
	}
	b = appendString(append(b, `,"deviceId":`...), r.DeviceID)
	b = appendString(append(b, `,"id":`...), r.ID.String())
	b = appendString(append(b, `,"layer":`...), r.Layer)
	b = strconv.AppendInt(append(b, `,"policyVersion":`...), r.PolicyVersion, 10)
	b = appendString(append(b, `,"projectId":`...), r.ProjectID)
	b = appendString(append(b, `,"reason":`...), r.Reason)
	b = appendString(append(b, `,"requestId":`...), r.RequestID)
	b = appendString(append(b, `,"resourceId":`...), r.ResourceID)
	b = appendString(append(b, `,"resourceType":`...), r.ResourceType)
	b = appendString(append(b, `,"result":`...), string(r.Result))
	b = appendString(append(b, `,"rule":`...), r.Rule)
	b = appendString(append(b, `,"sessionId":`...), r.SessionID)
	b = strconv.AppendUint(append(b, `,"txid":"`...), r.txid, 10)
	b = appendString(append(b, `","userId":`...), r.UserID)
	return append(b, `,"v":1}`...)
}

// appendString quotes s by RFC 8785, section 3.2.2.2. encoding/json escapes
// more, and has changed what.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		}
	}
	return append(b, '"')
}

// frontier holds, by level, the last complete subtree of a growing tree: all
// that is needed to add to the tree and to hash it as it stands.
type frontier [64]tlog.Hash

// ReadHashes makes a frontier a tlog.HashReader for those hashes.
func (f *frontier) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		hashes[i] = f[level]
	}
	return hashes, nil
}

// add adds the nth leaf. It returns the hashes that it completes, the leaf's
// own first.
func (f *frontier) add(n int64, leaf tlog.Hash) ([]tlog.Hash, error) {
	hashes, err := tlog.StoredHashesForRecordHash(n, leaf, f)
	if err != nil {
		return nil, fmt.Errorf("hash leaf %d: %w", n, err)
	}
	copy(f[:], hashes)
	return hashes, nil
}

// joined is how hashes are stored.
func joined(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}
