package executor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coder/acp-go-sdk"
)

// sessions is the directory in which the sessions of tasks that may be
// interrupted are written down, a file for each task; empty: none. It is a
// convenience: what cannot be written or read there is not continued.
type sessions string

// maxSessionAge is after how long a task that is not heard of again is
// forgotten.
const maxSessionAge = 7 * 24 * time.Hour

// record is the session that a task began.
type record struct {
	Agent     string        `json:"agent"`
	Command   []string      `json:"command"`
	Directory string        `json:"directory"`
	Session   acp.SessionId `json:"session"`
}

// like reports whether r is of the same agent in the same place.
func (r record) like(o record) bool {
	return r.Agent == o.Agent && r.Directory == o.Directory && slices.Equal(r.Command, o.Command)
}

func (s sessions) root() (*os.Root, error) {
	if s == "" {
		return nil, os.ErrNotExist
	}
	return os.OpenRoot(string(s))
}

func (s sessions) find(taskID string) (r record, ok bool) {
	root, err := s.root()
	if err != nil {
		return r, false
	}
	defer root.Close()
	text, err := root.ReadFile(taskID + ".json")
	return r, err == nil && json.Unmarshal(text, &r) == nil
}

func (s sessions) keep(taskID string, r record) {
	if s == "" || os.MkdirAll(string(s), 0o700) != nil {
		return
	}
	root, err := s.root()
	if err != nil {
		return
	}
	defer root.Close()
	s.prune(root)
	if text, err := json.Marshal(r); err == nil {
		_ = root.WriteFile(taskID+".json", text, 0o600)
	}
}

func (s sessions) prune(root *os.Root) {
	old, err := os.ReadDir(string(s))
	if err != nil {
		return
	}
	for _, e := range old {
		if info, err := e.Info(); err == nil && filepath.Ext(e.Name()) == ".json" && time.Since(info.ModTime()) > maxSessionAge {
			_ = root.Remove(e.Name())
		}
	}
}

func (s sessions) forget(taskID string) {
	if root, err := s.root(); err == nil {
		defer root.Close()
		_ = root.Remove(taskID + ".json")
	}
}
