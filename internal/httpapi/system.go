package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/policy"
)

// readyTimeout is how long the database may take to say that it is there.
const readyTimeout = 3 * time.Second

func (s *Server) registerSystem() {
	handle(s, operation{
		id: "getStatus", action: "status.read", method: http.MethodGet, path: "/v1/status", permission: policy.Public, tag: "System",
		summary: "What the server is and how busy",
	}, s.getStatus)
	handle(s, operation{
		id: "getMe", action: "me.read", method: http.MethodGet, path: "/v1/me", permission: policy.Authenticated, tag: "System",
		summary: "Who the request speaks for",
	}, s.getMe)

	s.router.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, "ok") })
	s.router.Get("/readyz", s.readyz)
}

func (s *Server) getStatus(ctx context.Context, _ policy.Caller, _ *struct{}) (*struct{ Body api.Status }, error) {
	st := api.Status{Version: s.version, Uptime: time.Since(s.started).Seconds(), Mode: s.mode}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// Without a database the server still says that it is there, and not well.
	if counts, err := s.tasks.Count(ctx); err == nil {
		st.Healthy, st.ActiveTasks, st.TotalTasks = true, counts.Active(), counts.Total()
	}
	return &struct{ Body api.Status }{st}, nil
}

func (s *Server) getMe(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.Me }, error) {
	me := api.Me{
		UserID: c.UserID, Roles: []string{}, Permissions: []string{}, SessionID: c.SessionID,
		ProjectID: c.ProjectID, AllProjects: c.AllProjects, DeviceID: c.DeviceID, DeviceTrust: c.Trust.String(),
	}
	for _, r := range c.Roles {
		me.Roles = append(me.Roles, string(r))
	}
	p, err := s.policies.Policy(ctx, c.ProjectID)
	if err != nil {
		return nil, err
	}
	for _, held := range p.Permissions(c) {
		me.Permissions = append(me.Permissions, string(held))
	}
	return &struct{ Body api.Me }{me}, nil
}

// readyz says whether requests are welcome: the database answers with the
// schema that this server knows, and the server is not stopping.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	select {
	case <-s.stopping:
		writeProblem(w, r, newProblem(http.StatusServiceUnavailable, "stopping", "the server is stopping"))
		return
	default:
	}
	if err := s.ready(ctx); err != nil {
		s.log.WarnContext(ctx, "not ready", "error", err)
		writeProblem(w, r, newProblem(http.StatusServiceUnavailable, "unavailable", "the database is not reachable or not migrated"))
		return
	}
	plain(w, "ready")
}

func plain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}
