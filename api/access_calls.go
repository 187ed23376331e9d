package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ErrLoginPending says that the person has not decided yet.
var ErrLoginPending = errors.New("login: the person has not decided yet")

// OpenSession exchanges a credential for a session, for WithSession to use. The
// client's own token is not sent; with WithProof the session is bound to the key.
func (c *Client) OpenSession(ctx context.Context, n NewSession) (OpenedSession, error) {
	var out OpenedSession
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/sessions", in: n, out: &out, once: true, anonymous: true})
}

// RefreshSession exchanges a refresh token for the next one and an access
// token. It is good for one attempt: the server ends a session whose refresh
// token comes a second time, so after an error that is no [*Error] it is not
// known whether there still is one.
func (c *Client) RefreshSession(ctx context.Context, refreshToken string) (OpenedSession, error) {
	var out OpenedSession
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/sessions/refresh", in: RefreshRequest{refreshToken}, out: &out, once: true, anonymous: true})
}

// Sessions yields the user's sessions, all users' for an administrator, newest
// first. It ends after an error.
func (c *Client) Sessions(ctx context.Context) iter.Seq2[Session, error] {
	return pages("", func(cursor string) ([]Session, string, error) {
		var out SessionList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/sessions", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// Session returns one session.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	var out Session
	return out, c.get(ctx, "/v1/sessions", id, "", nil, &out)
}

// RevokeSession ends a session at once, open streams included. The id "current"
// is that of the client's own.
func (c *Client) RevokeSession(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/sessions", id)
}

// ChangeOption is a condition under which something is changed.
type ChangeOption func(http.Header)

// IfVersion lets a change happen only if that version is there, so that nobody
// else's change is lost; 0 if there is none. Otherwise the change is an [*Error].
func IfVersion(version int64) ChangeOption {
	return func(h http.Header) {
		if version == 0 {
			h.Set("If-None-Match", "*")
			return
		}
		h.Set("If-Match", `"`+strconv.FormatInt(version, 10)+`"`)
	}
}

func changeHeader(opts []ChangeOption) http.Header {
	h := http.Header{}
	for _, opt := range opts {
		opt(h)
	}
	return h
}

// SessionMemory returns what a session remembers, without the values.
func (c *Client) SessionMemory(ctx context.Context, session string) (MemoryList, error) {
	var out MemoryList
	return out, c.get(ctx, "/v1/sessions", session, "/memory", nil, &out)
}

// Memory returns what a session remembers under a key.
func (c *Client) Memory(ctx context.Context, session, key string) (MemoryEntry, error) {
	path, err := memoryPath(session, key)
	if err != nil {
		return MemoryEntry{}, err
	}
	var out MemoryEntry
	return out, c.do(ctx, call{method: http.MethodGet, path: path, out: &out})
}

// PutMemory has a session remember a JSON value under a key.
func (c *Client) PutMemory(ctx context.Context, session, key string, value json.RawMessage, opts ...ChangeOption) (MemoryEntry, error) {
	path, err := memoryPath(session, key)
	if err != nil {
		return MemoryEntry{}, err
	}
	var out MemoryEntry
	// With a condition, the second of two would not meet it.
	return out, c.do(ctx, call{method: http.MethodPut, path: path, header: changeHeader(opts), in: NewMemory{value}, out: &out, once: len(opts) > 0})
}

// DeleteMemory has a session forget what is under a key.
func (c *Client) DeleteMemory(ctx context.Context, session, key string, opts ...ChangeOption) error {
	path, err := memoryPath(session, key)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path, header: changeHeader(opts), once: true})
}

func memoryPath(session, key string) (string, error) {
	of, err := item("/v1/sessions", session, "/memory")
	if err != nil {
		return "", err
	}
	return item(of, key, "")
}

// StreamTicket returns a ticket that opens one stream in the name of the
// client's session.
func (c *Client) StreamTicket(ctx context.Context) (StreamTicket, error) {
	var out StreamTicket
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/stream-tickets", out: &out})
}

