package api

import (
	"encoding/json"
	"time"
)

// NewUser is the body of POST /v1/users: a local account.
type NewUser struct {
	Login    string `json:"login" minLength:"1" maxLength:"64"`
	Password string `json:"password" minLength:"1" maxLength:"1024"`
	Name     string `json:"name,omitempty" maxLength:"200"`
	Email    string `json:"email,omitempty" maxLength:"320"`
}

// User is a person, or a service of an identity provider.
type User struct {
	ID          string     `json:"id" example:"local:ann"`
	Provider    string     `json:"provider"`
	Name        string     `json:"name,omitempty"`
	Email       string     `json:"email,omitempty" doc:"For display only."`
	Groups      []string   `json:"groups,omitempty" doc:"As of the last login."`
	CreatedAt   time.Time  `json:"createdAt"`
	LastLoginAt *time.Time `json:"lastLoginAt,omitempty"`
	DisabledAt  *time.Time `json:"disabledAt,omitempty"`
}

// UserList is one page of users, by id.
type UserList struct {
	Items      []User `json:"items"`
	NextCursor string `json:"nextCursor,omitempty"`
}

// UserPatch is the body of PATCH /v1/users/{id}. What is absent stays.
type UserPatch struct {
	Name     *string `json:"name,omitempty" maxLength:"200"`
	Email    *string `json:"email,omitempty" maxLength:"320"`
	Password *string `json:"password,omitempty" maxLength:"1024"`
	Disabled *bool   `json:"disabled,omitempty" doc:"Ends the user's sessions at once, and their running tasks."`
}

// PasswordChange is the body of POST /v1/me/password.
type PasswordChange struct {
	Old string `json:"old" maxLength:"1024"`
	New string `json:"new" minLength:"1" maxLength:"1024"`
}

// NewRoleBinding is the body of POST /v1/role-bindings.
type NewRoleBinding struct {
	UserID    string `json:"userId,omitempty" maxLength:"300" doc:"Of whom, or groupId."`
	GroupID   string `json:"groupId,omitempty" maxLength:"300" doc:"A group of an identity provider: <provider>:<group>."`
	Role      string `json:"role" minLength:"1" maxLength:"64"`
	ProjectID string `json:"projectId,omitempty" maxLength:"128" doc:"Where it holds; absent: everywhere."`
}

