package api

import (
	"encoding/json"
	"time"
)

// NewSession is the body of POST /v1/sessions: one credential, and what the
// session is to be.
type NewSession struct {
	Login    string `json:"login,omitempty" maxLength:"128" doc:"Of a local account, with password."`
	Password string `json:"password,omitempty" maxLength:"1024"`
	Code     string `json:"code,omitempty" maxLength:"128" doc:"The one-time code that the server prints at its first start: makes the account, of the first administrator."`
	APIKey   string `json:"apiKey,omitempty" maxLength:"256" doc:"A service's key, ccl_…"`
	Token    string `json:"token,omitempty" maxLength:"16384" doc:"A token of a configured OpenID Connect issuer, GitHub Actions included."`

	DeviceID       string   `json:"deviceId,omitempty" maxLength:"64" doc:"The device that the request's DPoP proof is of."`
	DeviceName     string   `json:"deviceName,omitempty" maxLength:"200" doc:"Makes the key of the request's DPoP proof a device of the user's: what people call it."`
	EnrolmentCode  string   `json:"enrolmentCode,omitempty" maxLength:"128" doc:"An enrolment code, with which that device is verified."`
	ProjectID      string   `json:"projectId,omitempty" maxLength:"128" doc:"Confines the session to a project."`
	Roles          []string `json:"roles,omitempty" maxItems:"64" doc:"Narrows the session to these of the user's roles."`
	ExpiresSeconds int      `json:"expiresSeconds,omitempty" minimum:"0" doc:"How long the session is to live; 0: the server's default."`
	Browser        bool     `json:"browser,omitempty" doc:"Sets a cookie, which pages cannot read, instead of answering with tokens."`
}

// OpenedSession answers POST /v1/sessions and POST /v1/sessions/refresh. The
// tokens are shown this once.
type OpenedSession struct {
	Session      Session `json:"session"`
	AccessToken  string  `json:"accessToken,omitempty" doc:"Goes into the Authorization header of requests."`
	RefreshToken string  `json:"refreshToken,omitempty" doc:"Good for one POST /v1/sessions/refresh, which answers with the next."`
	TokenType    string  `json:"tokenType,omitempty" enum:"Bearer,DPoP" doc:"DPoP: each request must carry a proof of the session's key (RFC 9449)."`
	ExpiresIn    int     `json:"expiresIn,omitempty" doc:"Seconds until the access token expires."`
}

// RefreshRequest is the body of POST /v1/sessions/refresh.
type RefreshRequest struct {
	RefreshToken string `json:"refreshToken" minLength:"1" maxLength:"256"`
}

// Session is the time in which a credential that was accepted once speaks for
// its user.
type Session struct {
	ID             string     `json:"id"`
	UserID         string     `json:"userId"`
	Method         string     `json:"method" doc:"How it was opened: local, key, or the name of an identity provider."`
	ProjectID      string     `json:"projectId,omitempty"`
	DeviceID       string     `json:"deviceId,omitempty"`
	KeyBound       bool       `json:"keyBound" doc:"Whether each request needs a proof of the session's key."`
	Roles          []string   `json:"roles,omitempty" doc:"Those it is narrowed to; absent: all that the user has."`
	Scopes         []string   `json:"scopes,omitempty" doc:"The permissions it is narrowed to; absent: all that the roles grant."`
	Address        string     `json:"address,omitempty"`
	UserAgent      string     `json:"userAgent,omitempty"`
	CreatedAt      time.Time  `json:"createdAt"`
	ExpiresAt      time.Time  `json:"expiresAt"`
	LastSeenAt     *time.Time `json:"lastSeenAt,omitempty"`
	RevokedAt      *time.Time `json:"revokedAt,omitempty"`
	RevokedBy      string     `json:"revokedBy,omitempty"`
	RevokedBecause string     `json:"revokedBecause,omitempty"`
}

// SessionList is one page of sessions, newest first.
type SessionList struct {
	Items      []Session `json:"items"`
	NextCursor string    `json:"nextCursor,omitempty"`
}

