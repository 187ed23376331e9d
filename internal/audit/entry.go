package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// Result is how a decision went.
type Result string

// The results.
const (
	Allowed Result = "allowed"
	Denied  Result = "denied"
	// Failed: it could not be decided, or what was allowed did not come about.
	Failed Result = "error"
)

// Entry is one decision: who, from where, asked to do what, and what came of
// it. Id and time are given to it by NewEntry.
type Entry struct {
	ID            uuid.UUID       `json:"id"`
	CreatedAt     time.Time       `json:"createdAt"`
	PolicyVersion int64           `json:"policyVersion"` // of the organisation's policy document; 0: the built-in one
	UserID        string          `json:"userId"`
	SessionID     string          `json:"sessionId,omitempty"`
	DeviceID      string          `json:"deviceId,omitempty"`
	ProjectID     string          `json:"projectId,omitempty"`
	Action        string          `json:"action"` // resource and verb, e.g. task.submit
	ResourceType  string          `json:"resourceType,omitempty"`
	ResourceID    string          `json:"resourceId,omitempty"`
	Result        Result          `json:"result"`
	Layer         string          `json:"layer,omitempty"` // of the policy that decided
	Rule          string          `json:"rule,omitempty"`
	Reason        string          `json:"reason,omitempty"`
	RequestID     string          `json:"requestId,omitempty"`
	Address       string          `json:"address,omitempty"`
	Details       json.RawMessage `json:"details,omitempty"` // an object, or nil
}

// NewEntry is the entry of a decision about the caller.
func NewEntry(c policy.Caller, action, resourceType, resourceID string, d policy.Decision) Entry {
	e := Entry{
		ID: uuid.Must(uuid.NewV7()), CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
		PolicyVersion: d.PolicyVersion,
		UserID:        c.UserID, SessionID: c.SessionID, DeviceID: c.DeviceID, ProjectID: c.ProjectID,
		Action: action, ResourceType: resourceType, ResourceID: resourceID, Result: Denied,
		Layer: string(d.Layer), Rule: d.Rule, Reason: d.Reason, RequestID: c.RequestID, Address: c.Address,
	}
	if d.Allowed {
		e.Result = Allowed
	}
	return e
}

type column struct{ name, kind string }

// Entries that are written together are mostly of one caller, who was allowed
// them by one rule. So what they share is sent once, and what is an entry's own
// says by number which of that goes with it.
var (
	ownColumns    = []column{{"id", "uuid"}, {"created_at", "timestamptz"}, {"resource_id", "text"}, {"request_id", "text"}}
	sharedColumns = []column{
		{"policy_version", "bigint"}, {"user_id", "text"}, {"session_id", "text"}, {"device_id", "text"}, {"project_id", "text"},
		{"action", "text"}, {"resource_type", "text"}, {"result", "text"}, {"layer", "text"}, {"rule", "text"}, {"reason", "text"},
		{"address", "text"}, {"details", "text"},
	}
)

// InsertSQL is a statement that inserts entries, for use within a larger one.
// The values that Args returns are its parameters from number first on. They
// make rows named entry, with their number (1, 2, …) in n; more, in the form of
// JOIN or WHERE clauses, chooses among them. instead gives columns another
// value than the parameter's, as an SQL expression.
func InsertSQL(first int, more string, instead map[string]string) string {
	var names, values []string
	unnest := func(columns []column, number string) string {
		var params, outs []string
		for _, c := range columns {
			params = append(params, "$"+strconv.Itoa(first)+"::"+c.kind+"[]")
			outs = append(outs, c.name)
			first++
		}
		return "unnest(" + strings.Join(params, ", ") + ") WITH ORDINALITY AS " + number + " (" + strings.Join(outs, ", ")
	}
	for _, c := range slices.Concat(ownColumns, sharedColumns) {
		names, values = append(names, c.name), append(values, cmp.Or(instead[c.name], "entry."+c.name))
	}
	values[len(values)-1] += "::json"
	return "INSERT INTO audit_entries (" + strings.Join(names, ", ") + ") SELECT " + strings.Join(values, ", ") +
		" FROM (SELECT * FROM " + unnest(append(slices.Clip(ownColumns), column{"kind", "int"}), "own") + ", n) JOIN " +
		unnest(sharedColumns, "shared") + ", kind) USING (kind)) AS entry " + more
}

// MaxTextBytes bounds each text of an entry; what is longer is cut. It fits an
// index, whatever a client sent.
const MaxTextBytes = 1024

// text makes of what may come from a client what the database takes as text:
// valid UTF-8 without NUL, of bounded length.
func text(s string) string {
	if len(s) > MaxTextBytes {
		s = s[:MaxTextBytes]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "\ufffd")
}

// shared is what entries have in common.
type shared struct {
	version int64
	texts   [11]string
	details string
}

func (e Entry) shared() shared {
	return shared{e.PolicyVersion, [...]string{
		e.UserID, e.SessionID, e.DeviceID, e.ProjectID, e.Action, e.ResourceType, string(e.Result), e.Layer, e.Rule, e.Reason, e.Address,
	}, string(e.Details)}
}

// Args are the parameters of InsertSQL for the entries.
func Args(entries ...Entry) []any {
	n := len(entries)
	ids, times, kinds, own := make([]uuid.UUID, n), make([]time.Time, n), make([]int, n), make([]string, 2*n)
	numbers := make(map[shared]int, 1)
	var all []shared
	for i, e := range entries {
		k := e.shared()
		if numbers[k] == 0 {
			all = append(all, k)
			numbers[k] = len(all)
		}
		ids[i], times[i], own[i], own[n+i], kinds[i] = e.ID, e.CreatedAt, text(e.ResourceID), text(e.RequestID), numbers[k]
	}
	versions, details := make([]int64, len(all)), make([]*string, len(all))
	texts := make([][]string, len(shared{}.texts))
	for f := range texts {
		texts[f] = make([]string, len(all))
	}
	for i := range all {
		versions[i] = all[i].version
		for f, v := range all[i].texts {
			texts[f][i] = text(v)
		}
		if all[i].details != "" {
			details[i] = &all[i].details
		}
	}
	args := []any{ids, times, own[:n], own[n:], kinds, versions}
	for _, t := range texts {
		args = append(args, t)
	}
	return append(args, details)
}

var appendSQL = InsertSQL(1, "", nil)

// Append writes entries in the transaction of what they allow, so that neither
// is there without the other. A refusal is an AuditUnavailable fault.
func Append(ctx context.Context, tx pgx.Tx, entries ...Entry) error {
	if _, err := tx.Exec(ctx, appendSQL, Args(entries...)...); err != nil {
		return Fault(fmt.Errorf("append to the audit log: %w", err))
	}
	return nil
}

// Queue is Append within a batch, which is one transaction too. The error of
// the batch wants Fault.
func Queue(b *pgx.Batch, entries ...Entry) { b.Queue(appendSQL, Args(entries...)...) }

// Fault turns the database's refusal to take an entry into an AuditUnavailable
// fault. Other errors come back as they are.
func Fault(err error) error {
	var pgErr *pgconn.PgError
	if fault.CodeOf(err) == "" && errors.As(err, &pgErr) &&
		(strings.HasPrefix(pgErr.TableName, "audit_") || strings.Contains(pgErr.Message, "audit_")) {
		return fault.Wrap(err, fault.AuditUnavailable, "the audit log takes no entry now, so nothing was changed")
	}
	return err
}