// RoleBinding gives a role to a user or to every member of a group.
type RoleBinding struct {
	ID        string    `json:"id"`
	UserID    string    `json:"userId,omitempty"`
	GroupID   string    `json:"groupId,omitempty"`
	Role      string    `json:"role"`
	ProjectID string    `json:"projectId,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	CreatedBy string    `json:"createdBy"`
}

// RoleBindingList is one page of role bindings.
type RoleBindingList struct {
	Items      []RoleBinding `json:"items"`
	NextCursor string        `json:"nextCursor,omitempty"`
}

// NewAPIKey is the body of POST /v1/api-keys.
type NewAPIKey struct {
	Name           string       `json:"name" minLength:"1" maxLength:"200"`
	ProjectID      string       `json:"projectId,omitempty" maxLength:"128" doc:"Confines the key to a project."`
	Roles          []string     `json:"roles,omitempty" maxItems:"64" doc:"Of a service's key; the creator must hold all that they grant."`
	Scopes         []string     `json:"scopes,omitempty" maxItems:"8" doc:"The only permissions that the key carries; absent: all that the roles grant."`
	Personal       bool         `json:"personal,omitempty" doc:"The key acts as its creator, instead of as a service of its own."`
	Worker         *WorkerScope `json:"worker,omitempty" doc:"Makes it the key of workers, with no right but to serve tasks; without roles, scopes and projectId."`
	ExpiresSeconds int          `json:"expiresSeconds" minimum:"60" maximum:"31622400" doc:"At most a year."`
}

// WorkerScope bounds the tasks that a worker may be given. What is absent bounds
// nothing.
type WorkerScope struct {
	Projects []string          `json:"projects,omitempty" maxItems:"1000" doc:"An empty text stands for tasks without a project."`
	Agents   []string          `json:"agents,omitempty" maxItems:"1000"`
	Labels   map[string]string `json:"labels,omitempty" doc:"That a task must carry, all of them."`
}

// APIKey is a service's credential, without its secret.
type APIKey struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	UserID     string       `json:"userId,omitempty" doc:"As whom it acts; absent: as key:<id>."`
	ProjectID  string       `json:"projectId,omitempty"`
	Roles      []string     `json:"roles,omitempty"`
	Scopes     []string     `json:"scopes,omitempty"`
	Worker     *WorkerScope `json:"worker,omitempty" doc:"Of a worker's key: the tasks that it may be given."`
	CreatedAt  time.Time    `json:"createdAt"`
	CreatedBy  string       `json:"createdBy"`
	ExpiresAt  time.Time    `json:"expiresAt"`
	LastUsedAt *time.Time   `json:"lastUsedAt,omitempty" doc:"Within a minute or so."`
	RevokedAt  *time.Time   `json:"revokedAt,omitempty"`
}

// CreatedAPIKey answers POST /v1/api-keys.
type CreatedAPIKey struct {
	APIKey
	Key string `json:"key" doc:"ccl_…; shown this once."`
}

// APIKeyList is one page of API keys.
type APIKeyList struct {
	Items      []APIKey `json:"items"`
	NextCursor string   `json:"nextCursor,omitempty"`
}

// DeviceChallenge answers POST /v1/devices/challenges: what a device signs to
// show that it holds its key.
type DeviceChallenge struct {
	Challenge string    `json:"challenge"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// NewDevice is the body of POST /v1/devices.
type NewDevice struct {
	Name      string          `json:"name" minLength:"1" maxLength:"200" example:"ann's laptop"`
	Key       json.RawMessage `json:"key" doc:"The public key as a JWK (RFC 7517): OKP with Ed25519, or EC with P-256."`
	Challenge string          `json:"challenge" minLength:"1" maxLength:"512"`
	Signature string          `json:"signature" minLength:"1" maxLength:"512" doc:"Of the challenge, by the key."`
	Code      string          `json:"code,omitempty" maxLength:"128" doc:"An enrolment code, with which the device is verified from the start."`
}

// VerifyDevice is the body of POST /v1/devices/{id}/verify.
type VerifyDevice struct {
	Code      string `json:"code" minLength:"1" maxLength:"128"`
	Challenge string `json:"challenge" minLength:"1" maxLength:"512"`
	Signature string `json:"signature" minLength:"1" maxLength:"512"`
}

// DevicePatch is the body of PATCH /v1/devices/{id}. What is absent stays.
type DevicePatch struct {
	Name  *string `json:"name,omitempty" minLength:"1" maxLength:"200"`
	Trust *string `json:"trust,omitempty" enum:"untrusted,verified,trusted" doc:"By an administrator."`
}

// Device is a machine that has shown that it holds a key.
type Device struct {
	ID         string     `json:"id"`
	UserID     string     `json:"userId"`
	Name       string     `json:"name"`
	Trust      string     `json:"trust" enum:"untrusted,verified,trusted"`
	Thumbprint string     `json:"thumbprint" doc:"Of its key (RFC 7638)."`
	CreatedAt  time.Time  `json:"createdAt"`
	VerifiedAt *time.Time `json:"verifiedAt,omitempty"`
	TrustedAt  *time.Time `json:"trustedAt,omitempty"`
	LastSeenAt *time.Time `json:"lastSeenAt,omitempty"`
	RevokedAt  *time.Time `json:"revokedAt,omitempty"`
}

// DeviceList is one page of devices.
type DeviceList struct {
	Items      []Device `json:"items"`
	NextCursor string   `json:"nextCursor,omitempty"`
}

// NewEnrolmentCode is the body of POST /v1/devices/enrolment-codes.
type NewEnrolmentCode struct {
	UserID         string `json:"userId,omitempty" maxLength:"300" doc:"The only one who may use it; absent: anyone."`
	ExpiresSeconds int    `json:"expiresSeconds,omitempty" minimum:"0" maximum:"604800" doc:"Default: an hour."`
}

// EnrolmentCode answers POST /v1/devices/enrolment-codes.
type EnrolmentCode struct {
	Code      string    `json:"code" doc:"Good for one device; shown this once."`
	ExpiresAt time.Time `json:"expiresAt"`
}
