package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

// Accounts are the users, the roles that are bound to them, and API keys.
type Accounts interface {
	Users(ctx context.Context, c policy.Caller, after string, limit int) ([]identity.User, bool, error)
	User(ctx context.Context, c policy.Caller, id string) (identity.User, error)
	CreateUser(ctx context.Context, c policy.Caller, n identity.NewUser) (identity.User, error)
	UpdateUser(ctx context.Context, c policy.Caller, id string, p identity.UserPatch) (identity.User, error)
	DeleteUser(ctx context.Context, c policy.Caller, id string) error
	ChangePassword(ctx context.Context, c policy.Caller, old, password string) error

	Bindings(ctx context.Context, c policy.Caller, f identity.BindingFilter, before uuid.UUID, limit int) ([]identity.Binding, bool, error)
	Bind(ctx context.Context, c policy.Caller, b identity.Binding) (identity.Binding, error)
	Unbind(ctx context.Context, c policy.Caller, id uuid.UUID) error

	Keys(ctx context.Context, c policy.Caller, f identity.KeyFilter, before string, limit int) ([]identity.Key, bool, error)
	CreateKey(ctx context.Context, c policy.Caller, n identity.NewKey) (identity.Key, string, error)
	RevokeKey(ctx context.Context, c policy.Caller, id string) error
}

type (
	// UserInput names a user.
	UserInput struct {
		ID string `path:"id" maxLength:"300" example:"local:ann"`
	}
	userOutput struct {
		Location string `header:"Location" doc:"The path of the user."`
		Body     api.User
	}
)