// StreamTicket answers POST /v1/stream-tickets: goes into the query of one
// stream, ?ticket=, for an EventSource can send no header.
type StreamTicket struct {
	Ticket    string    `json:"ticket"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// MemoryEntry is a value that a session remembers.
type MemoryEntry struct {
	Key       string          `json:"key"`
	Value     json.RawMessage `json:"value"`
	Version   int64           `json:"version" doc:"Greater with each change; also the ETag."`
	UpdatedAt time.Time       `json:"updatedAt"`
}

// MemoryList is what a session remembers, by key, without the values.
type MemoryList struct {
	Items []MemoryKey `json:"items"`
}

// MemoryKey is a MemoryEntry without its value.
type MemoryKey struct {
	Key       string    `json:"key"`
	Version   int64     `json:"version"`
	Size      int       `json:"size" doc:"In bytes."`
	UpdatedAt time.Time `json:"updatedAt"`
}

// NewMemory is the body of PUT /v1/sessions/{id}/memory/{key}.
type NewMemory struct {
	Value json.RawMessage `json:"value" doc:"Any JSON value of at most 64 KiB."`
}

// NewLogin is the body of POST /v1/logins.
type NewLogin struct {
	Provider      string     `json:"provider" minLength:"1" maxLength:"64" doc:"github, google, or the name of an OpenID Connect issuer."`
	Flow          string     `json:"flow" enum:"browser,device" doc:"browser: the person is sent to authorizationUrl and comes back to redirectUrl. device: the person types userCode in at verificationUrl, on any machine (RFC 8628)."`
	RedirectURL   string     `json:"redirectUrl,omitempty" maxLength:"2048" doc:"With browser: the server's own /v1/logins/callback, or http://127.0.0.1:<port>/… of a program on the person's machine."`
	CodeChallenge string     `json:"codeChallenge,omitempty" maxLength:"128" doc:"With browser: the S256 challenge (RFC 7636) of a verifier that the program keeps, so that nobody else can end its login."`
	Session       NewSession `json:"session,omitzero" doc:"What the session is to be; it must hold no credential."`
}

// Login is a login at a provider that is under way.
type Login struct {
	ID                      string    `json:"id" doc:"Secret: whoever has it can end the login."`
	AuthorizationURL        string    `json:"authorizationUrl,omitempty"`
	UserCode                string    `json:"userCode,omitempty"`
	VerificationURL         string    `json:"verificationUrl,omitempty"`
	VerificationURLComplete string    `json:"verificationUrlComplete,omitempty"`
	IntervalSeconds         int       `json:"intervalSeconds,omitempty" doc:"How long to wait between two attempts to end it."`
	ExpiresAt               time.Time `json:"expiresAt"`
}

// FinishLogin is the body of POST /v1/logins/finish. It is answered with an
// OpenedSession or, while the person has not decided, with 202.
type FinishLogin struct {
	ID           string `json:"id" minLength:"1" maxLength:"256"`
	Code         string `json:"code,omitempty" maxLength:"2048" doc:"With browser: what the provider sent along to redirectUrl."`
	State        string `json:"state,omitempty" maxLength:"256" doc:"With browser: what the provider sent along to redirectUrl."`
	CodeVerifier string `json:"codeVerifier,omitempty" maxLength:"128" doc:"With browser: that of codeChallenge."`

	DeviceName    string `json:"deviceName,omitempty" maxLength:"200" doc:"As in NewSession."`
	EnrolmentCode string `json:"enrolmentCode,omitempty" maxLength:"128" doc:"As in NewSession."`
}

// LoginProviders answers GET /v1/logins/providers.
type LoginProviders struct {
	Items []LoginProvider `json:"items"`
}

// LoginProvider is a way to log in.
type LoginProvider struct {
	Name  string   `json:"name" doc:"local, or the provider of a NewLogin."`
	Flows []string `json:"flows" doc:"password, browser, device."`
}