// LoginProviders returns the ways to log in. It needs no credential.
func (c *Client) LoginProviders(ctx context.Context) ([]LoginProvider, error) {
	var out LoginProviders
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/logins/providers", out: &out, anonymous: true})
	return out.Items, err
}

// StartLogin begins a login at an identity provider.
func (c *Client) StartLogin(ctx context.Context, n NewLogin) (Login, error) {
	var out Login
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/logins", in: n, out: &out, anonymous: true})
}

// FinishLogin ends a login. It returns ErrLoginPending while the person has not
// decided, which only a device login does. With WithProof the session is bound
// to the key.
func (c *Client) FinishLogin(ctx context.Context, f FinishLogin) (OpenedSession, error) {
	var out OpenedSession
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/logins/finish", in: f, out: &out, once: true, anonymous: true, pending: ErrLoginPending})
}

// Users yields all users, by id. It ends after an error.
func (c *Client) Users(ctx context.Context) iter.Seq2[User, error] {
	return pages("", func(cursor string) ([]User, string, error) {
		var out UserList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/users", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// User returns one user.
func (c *Client) User(ctx context.Context, id string) (User, error) {
	var out User
	return out, c.get(ctx, "/v1/users", id, "", nil, &out)
}

// CreateUser makes a local account.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (User, error) {
	var out User
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/users", in: n, out: &out, once: true})
}

// UpdateUser changes a user and returns it.
func (c *Client) UpdateUser(ctx context.Context, id string, p UserPatch) (User, error) {
	path, err := item("/v1/users", id, "")
	if err != nil {
		return User{}, err
	}
	var out User
	return out, c.do(ctx, call{method: http.MethodPatch, path: path, in: p, out: &out})
}

// DeleteUser removes a user with all sessions, keys, devices and role bindings.
func (c *Client) DeleteUser(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/users", id)
}

// ChangePassword changes the password of the client's own local account.
func (c *Client) ChangePassword(ctx context.Context, p PasswordChange) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/me/password", in: p, once: true})
}

// RoleBindings yields who has which role where. It ends after an error.
func (c *Client) RoleBindings(ctx context.Context) iter.Seq2[RoleBinding, error] {
	return pages("", func(cursor string) ([]RoleBinding, string, error) {
		var out RoleBindingList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/role-bindings", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// CreateRoleBinding gives a role to a user or a group.
func (c *Client) CreateRoleBinding(ctx context.Context, n NewRoleBinding) (RoleBinding, error) {
	var out RoleBinding
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/role-bindings", in: n, out: &out, once: true})
}

// DeleteRoleBinding takes a role away, at once.
func (c *Client) DeleteRoleBinding(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/role-bindings", id)
}

// APIKeys yields the keys of services. It ends after an error.
func (c *Client) APIKeys(ctx context.Context) iter.Seq2[APIKey, error] {
	return pages("", func(cursor string) ([]APIKey, string, error) {
		var out APIKeyList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/api-keys", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// CreateAPIKey makes a key. Nobody can see it again later.
func (c *Client) CreateAPIKey(ctx context.Context, n NewAPIKey) (CreatedAPIKey, error) {
	var out CreatedAPIKey
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/api-keys", in: n, out: &out, once: true})
}

// RevokeAPIKey ends a key, at once.
func (c *Client) RevokeAPIKey(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/api-keys", id)
}

// DeviceChallenge returns a text for a device to sign with its key.
func (c *Client) DeviceChallenge(ctx context.Context) (DeviceChallenge, error) {
	var out DeviceChallenge
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/devices/challenges", out: &out})
}

// EnrollDevice makes a device of the client's user known.
func (c *Client) EnrollDevice(ctx context.Context, n NewDevice) (Device, error) {
	var out Device
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/devices", in: n, out: &out, once: true})
}

// Devices yields the user's devices, all users' for an administrator. It ends
// after an error.
func (c *Client) Devices(ctx context.Context) iter.Seq2[Device, error] {
	return pages("", func(cursor string) ([]Device, string, error) {
		var out DeviceList
		err := c.do(ctx, call{method: http.MethodGet, path: "/v1/devices", query: page(0, cursor), out: &out})
		return out.Items, out.NextCursor, err
	})
}

// Device returns one device.
func (c *Client) Device(ctx context.Context, id string) (Device, error) {
	var out Device
	return out, c.get(ctx, "/v1/devices", id, "", nil, &out)
}

// UpdateDevice changes a device and returns it.
func (c *Client) UpdateDevice(ctx context.Context, id string, p DevicePatch) (Device, error) {
	path, err := item("/v1/devices", id, "")
	if err != nil {
		return Device{}, err
	}
	var out Device
	return out, c.do(ctx, call{method: http.MethodPatch, path: path, in: p, out: &out})
}

// VerifyDevice raises a device of the client's user to verified.
func (c *Client) VerifyDevice(ctx context.Context, id string, v VerifyDevice) (Device, error) {
	path, err := item("/v1/devices", id, "/verify")
	if err != nil {
		return Device{}, err
	}
	var out Device
	return out, c.do(ctx, call{method: http.MethodPost, path: path, in: v, out: &out, once: true})
}

// RevokeDevice ends a device for ever, and the sessions opened with its key.
func (c *Client) RevokeDevice(ctx context.Context, id string) error {
	return c.remove(ctx, "/v1/devices", id)
}

// CreateEnrolmentCode returns a code with which one device can be verified.
func (c *Client) CreateEnrolmentCode(ctx context.Context, n NewEnrolmentCode) (EnrolmentCode, error) {
	var out EnrolmentCode
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/devices/enrolment-codes", in: n, out: &out, once: true})
}

// remove sends a DELETE, once: after a success whose answer was lost, the second
// would remove nothing and say 404.
func (c *Client) remove(ctx context.Context, collection, id string) error {
	path, err := item(collection, id, "")
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path, once: true})
}

// CheckPermission tells whether the client may do something, and what decides
// that. It does nothing.
func (c *Client) CheckPermission(ctx context.Context, q PermissionQuery) (Decision, error) {
	var out Decision
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/permissions/check", in: q, out: &out})
}

// Policy returns the policy document of a project, or, where projectID is "",
// of the organisation.
func (c *Client) Policy(ctx context.Context, projectID string) (PolicyDocument, error) {
	var out PolicyDocument
	return out, c.policy(ctx, call{method: http.MethodGet, out: &out}, projectID, "")
}

// PutPolicy makes a new version of such a document and returns it.
func (c *Client) PutPolicy(ctx context.Context, projectID string, n NewPolicyDocument, opts ...ChangeOption) (PolicyDocument, error) {
	var out PolicyDocument
	return out, c.policy(ctx, call{method: http.MethodPut, header: changeHeader(opts), in: n, out: &out, once: true}, projectID, "")
}

// PolicyVersions yields the versions of such a document without the texts,
// newest first. It ends after an error.
func (c *Client) PolicyVersions(ctx context.Context, projectID string) iter.Seq2[PolicyDocument, error] {
	return pages("", func(cursor string) ([]PolicyDocument, string, error) {
		var out PolicyVersionList
		err := c.policy(ctx, call{method: http.MethodGet, query: page(0, cursor), out: &out}, projectID, "/versions")
		return out.Items, out.NextCursor, err
	})
}

// PolicyVersion returns one version of such a document.
func (c *Client) PolicyVersion(ctx context.Context, projectID string, version int64) (PolicyDocument, error) {
	var out PolicyDocument
	return out, c.policy(ctx, call{method: http.MethodGet, out: &out}, projectID, "/versions/"+strconv.FormatInt(version, 10))
}

// RollbackPolicy makes a new version that says what an older one does.
func (c *Client) RollbackPolicy(ctx context.Context, projectID string, r PolicyRollback) (PolicyDocument, error) {
	var out PolicyDocument
	return out, c.policy(ctx, call{method: http.MethodPost, in: r, out: &out, once: true}, projectID, "/rollback")
}

// DiffPolicy returns how two versions of such a document differ.
func (c *Client) DiffPolicy(ctx context.Context, projectID string, from, to int64) (PolicyDiff, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "to": {strconv.FormatInt(to, 10)}}
	var out PolicyDiff
	return out, c.policy(ctx, call{method: http.MethodGet, query: q, out: &out}, projectID, "/diff")
}

func (c *Client) policy(ctx context.Context, r call, projectID, rest string) (err error) {
	r.path = "/v1/config/security" + rest
	if projectID != "" {
		if r.path, err = item("/v1/projects", projectID, "/policy"+rest); err != nil {
			return err
		}
	}
	return c.do(ctx, r)
}

// SimulatePolicy tells which decisions of the past a document would change.
func (c *Client) SimulatePolicy(ctx context.Context, s PolicySimulation) (PolicySimulationResult, error) {
	var out PolicySimulationResult
	return out, c.do(ctx, call{method: http.MethodPost, path: "/v1/policy/simulate", in: s, out: &out})
}

// RuntimeConfig returns what the server was started with.
func (c *Client) RuntimeConfig(ctx context.Context) (RuntimeConfig, error) {
	var out RuntimeConfig
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/config/runtime", out: &out})
}

// AuditFilter chooses entries of the audit log. What is zero does not restrict.
type AuditFilter struct {
	UserID       string
	Action       string // e.g. task.submit
	Result       string // allowed, denied or error
	ResourceType string
	ResourceID   string
	SessionID    string
	ProjectID    string
	Since        time.Time
	Until        time.Time
	Limit        int    // items on a page
	Cursor       string // NextCursor of the page before
}

func (f AuditFilter) query() url.Values {
	q := page(f.Limit, f.Cursor)
	for name, value := range map[string]string{
		"userId": f.UserID, "action": f.Action, "result": f.Result, "resourceType": f.ResourceType, "resourceId": f.ResourceID,
		"sessionId": f.SessionID, "projectId": f.ProjectID,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// Audit returns one page of the entries that f chooses, newest first.
func (c *Client) Audit(ctx context.Context, f AuditFilter) (AuditList, error) {
	var out AuditList
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/audit", query: f.query(), out: &out})
}

// AllAudit yields the entries that f chooses, newest first. It ends after an
// error.
func (c *Client) AllAudit(ctx context.Context, f AuditFilter) iter.Seq2[AuditEntry, error] {
	return pages(f.Cursor, func(cursor string) ([]AuditEntry, string, error) {
		f.Cursor = cursor
		list, err := c.Audit(ctx, f)
		return list.Items, list.NextCursor, err
	})
}

// ExportAudit writes the entries that f chooses to w, one a line, as they come:
// in the format json, ocsf or cef. After an error w may have got a part of them.
func (c *Client) ExportAudit(ctx context.Context, f AuditFilter, format string, w io.Writer) error {
	q := f.query()
	q.Set("format", format)
	return c.do(ctx, call{method: http.MethodGet, path: "/v1/audit/export", query: q, header: http.Header{"Accept": {"*/*"}}, sink: w})
}

// AuditCheckpoint returns the log's state as it was signed last.
func (c *Client) AuditCheckpoint(ctx context.Context) (AuditCheckpoint, error) {
	var out AuditCheckpoint
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/audit/checkpoint", out: &out})
}

// AuditProof returns what shows that an entry is in the log.
func (c *Client) AuditProof(ctx context.Context, id string) (AuditProof, error) {
	var out AuditProof
	return out, c.get(ctx, "/v1/audit", id, "/proof", nil, &out)
}

// AuditConsistency returns what shows that the log of the size to, 0 for the
// newest checkpoint's, begins with that of the size from.
func (c *Client) AuditConsistency(ctx context.Context, from, to int64) (AuditConsistency, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "to": {strconv.FormatInt(to, 10)}}
	var out AuditConsistency
	return out, c.do(ctx, call{method: http.MethodGet, path: "/v1/audit/consistency", query: q, out: &out})
}
