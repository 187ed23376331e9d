package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/coderclaw/runtime/internal/fault"
)

// Format is how Export writes entries, one a line.
type Format string

// The formats.
const (
	JSON Format = "json" // as Entry is encoded
	OCSF Format = "ocsf" // see Entry.OCSF
	CEF  Format = "cef"  // see Entry.CEF
)

// ContentType returns the format's media type.
func (f Format) ContentType() string {
	if f == CEF {
		return "text/plain; charset=utf-8"
	}
	return "application/x-ndjson"
}

// Export writes the entries that the query selects, newest first, one a line.
// Invalid is the fault for a format that there is not, before anything is
// written. Memory is bounded, whatever is selected.
func (l *Log) Export(ctx context.Context, w io.Writer, q Query, f Format) error {
	out := bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	var write func(Entry) error
	switch f {
	case JSON:
		write = func(e Entry) error { return lines.Encode(e) }
	case OCSF:
		write = func(e Entry) error { return lines.Encode(e.OCSF()) }
	case CEF:
		write = func(e Entry) error {
			_, err := out.WriteString(e.CEF() + "\n")
			return err
		}
	default:
		return fault.New(fault.Invalid, "%.40q is not one of json, ocsf, cef", f)
	}
	if err := l.Each(ctx, q, write); err != nil {
		return err
	}
	return out.Flush()
}

// product names this program to a SIEM.
const (
	vendor  = "CoderClaw"
	product = "CoderClaw"
)

// ocsf is an event of the class API Activity with the profile Security
// Control.
type ocsf struct {
	ActivityID   int            `json:"activity_id"`
	CategoryUID  int            `json:"category_uid"`
	ClassUID     int            `json:"class_uid"`
	TypeUID      int            `json:"type_uid"`
	SeverityID   int            `json:"severity_id"`
	Time         int64          `json:"time"` // milliseconds
	StatusID     int            `json:"status_id"`
	StatusDetail string         `json:"status_detail,omitempty"`
	ActionID     int            `json:"action_id"`
	Disposition  int            `json:"disposition_id"`
	Message      string         `json:"message"`
	Metadata     ocsfMetadata   `json:"metadata"`
	Actor        ocsfActor      `json:"actor"`
	API          ocsfAPI        `json:"api"`
	Source       ocsfEndpoint   `json:"src_endpoint"`
	Resources    []ocsfResource `json:"resources,omitempty"`
	Policy       *ocsfPolicy    `json:"policy,omitempty"`
	Unmapped     map[string]any `json:"unmapped,omitempty"`
}

type (
	ocsfMetadata struct {
		UID      string   `json:"uid"`
		Version  string   `json:"version"`
		Profiles []string `json:"profiles"`
		Product  struct {
			Name   string `json:"name"`
			Vendor string `json:"vendor_name"`
		} `json:"product"`
	}
	ocsfActor struct {
		User    ocsfUser     `json:"user"`
		Session *ocsfSession `json:"session,omitempty"`
	}
	ocsfUser struct {
		UID string `json:"uid,omitempty"`
	}
	ocsfSession struct {
		UID string `json:"uid"`
	}
	ocsfAPI struct {
		Operation string       `json:"operation"`
		Request   *ocsfRequest `json:"request,omitempty"`
	}
	ocsfRequest struct {
		UID string `json:"uid"`
	}
	ocsfEndpoint struct {
		IP  string `json:"ip,omitempty"`
		UID string `json:"uid,omitempty"` // of the device
	}
	ocsfResource struct {
		Type string `json:"type,omitempty"`
		UID  string `json:"uid,omitempty"`
	}
	ocsfPolicy struct {
		Name    string `json:"name"`
		UID     string `json:"uid,omitempty"`
		Version string `json:"version"`
	}
)

// The ids of OCSF 1.3.
const (
	ocsfVersion     = "1.3.0"
	ocsfApplication = 6    // category
	ocsfAPIActivity = 6003 // class
)

// activities are OCSF's ids of what the verbs do; others are 99, Other.
var activities = map[string]int{
	"create": 1, "submit": 1, "enroll": 1, "put": 3,
	"read": 2, "export": 2,
	"update": 3, "cancel": 3, "claim": 3, "refresh": 3, "verify": 3, "trust": 3, "rollback": 3,
	"delete": 4, "revoke": 4, "drop": 4,
}

