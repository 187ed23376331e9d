package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

// Memories are what sessions remember.
type Memories interface {
	Memories(ctx context.Context, c policy.Caller, session uuid.UUID) ([]identity.MemoryKey, error)
	Memory(ctx context.Context, c policy.Caller, session uuid.UUID, key string) (identity.Memory, error)
	PutMemory(ctx context.Context, c policy.Caller, session uuid.UUID, key string, value json.RawMessage, version int64) (identity.Memory, error)
	DeleteMemory(ctx context.Context, c policy.Caller, session uuid.UUID, key string, version int64) error
}

type (
	// MemoryInput names what a session remembers.
	MemoryInput struct {
		SessionInput
		Key string `path:"key" maxLength:"256"`
	}
	memoryOutput struct {
		ETag string `header:"ETag" doc:"The version."`
		Body api.MemoryEntry
	}
	// VersionInput lets a change happen only to what the client has seen.
	VersionInput struct {
		IfMatch     string `header:"If-Match" maxLength:"40" doc:"The version that must be there, as its ETag."`
		IfNoneMatch string `header:"If-None-Match" maxLength:"40" doc:"*: there must be none."`
	}
)

func (s *Server) registerMemory() {
	handle(s, operation{
		id: "listMemory", action: "memory.list", method: http.MethodGet, path: "/v1/sessions/{id}/memory", permission: policy.Admitted, tag: "Sessions",
		summary: "List what one's session remembers, without the values", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.listMemory)
	handle(s, operation{
		id: "getMemory", action: "memory.read", method: http.MethodGet, path: "/v1/sessions/{id}/memory/{key}", permission: policy.Admitted, tag: "Sessions",
		summary: "Get what one's session remembers under a key", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getMemory)
	handle(s, operation{
		id: "putMemory", action: "memory.put", method: http.MethodPut, path: "/v1/sessions/{id}/memory/{key}", permission: policy.Admitted, tag: "Sessions",
		summary: "Have one's session remember a JSON value under a key",
		detail:  "With If-Match or If-None-Match, 409 if another version is there.",
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
	}, s.putMemory)
	handle(s, operation{
		id: "deleteMemory", action: "memory.delete", method: http.MethodDelete, path: "/v1/sessions/{id}/memory/{key}", permission: policy.Admitted, tag: "Sessions",
		summary: "Have one's session forget a key", status: http.StatusNoContent,
		detail: "With If-Match, 409 if another version is there.",
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.deleteMemory)
}

// version returns the version that must be there: 0 for none, nil for any.
func (in *VersionInput) version() (*int64, error) {
	bad := func(header, message string) error {
		return fault.InvalidFields([]fault.Field{{Path: "header." + header, Message: message}})
	}
	switch {
	case in.IfMatch != "" && in.IfNoneMatch != "":
		return nil, bad("If-Match", "and If-None-Match exclude each other")
	case in.IfNoneMatch == "*":
		return new(int64), nil
	case in.IfNoneMatch != "":
		return nil, bad("If-None-Match", "must be *")
	case in.IfMatch == "":
		return nil, nil
	}
	digits, quoted := strings.CutPrefix(in.IfMatch, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	n, err := strconv.ParseInt(digits, 10, 64)
	if !quoted || !closed || err != nil || n < 1 {
		return nil, bad("If-Match", "must be the ETag of another answer")
	}
	return &n, nil
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func (s *Server) listMemory(ctx context.Context, c policy.Caller, in *SessionInput) (*struct{ Body api.MemoryList }, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	keys, err := s.identity.Memories(ctx, c, id)
	if err != nil {
		return nil, err
	}
	list := api.MemoryList{Items: make([]api.MemoryKey, len(keys))}
	for i, k := range keys {
		list.Items[i] = api.MemoryKey(k)
	}
	return &struct{ Body api.MemoryList }{list}, nil
}

func (s *Server) getMemory(ctx context.Context, c policy.Caller, in *MemoryInput) (*memoryOutput, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	m, err := s.identity.Memory(ctx, c, id, in.Key)
	return &memoryOutput{etag(m.Version), api.MemoryEntry(m)}, err
}

func (s *Server) putMemory(ctx context.Context, c policy.Caller, in *struct {
	MemoryInput
	VersionInput
	Body api.NewMemory
}) (*memoryOutput, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	version, err := in.seen()
	if err != nil {
		return nil, err
	}
	m, err := s.identity.PutMemory(ctx, c, id, in.Key, in.Body.Value, version)
	return &memoryOutput{etag(m.Version), api.MemoryEntry(m)}, err
}

func (s *Server) deleteMemory(ctx context.Context, c policy.Caller, in *struct {
	MemoryInput
	VersionInput
}) (*struct{}, error) {
	id, err := in.id(c)
	if err != nil {
		return nil, err
	}
	version, err := in.seen()
	if err != nil {
		return nil, err
	}
	return nil, s.identity.DeleteMemory(ctx, c, id, in.Key, version)
}

// seen is version in the terms of memories.
func (in *VersionInput) seen() (int64, error) {
	version, err := in.version()
	if err != nil || version == nil {
		return identity.AnyVersion, err
	}
	return *version, nil
}
