package task

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/postgres"
)

// keyFaults lists what is wrong with an Idempotency-Key.
func keyFaults(key string) []fault.Field {
	if len(key) > MaxKeyBytes || !utf8.ValidString(key) {
		return []fault.Field{{Path: "header.Idempotency-Key", Message: fmt.Sprintf("must have at most %d bytes of UTF-8", MaxKeyBytes)}}
	}
	return nil
}

// errKeyUsed: the idempotency key has been used before.
var errKeyUsed = errors.New("idempotency key used")

// requestHash identifies what was asked for, however it was spelt in JSON.
func requestHash(kind string, batch []New) ([]byte, error) {
	return hashOf(struct {
		Kind  string
		Batch []New
	}{kind, batch})
}

func hashOf(request any) ([]byte, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(request); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "metadata must be a JSON object")
	}
	return h.Sum(nil), nil
}

func keyMismatch() error {
	return fault.New(fault.IdempotencyMismatch, "this Idempotency-Key was used with another request")
}

// replay gives the first answer to a request again.
func (s *Service) replay(ctx context.Context, userID string, batch []New, key string, hash []byte) ([]Task, error) {
	type keyed struct {
		Task
		IdempotencyHash []byte
	}
	projects := make([]string, len(batch))
	for i, n := range batch {
		projects[i] = n.ProjectID
	}
	rows, err := s.pool.Query(ctx, `SELECT `+columns+`, t.idempotency_hash FROM tasks t
		WHERE user_id = $1 AND project_id = ANY ($2) AND idempotency_key = $3 ORDER BY idempotency_index`, userID, projects, key)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read tasks by key: %w", err))
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[keyed])
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("read tasks by key: %w", err))
	}
	if len(found) == 0 || !bytes.Equal(found[0].IdempotencyHash, hash) {
		return nil, keyMismatch()
	}
	tasks := make([]Task, len(found))
	for i, f := range found {
		tasks[i] = f.asSubmitted()
	}
	return tasks, nil
}