func (s *Server) registerAccounts() {
	s.registerUsers()
	handle(s, operation{
		id: "listRoleBindings", action: "binding.list", method: http.MethodGet, path: "/v1/role-bindings", permission: policy.Admitted, tag: "Access",
		summary: "List who has which role where: one's own; all, for an administrator", errors: []int{http.StatusUnprocessableEntity},
	}, s.listRoleBindings)
	handle(s, operation{
		id: "createRoleBinding", action: "binding.create", method: http.MethodPost, path: "/v1/role-bindings", permission: policy.AdminAll, tag: "Access",
		summary: "Give a role to a user or a group", status: http.StatusCreated,
		detail: "In a project, its administrators can do so. Nobody gives what they do not have.",
		errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.createRoleBinding)
	handle(s, operation{
		id: "deleteRoleBinding", action: "binding.delete", method: http.MethodDelete, path: "/v1/role-bindings/{id}", permission: policy.AdminAll, tag: "Access",
		summary: "Take a role away, at once", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteRoleBinding)
	handle(s, operation{
		id: "listAPIKeys", action: "key.list", method: http.MethodGet, path: "/v1/api-keys", permission: policy.Authenticated, tag: "Access",
		summary: "List one's API keys; all, for an administrator", errors: []int{http.StatusUnprocessableEntity},
	}, s.listAPIKeys)
	handle(s, operation{
		id: "createAPIKey", action: "key.create", method: http.MethodPost, path: "/v1/api-keys", permission: policy.Admitted, tag: "Access",
		summary: "Make an API key", status: http.StatusCreated,
		detail: "The key is shown this once. It never carries more than its creator has; that of a service is for administrators to make.",
		errors: []int{http.StatusUnprocessableEntity},
	}, s.createAPIKey)
	handle(s, operation{
		id: "revokeAPIKey", action: "key.revoke", method: http.MethodDelete, path: "/v1/api-keys/{id}", permission: policy.Authenticated, tag: "Access",
		summary: "End an API key and its sessions, at once", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.revokeAPIKey)
}

func (s *Server) registerUsers() {
	handle(s, operation{
		id: "listUsers", action: "user.list", method: http.MethodGet, path: "/v1/users", permission: policy.AdminAll, tag: "Access",
		summary: "List users", errors: []int{http.StatusUnprocessableEntity},
	}, s.listUsers)
	handle(s, operation{
		id: "createUser", action: "user.create", method: http.MethodPost, path: "/v1/users", permission: policy.AdminAll, tag: "Access",
		summary: "Make a local account", status: http.StatusCreated, errors: []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.createUser)
	handle(s, operation{
		id: "getUser", action: "user.read", method: http.MethodGet, path: "/v1/users/{id}", permission: policy.Admitted, tag: "Access",
		summary: "Get a user: oneself; any, for an administrator", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getUser)
	handle(s, operation{
		id: "updateUser", action: "user.update", method: http.MethodPatch, path: "/v1/users/{id}", permission: policy.AdminAll, tag: "Access",
		summary: "Change a user", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
		detail: "A new password, or being disabled, ends the user's sessions.",
	}, s.updateUser)
	handle(s, operation{
		id: "deleteUser", action: "user.delete", method: http.MethodDelete, path: "/v1/users/{id}", permission: policy.AdminAll, tag: "Access",
		summary: "Remove a user with sessions, keys, devices and roles", status: http.StatusNoContent,
		detail: "Whoever comes from an identity provider can come again, as a new user: to keep someone out, disable.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteUser)
	handle(s, operation{
		id: "changePassword", action: "user.update", method: http.MethodPost, path: "/v1/me/password", permission: policy.Admitted, tag: "Access",
		summary: "Change one's own password", status: http.StatusNoContent,
		detail: "All other sessions of the user end.",
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
	}, s.changePassword)
}

func (s *Server) listUsers(ctx context.Context, c policy.Caller, in *PageInput) (*struct{ Body api.UserList }, error) {
	last, err := in.last()
	if err != nil {
		return nil, err
	}
	users, more, err := s.identity.Users(ctx, c, last, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.UserList{Items: make([]api.User, len(users))}
	for i, u := range users {
		list.Items[i] = wireUser(u)
	}
	if more {
		list.NextCursor = afterText(users[len(users)-1].ID)
	}
	return &struct{ Body api.UserList }{list}, nil
}

func (s *Server) createUser(ctx context.Context, c policy.Caller, in *struct{ Body api.NewUser }) (*userOutput, error) {
	n := in.Body
	u, err := s.identity.CreateUser(ctx, c, identity.NewUser{Login: n.Login, Password: n.Password, Name: n.Name, Email: n.Email})
	return &userOutput{"/v1/users/" + u.ID, wireUser(u)}, err
}

func (s *Server) getUser(ctx context.Context, c policy.Caller, in *UserInput) (*struct{ Body api.User }, error) {
	u, err := s.identity.User(ctx, c, in.ID)
	return &struct{ Body api.User }{wireUser(u)}, err
}

func (s *Server) updateUser(ctx context.Context, c policy.Caller, in *struct {
	UserInput
	Body api.UserPatch
}) (*struct{ Body api.User }, error) {
	p := in.Body
	u, err := s.identity.UpdateUser(ctx, c, in.ID, identity.UserPatch{Disabled: p.Disabled, Password: p.Password, Name: p.Name, Email: p.Email})
	return &struct{ Body api.User }{wireUser(u)}, err
}

func (s *Server) deleteUser(ctx context.Context, c policy.Caller, in *UserInput) (*struct{}, error) {
	return nil, s.identity.DeleteUser(ctx, c, in.ID)
}

func (s *Server) changePassword(ctx context.Context, c policy.Caller, in *struct{ Body api.PasswordChange }) (*struct{}, error) {
	return nil, s.identity.ChangePassword(ctx, c, in.Body.Old, in.Body.New)
}

func wireUser(u identity.User) api.User {
	return api.User{
		ID: u.ID, Provider: u.Provider, Name: u.Name, Email: u.Email, Groups: u.Groups,
		CreatedAt: u.CreatedAt, LastLoginAt: u.LastLoginAt, DisabledAt: u.DisabledAt,
	}
}

func (s *Server) listRoleBindings(ctx context.Context, c policy.Caller, in *struct {
	PageInput
	Subject   string `query:"subject" maxLength:"300" doc:"The id of a user or a group."`
	Role      string `query:"role" maxLength:"64"`
	ProjectID string `query:"projectId" maxLength:"128"`
}) (*struct{ Body api.RoleBindingList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	f := identity.BindingFilter{Subject: in.Subject, Role: policy.Role(in.Role), ProjectID: in.ProjectID}
	bindings, more, err := s.identity.Bindings(ctx, c, f, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.RoleBindingList{Items: make([]api.RoleBinding, len(bindings))}
	for i, b := range bindings {
		list.Items[i] = wireBinding(b)
	}
	if more {
		list.NextCursor = after(bindings[len(bindings)-1].ID)
	}
	return &struct{ Body api.RoleBindingList }{list}, nil
}

func (s *Server) createRoleBinding(ctx context.Context, c policy.Caller, in *struct{ Body api.NewRoleBinding }) (*struct{ Body api.RoleBinding }, error) {
	n := in.Body
	b := identity.Binding{Kind: identity.UserSubject, Subject: n.UserID, Role: policy.Role(n.Role), ProjectID: n.ProjectID}
	if n.GroupID != "" {
		b.Kind, b.Subject = identity.GroupSubject, n.GroupID
	}
	if (n.UserID == "") == (n.GroupID == "") {
		return nil, fault.InvalidFields([]fault.Field{{Path: "body.userId", Message: "or groupId must be there, and not both"}})
	}
	b, err := s.identity.Bind(ctx, c, b)
	return &struct{ Body api.RoleBinding }{wireBinding(b)}, err
}

func (s *Server) deleteRoleBinding(ctx context.Context, c policy.Caller, in *IDInput) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	return nil, s.identity.Unbind(ctx, c, id)
}

func wireBinding(b identity.Binding) api.RoleBinding {
	w := api.RoleBinding{ID: b.ID.String(), Role: string(b.Role), ProjectID: b.ProjectID, CreatedAt: b.CreatedAt, CreatedBy: b.CreatedBy}
	if b.Kind == identity.GroupSubject {
		w.GroupID = b.Subject
	} else {
		w.UserID = b.Subject
	}
	return w
}

func (s *Server) listAPIKeys(ctx context.Context, c policy.Caller, in *struct {
	PageInput
	UserID string `query:"userId" maxLength:"300"`
	Ended  bool   `query:"ended" doc:"List those that have expired or were revoked, too."`
}) (*struct{ Body api.APIKeyList }, error) {
	last, err := in.last()
	if err != nil {
		return nil, err
	}
	keys, more, err := s.identity.Keys(ctx, c, identity.KeyFilter{UserID: in.UserID, Ended: in.Ended}, last, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.APIKeyList{Items: make([]api.APIKey, len(keys))}
	for i, k := range keys {
		list.Items[i] = wireKey(k)
	}
	if more {
		list.NextCursor = afterText(keys[len(keys)-1].ID)
	}
	return &struct{ Body api.APIKeyList }{list}, nil
}

func (s *Server) createAPIKey(ctx context.Context, c policy.Caller, in *struct{ Body api.NewAPIKey }) (*struct{ Body api.CreatedAPIKey }, error) {
	n := in.Body
	k, secret, err := s.identity.CreateKey(ctx, c, identity.NewKey{
		Name: n.Name, Service: !n.Personal, ProjectID: n.ProjectID, Roles: texts[policy.Role](n.Roles), Scopes: texts[policy.Permission](n.Scopes), Worker: (*policy.WorkerScope)(n.Worker),
		ExpiresAt: time.Now().Add(time.Duration(n.ExpiresSeconds) * time.Second),
	})
	return &struct{ Body api.CreatedAPIKey }{api.CreatedAPIKey{APIKey: wireKey(k), Key: secret}}, err
}

func (s *Server) revokeAPIKey(ctx context.Context, c policy.Caller, in *NameInput) (*struct{}, error) {
	return nil, s.identity.RevokeKey(ctx, c, in.ID)
}

func wireKey(k identity.Key) api.APIKey {
	return api.APIKey{
		ID: k.ID, Name: k.Name, UserID: k.UserID, ProjectID: k.ProjectID, Roles: texts[string](k.Roles), Scopes: texts[string](k.Scopes), Worker: (*api.WorkerScope)(k.Worker),
		CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy, ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt, RevokedAt: k.RevokedAt,
	}
}
