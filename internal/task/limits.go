package task

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/coderclaw/runtime/internal/fault"
)

// The limits on what a task may hold. Bytes are of UTF-8.
const (
	MaxDescriptionChars = 2000
	MaxInputBytes       = 256 << 10
	MaxLabels           = 64
	MaxLabelBytes       = 256 // of a key, and of a value
	MaxIDBytes          = 128 // of agents, skills, sessions and projects
	MaxModelBytes       = 200
	MaxDependencies     = 100
	MaxPriority         = 100 // and at least -MaxPriority
	MaxTimeoutSeconds   = 7 * 24 * 3600
	MaxAttempts         = 100
	MaxBatch            = 1000
	MaxRetryReasons     = 64
	MaxConcurrency      = 10_000 // of a concurrency key
	MaxKeyBytes         = 255
	MaxOutputBytes      = 1 << 20
	MaxErrorBytes       = 64 << 10
	MaxMessageBytes     = 16 << 10
	MaxDataBytes        = 64 << 10 // of data and of metadata
	MaxEvents           = 100_000  // of one task, status events excepted

	MaxArtifacts         = 1000 // of one task
	MaxArtifactNameChars = 200
	MaxContentTypeBytes  = 255
)

// How many bytes an artifact, and all of a task together, may have if nothing
// else is configured.
const (
	DefaultMaxArtifact  = 64 << 20
	DefaultMaxArtifacts = 1 << 30
)

var thinkingLevels = []string{"", "off", "minimal", "low", "medium", "high"}

// reasonForm is how workers name why an attempt failed.
var reasonForm = regexp.MustCompile(`^[a-z][a-z0-9:-]{0,63}$`)

var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$`)

// IsID reports whether text can be the id of an agent, a skill, a session, a
// project or a worker.
func IsID(text string) bool { return len(text) <= MaxIDBytes && idForm.MatchString(text) }

// faults lists what is outside its limits; at is the path of n in the request.
func (n *New) faults(at string) []fault.Field {
	var found []fault.Field
	bad := func(field, format string, args ...any) {
		found = append(found, fault.Field{Path: at + "." + field, Message: fmt.Sprintf(format, args...)})
	}
	if c := utf8.RuneCountInString(n.Description); c < 1 || c > MaxDescriptionChars {
		bad("description", "must have 1 to %d characters, has %d", MaxDescriptionChars, c)
	}
	if len(n.Input) > MaxInputBytes {
		bad("input", "must have at most %d bytes, has %d", MaxInputBytes, len(n.Input))
	}
	for _, id := range []struct{ field, value string }{
		{"agentId", n.AgentID}, {"skillId", n.SkillID}, {"sessionId", n.SessionID}, {"projectId", n.ProjectID},
	} {
		if id.value != "" && !IsID(id.value) {
			bad(id.field, "must be an id: at most %d letters, digits and . _ : @ / + -", MaxIDBytes)
		}
	}
	if len(n.Model) > MaxModelBytes {
		bad("model", "must have at most %d bytes, has %d", MaxModelBytes, len(n.Model))
	}
	if !slices.Contains(thinkingLevels, n.Thinking) {
		bad("thinking", "must be one of off, minimal, low, medium, high")
	}
	if n.Dispatch != Auto && n.Dispatch != Manual {
		bad("dispatch", "must be auto or manual")
	}
	if n.Priority < -MaxPriority || n.Priority > MaxPriority {
		bad("priority", "must be between %d and %d", -MaxPriority, MaxPriority)
	}
	if len(n.ConcurrencyKey) > MaxIDBytes || !utf8.ValidString(n.ConcurrencyKey) {
		bad("concurrencyKey", "must have at most %d bytes", MaxIDBytes)
	}
	if n.ConcurrencyLimit < 0 || n.ConcurrencyLimit > MaxConcurrency || n.ConcurrencyLimit > 0 && n.ConcurrencyKey == "" {
		bad("concurrencyLimit", "goes with a concurrencyKey and must be at most %d", MaxConcurrency)
	}
	if n.TimeoutSeconds < 0 || n.TimeoutSeconds > MaxTimeoutSeconds {
		bad("timeoutSeconds", "must be between 0 and %d", MaxTimeoutSeconds)
	}
	if n.SilenceSeconds < 0 || n.SilenceSeconds > MaxTimeoutSeconds {
		bad("silenceSeconds", "must be between 0 and %d", MaxTimeoutSeconds)
	}
	if len(n.RetryOn) > MaxRetryReasons {
		bad("retryOn", "must name at most %d reasons, names %d", MaxRetryReasons, len(n.RetryOn))
	}
	for i, reason := range n.RetryOn {
		if !reasonForm.MatchString(reason) {
			bad(fmt.Sprintf("retryOn[%d]", i), "must be a reason such as exit:75, timeout or silent")
		}
	}
	if n.MaxAttempts < 1 || n.MaxAttempts > MaxAttempts {
		bad("maxAttempts", "must be between 1 and %d", MaxAttempts)
	}
	for field, at := range map[string]*time.Time{"runAfter": n.RunAfter, "expiresAt": n.ExpiresAt, "deadlineAt": n.DeadlineAt} {
		if at != nil && (at.UTC().Year() < 1970 || at.UTC().Year() > 9999) {
			bad(field, "must be a time between 1970 and 9999")
		}
	}
	if len(n.DependsOn) > MaxDependencies {
		bad("dependsOn", "must name at most %d tasks, names %d", MaxDependencies, len(n.DependsOn))
	}
	for field, labels := range map[string]map[string]string{"labels": n.Labels, "requires": n.Requires} {
		if message := LabelsFault(labels); message != "" {
			bad(field, "%s", message)
		}
	}
	if n.Budget != nil {
		found = append(found, n.Budget.faults(at+".budget")...)
	}
	if message := objectFault(n.Metadata); message != "" {
		bad("metadata", "%s", message)
	}
	return found
}

// LabelsFault says what is wrong with labels, or "".
func LabelsFault(labels map[string]string) string {
	if len(labels) > MaxLabels {
		return fmt.Sprintf("must hold at most %d labels, holds %d", MaxLabels, len(labels))
	}
	for k, v := range labels {
		if k == "" || len(k) > MaxLabelBytes || len(v) > MaxLabelBytes {
			return fmt.Sprintf("a key must have 1 to %d bytes, a value at most %d", MaxLabelBytes, MaxLabelBytes)
		}
	}
	return ""
}

// objectFault says what is wrong with data as an optional JSON object of at
// most MaxDataBytes, or "".
func objectFault(data json.RawMessage) string {
	switch {
	case data == nil:
		return ""
	case len(data) > MaxDataBytes:
		return fmt.Sprintf("must have at most %d bytes, has %d", MaxDataBytes, len(data))
	case !json.Valid(data) || data[0] != '{':
		return "must be a JSON object"
	}
	return ""
}