// OCSF returns the entry as an event of the Open Cybersecurity Schema
// Framework 1.3, to be encoded as JSON: class API Activity (6003), which tells
// who called what from where, with the profile Security Control for the
// decision. What has no place there is in unmapped, by its name in Entry.
func (e Entry) OCSF() any {
	_, verb, _ := strings.Cut(e.Action, ".")
	activity, ok := activities[verb]
	if !ok {
		activity = 99
	}
	o := ocsf{
		ActivityID: activity, CategoryUID: ocsfApplication, ClassUID: ocsfAPIActivity, TypeUID: ocsfAPIActivity*100 + activity,
		SeverityID: 1, Time: e.CreatedAt.UnixMilli(), StatusID: 1, StatusDetail: e.Reason, ActionID: 1, Disposition: 1,
		Message: e.Action + " " + string(e.Result),
		Actor:   ocsfActor{User: ocsfUser{e.UserID}}, API: ocsfAPI{Operation: e.Action},
		Source: ocsfEndpoint{IP: e.Address, UID: e.DeviceID},
	}
	o.Metadata = ocsfMetadata{UID: e.ID.String(), Version: ocsfVersion, Profiles: []string{"security_control"}}
	o.Metadata.Product.Name, o.Metadata.Product.Vendor = product, vendor
	switch e.Result {
	case Denied:
		o.SeverityID, o.StatusID, o.ActionID, o.Disposition = 3, 2, 2, 2 // medium, failure, denied, blocked
	case Failed:
		o.SeverityID, o.StatusID, o.ActionID, o.Disposition = 2, 2, 0, 27 // low, failure, unknown, error
	}
	if e.SessionID != "" {
		o.Actor.Session = &ocsfSession{e.SessionID}
	}
	if e.RequestID != "" {
		o.API.Request = &ocsfRequest{e.RequestID}
	}
	if e.ResourceType != "" || e.ResourceID != "" {
		o.Resources = []ocsfResource{{e.ResourceType, e.ResourceID}}
	}
	if e.Layer != "" {
		o.Policy = &ocsfPolicy{Name: e.Layer, UID: e.Rule, Version: strconv.FormatInt(e.PolicyVersion, 10)}
	}
	if e.ProjectID != "" || e.Details != nil {
		o.Unmapped = map[string]any{}
		if e.ProjectID != "" {
			o.Unmapped["projectId"] = e.ProjectID
		}
		if e.Details != nil {
			o.Unmapped["details"] = e.Details
		}
	}
	return o
}

var (
	cefHeader    = strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ")
	cefExtension = strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)
)

// CEF returns the entry as a line of ArcSight's Common Event Format, version
// 0, without a line break.
func (e Entry) CEF() string {
	severity, outcome := "2", "success"
	switch e.Result {
	case Denied:
		severity, outcome = "6", "failure"
	case Failed:
		severity, outcome = "4", "failure"
	}
	var b strings.Builder
	b.WriteString("CEF:0")
	for _, field := range []string{vendor, product, "1", e.Action, e.Action + " " + string(e.Result), severity} {
		b.WriteString("|" + cefHeader.Replace(field))
	}
	b.WriteByte('|')
	separator := ""
	add := func(key, value string) {
		if value != "" {
			b.WriteString(separator + key + "=" + cefExtension.Replace(value))
			separator = " "
		}
	}
	custom := func(key, label, value string) {
		if value != "" {
			add(key+"Label", label)
			add(key, value)
		}
	}
	add("rt", strconv.FormatInt(e.CreatedAt.UnixMilli(), 10))
	add("externalId", e.ID.String())
	add("act", string(e.Result))
	add("outcome", outcome)
	add("suid", e.UserID)
	if strings.Contains(e.Address, ":") {
		custom("c6a2", "Source IPv6 Address", e.Address)
	} else {
		add("src", e.Address)
	}
	add("reason", e.Reason)
	custom("cs1", "session", e.SessionID)
	custom("cs2", "device", e.DeviceID)
	custom("cs3", "project", e.ProjectID)
	custom("cs4", "resource", strings.Trim(e.ResourceType+" "+e.ResourceID, " "))
	custom("cs5", "policy", strings.Trim(e.Layer+" "+e.Rule, " "))
	custom("cs6", "request", e.RequestID)
	custom("cn1", "policyVersion", strconv.FormatInt(e.PolicyVersion, 10))
	add("msg", string(e.Details))
	return b.String()
}
