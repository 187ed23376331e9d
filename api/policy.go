package api

import (
	"encoding/json"
	"time"
)

// PermissionQuery is the body of POST /v1/permissions/check: may I? Without a
// permission it asks whether a task with the agent, the skill and the labels may
// be submitted, as POST /v1/tasks would decide. With nothing but a permission
// the answer is about that alone.
type PermissionQuery struct {
	Permission string            `json:"permission,omitempty" enum:"task:submit,task:read,task:cancel,agent:invoke,skill:execute,config:read,config:write,admin:all" doc:"Absent: what submitting a task takes."`
	AgentID    string            `json:"agentId,omitempty" maxLength:"128" doc:"Default, for a task: general-purpose."`
	SkillID    string            `json:"skillId,omitempty" maxLength:"128"`
	ProjectID  string            `json:"projectId,omitempty" maxLength:"128" doc:"Default: that of the session."`
	Labels     map[string]string `json:"labels,omitempty" doc:"Those of the task."`
}

// Decision is whether something is allowed, and by what.
type Decision struct {
	Allowed       bool   `json:"allowed"`
	Reason        string `json:"reason"`
	Layer         string `json:"layer,omitempty" enum:"session,device,project,permission,agent,skill,organization,custom" doc:"The part of the policy that decided."`
	Rule          string `json:"rule,omitempty" doc:"The line of the policy that decided." example:"security.yaml: agentPolicies[code-modifier].requireDeviceTrust"`
	PolicyVersion int64  `json:"policyVersion,omitempty" doc:"Of the organisation's document."`
}

// PolicyDocument is a security.yaml as the server has it: the organisation's, or
// a project's.
type PolicyDocument struct {
	ProjectID string    `json:"projectId,omitempty"`
	Version   int64     `json:"version" doc:"1, 2, 3, …; also the ETag."`
	Document  string    `json:"document,omitempty" doc:"The YAML text. Absent in lists."`
	Author    string    `json:"author"`
	Comment   string    `json:"comment,omitempty"`
	Origin    string    `json:"origin" enum:"file,api,rollback"`
	Weakens   []string  `json:"weakens,omitempty" doc:"What it allows beyond the version before; in the answer to a change only."`
	CreatedAt time.Time `json:"createdAt"`
}

// NewPolicyDocument is the body of PUT /v1/config/security and PUT
// /v1/projects/{id}/policy.
type NewPolicyDocument struct {
	Document string `json:"document" maxLength:"65536" doc:"The YAML text."`
	Comment  string `json:"comment,omitempty" maxLength:"1000"`
}

// PolicyVersionList is one page of versions, newest first.
type PolicyVersionList struct {
	Items      []PolicyDocument `json:"items"`
	NextCursor string           `json:"nextCursor,omitempty"`
}

// PolicyRollback is the body of POST …/rollback.
type PolicyRollback struct {
	Version int64  `json:"version" minimum:"1"`
	Comment string `json:"comment,omitempty" maxLength:"1000"`
}

// PolicyDiff answers GET …/diff.
type PolicyDiff struct {
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Diff    string   `json:"diff" doc:"Unified, by line."`
	Weakens []string `json:"weakens,omitempty" doc:"What to allows beyond from."`
}

// PolicySimulation is the body of POST /v1/policy/simulate.
type PolicySimulation struct {
	ProjectID string    `json:"projectId,omitempty" maxLength:"128" doc:"Whose document it is; absent: the organisation's."`
	Document  string    `json:"document" maxLength:"65536"`
	Since     time.Time `json:"since" doc:"The decisions of the audit log since then are made again."`
}

// PolicySimulationResult says what a document would change.
type PolicySimulationResult struct {
	Decisions    int              `json:"decisions" doc:"How many were made again."`
	ChangedCount int              `json:"changedCount" doc:"How many of them would come out otherwise."`
	Changed      []ChangedOutcome `json:"changed" doc:"The newest of those, at most 500."`
	Skipped      int              `json:"skipped" doc:"How many could not be made again, for their log entry does not say all that was asked."`
	Complete     bool             `json:"complete" doc:"Whether all since then were looked at; otherwise only the newest 100,000."`
}

// ChangedOutcome is a decision that would come out otherwise.
type ChangedOutcome struct {
	EntryID string   `json:"entryId"`
	UserID  string   `json:"userId"`
	Action  string   `json:"action"`
	Was     string   `json:"was" enum:"allowed,denied"`
	Now     Decision `json:"now"`
}

// RuntimeConfig answers GET /v1/config/runtime: what the server was started
// with. Secrets are left out.
type RuntimeConfig struct {
	Mode                string   `json:"mode"`
	EnforceTrust        bool     `json:"enforceTrust"`
	RequireAuth         bool     `json:"requireAuth"`
	DefaultRoles        []string `json:"defaultRoles"`
	AllowRemoteSessions bool     `json:"allowRemoteSessions"`
	MaxConcurrentTasks  int      `json:"maxConcurrentTasks"`
	PublicURL           string   `json:"publicUrl"`
}

// AuditEntry is one decision.
type AuditEntry struct {
	ID            string          `json:"id"`
	Time          time.Time       `json:"time"`
	UserID        string          `json:"userId"`
	SessionID     string          `json:"sessionId,omitempty"`
	DeviceID      string          `json:"deviceId,omitempty"`
	ProjectID     string          `json:"projectId,omitempty"`
	Action        string          `json:"action" example:"task.submit"`
	ResourceType  string          `json:"resourceType,omitempty"`
	ResourceID    string          `json:"resourceId,omitempty"`
	Result        string          `json:"result" enum:"allowed,denied,error"`
	Layer         string          `json:"layer,omitempty"`
	Rule          string          `json:"rule,omitempty"`
	Reason        string          `json:"reason,omitempty"`
	PolicyVersion int64           `json:"policyVersion,omitempty"`
	RequestID     string          `json:"requestId,omitempty"`
	Address       string          `json:"address,omitempty"`
	Details       json.RawMessage `json:"details,omitempty"`
}

// AuditList is one page of entries, newest first.
type AuditList struct {
	Items      []AuditEntry `json:"items"`
	NextCursor string       `json:"nextCursor,omitempty"`
}

// AuditCheckpoint answers GET /v1/audit/checkpoint: the log as it was signed
// last, in the form of C2SP tlog-checkpoint.
type AuditCheckpoint struct {
	Note     string `json:"note"`
	Size     int64  `json:"size"`
	Verifier string `json:"verifier" doc:"The public key, as note verifiers are written."`
}

// AuditProof answers GET /v1/audit/{id}/proof: by it, a checkpoint shows that
// the entry is in the log as it is (RFC 6962, section 2.1.1).
type AuditProof struct {
	Index      int64    `json:"index" doc:"The entry's place in the log, from 0."`
	Leaf       []byte   `json:"leaf" doc:"The entry as it was hashed, in base64."`
	Hashes     []string `json:"hashes" doc:"In base64, from the leaf to the root."`
	Checkpoint string   `json:"checkpoint"`
}

// AuditConsistency answers GET /v1/audit/consistency: by it, checkpoints show
// that the log of one size begins with that of another (RFC 6962, section 2.1.2).
type AuditConsistency struct {
	From       int64    `json:"from"`
	To         int64    `json:"to"`
	Hashes     []string `json:"hashes" doc:"In base64."`
	Checkpoint string   `json:"checkpoint,omitempty" doc:"Of the size to, if that is the newest."`
}
