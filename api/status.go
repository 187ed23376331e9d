package api

// Status is the answer to GET /v1/status.
type Status struct {
	Version     string  `json:"version"`
	Uptime      float64 `json:"uptime" doc:"Seconds since the server started."`
	ActiveTasks int64   `json:"activeTasks" doc:"Tasks that are planning, running or waiting."`
	TotalTasks  int64   `json:"totalTasks"`
	Mode        string  `json:"mode" enum:"local-only,remote-enabled,distributed-cluster"`
	Healthy     bool    `json:"healthy"`
}

// Me is the answer to GET /v1/me: who the request speaks for.
type Me struct {
	UserID      string   `json:"userId"`
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions" doc:"What the roles grant and the credential carries."`
	SessionID   string   `json:"sessionId,omitempty"`
	ProjectID   string   `json:"projectId,omitempty" doc:"The project that the session is confined to."`
	AllProjects bool     `json:"allProjects,omitempty"`
	DeviceID    string   `json:"deviceId,omitempty"`
	DeviceTrust string   `json:"deviceTrust" enum:"untrusted,verified,trusted"`
}

// Problem is the body of every error answer (RFC 9457,
// application/problem+json).
type Problem struct {
	Type      string         `json:"type" doc:"/problems/<slug>; stable." example:"/problems/not-found"`
	Title     string         `json:"title" example:"Not Found"`
	Status    int            `json:"status" example:"404"`
	Detail    string         `json:"detail,omitempty" example:"no task 0190b8a1-0000-7000-8000-000000000000"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"The faulty values, each with its place."`
	RequestID string         `json:"requestId,omitempty" doc:"Name it when you ask for help: the server's log has it."`
}

// ProblemField points at one faulty value of a request.
type ProblemField struct {
	Location string `json:"location" example:"body.description"`
	Message  string `json:"message" example:"expected length >= 1"`
}
