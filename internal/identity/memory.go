package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// How much a session can remember, in bytes.
const (
	MaxMemoryValue = 64 << 10
	MaxMemory      = 1 << 20 // of all keys and values
	MaxMemoryKeys  = 1000
)

// Memory is something that a session remembers.
type Memory struct {
	Key       string
	Value     json.RawMessage // as it was put
	Version   int64           // another, greater one with each change
	UpdatedAt time.Time
}

const memoryColumns = `key, value, version, updated_at`

func toMemory(row pgx.CollectableRow) (Memory, error) {
	m, err := pgx.RowToStructByName[Memory](row)
	m.UpdatedAt = m.UpdatedAt.UTC()
	return m, err
}

// AnyVersion lets PutMemory and DeleteMemory replace whatever is there.
const AnyVersion int64 = -1

// Memory returns what a session remembers under a key. NotFound if that is
// nothing, or the session is not the caller's own.
func (s *Service) Memory(ctx context.Context, c policy.Caller, session uuid.UUID, key string) (Memory, error) {
	if err := ownSession(c, session); err != nil {
		return Memory{}, err
	}
	if !storable(key) {
		return Memory{}, missing("memory", key)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+memoryColumns+` FROM session_memory WHERE session_id = $1 AND key = $2`, session, key)
	if err != nil {
		return Memory{}, postgres.Fault(fmt.Errorf("read memory: %w", err))
	}
	m, err := pgx.CollectExactlyOneRow(rows, toMemory)
	if errors.Is(err, pgx.ErrNoRows) {
		return Memory{}, missing("memory", key)
	}
	if err != nil {
		return Memory{}, postgres.Fault(fmt.Errorf("read memory: %w", err))
	}
	return m, nil
}

// ownSession keeps what a session remembers from every other, of the same user
// too.
func ownSession(c policy.Caller, session uuid.UUID) error {
	if c.SessionID != session.String() {
		return missing("session", session.String())
	}
	return nil
}

// MemoryKey is a Memory without its value.
type MemoryKey struct {
	Key       string
	Version   int64
	Size      int // of the value, in bytes
	UpdatedAt time.Time
}

// Memories returns what a session remembers, by key. NotFound if the session is
// not the caller's own.
func (s *Service) Memories(ctx context.Context, c policy.Caller, session uuid.UUID) ([]MemoryKey, error) {
	if err := ownSession(c, session); err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, `SELECT key, version, octet_length(value::text) AS size, updated_at
		FROM session_memory WHERE session_id = $1 ORDER BY key`, session)
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list memory: %w", err))
	}
	memories, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (MemoryKey, error) {
		m, err := pgx.RowToStructByName[MemoryKey](row)
		m.UpdatedAt = m.UpdatedAt.UTC()
		return m, err
	})
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("list memory: %w", err))
	}
	return memories, nil
}

// PutMemory has a session remember a JSON value under a key. version is the one
// that the caller has seen, 0 for none, or AnyVersion.
//
// Faults: NotFound if the session is not the caller's own, Invalid, Conflict
// when another version is there, TooMany when the session remembers too much.
func (s *Service) PutMemory(ctx context.Context, c policy.Caller, session uuid.UUID, key string, value json.RawMessage, version int64) (Memory, error) {
	if err := ownSession(c, session); err != nil {
		return Memory{}, err
	}
	if err := checkMemory(key, value); err != nil {
		return Memory{}, err
	}
	d, err := s.serves(ctx, c)
	if err != nil {
		return Memory{}, err
	}
	m := Memory{Key: key, Value: value, UpdatedAt: s.now().UTC()}
	err = s.change(ctx, c, act{"memory.put", "session", session.String()}, d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = detail(map[string]any{"key": key})
		have, keys, used, err := memoryState(ctx, tx, session, key)
		switch {
		case err != nil:
			return err
		case version != AnyVersion && version != have:
			return otherVersion(key, have)
		case keys == MaxMemoryKeys:
			return fault.New(fault.TooMany, "the session would remember more than %d things", MaxMemoryKeys)
		case used+len(key)+len(value) > MaxMemory:
			return fault.New(fault.TooMany, "the session would remember more than %d bytes", MaxMemory)
		}
		if err := tx.QueryRow(ctx, `
			INSERT INTO session_memory (session_id, key, value, version, updated_at)
			VALUES ($1, $2, $3, nextval('session_memory_versions'), $4)
			ON CONFLICT ON CONSTRAINT session_memory_pkey
			DO UPDATE SET value = excluded.value, version = excluded.version, updated_at = excluded.updated_at
			RETURNING version`, session, key, string(value), m.UpdatedAt).Scan(&m.Version); err != nil {
			return fmt.Errorf("store memory: %w", err)
		}
		return nil
	})
	if err != nil {
		return Memory{}, err
	}
	return m, nil
}

// DeleteMemory has a session forget what is under a key.
//
// Faults: NotFound if that is nothing or the session is not the caller's own,
// Conflict when another version is there.
func (s *Service) DeleteMemory(ctx context.Context, c policy.Caller, session uuid.UUID, key string, version int64) error {
	if err := ownSession(c, session); err != nil {
		return err
	}
	d, err := s.serves(ctx, c)
	if err != nil {
		return err
	}
	return s.change(ctx, c, act{"memory.delete", "session", session.String()}, d, func(tx pgx.Tx, e *audit.Entry) error {
		if !storable(key) {
			return missing("memory", key)
		}
		e.Details = detail(map[string]any{"key": key})
		have, _, _, err := memoryState(ctx, tx, session, key)
		switch {
		case err != nil:
			return err
		case have == 0:
			return missing("memory", key)
		case version != AnyVersion && version != have:
			return otherVersion(key, have)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM session_memory WHERE session_id = $1 AND key = $2`, session, key); err != nil {
			return fmt.Errorf("delete memory: %w", err)
		}
		return nil
	})
}

// memoryState locks what a session remembers, and returns the version under a
// key, 0 for none, how many others there are and how large they are together.
func memoryState(ctx context.Context, tx pgx.Tx, session uuid.UUID, key string) (version int64, others, size int, err error) {
	if _, err := tx.Exec(ctx, `SELECT FROM sessions WHERE id = $1 FOR NO KEY UPDATE`, session); err != nil {
		return 0, 0, 0, fmt.Errorf("lock memory: %w", err)
	}
	err = tx.QueryRow(ctx, `
		SELECT coalesce(max(version) FILTER (WHERE key = $2), 0), count(*) FILTER (WHERE key <> $2),
			coalesce(sum(octet_length(key) + octet_length(value::text)) FILTER (WHERE key <> $2), 0)
		FROM session_memory WHERE session_id = $1`, session, key).Scan(&version, &others, &size)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("read memory: %w", err)
	}
	return version, others, size, nil
}

func otherVersion(key string, have int64) error {
	if have == 0 {
		return fault.New(fault.Conflict, "nothing is remembered under %.80q", key)
	}
	return fault.New(fault.Conflict, "version %d is remembered under %.80q", have, key)
}

func checkMemory(key string, value json.RawMessage) error {
	var f faults
	if len(key) > maxIDBytes || !idForm.MatchString(key) {
		f = append(f, fault.Field{Path: "path.key", Message: fmt.Sprintf("must be at most %d letters, digits and . _ : @ / + -", maxIDBytes)})
	}
	switch {
	case len(value) > MaxMemoryValue:
		f.bad("value", "must have at most %d bytes, has %d", MaxMemoryValue, len(value))
	case !json.Valid(value):
		f.bad("value", "must be JSON")
	}
	return f.err()
}
