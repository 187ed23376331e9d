package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// maxStored bounds how many agents the API may define, and so what a snapshot
// costs.
const maxStored = 1_000

type agentRow struct {
	ID         string
	Definition json.RawMessage
}

const agentColumns = `id, definition`

// storedAgents returns the agents that came through the API. One whose
// definition cannot be read, say of a later version, is there and unavailable,
// so that the others remain.
func (r *Registry) storedAgents(ctx context.Context) ([]Agent, error) {
	rows, err := r.pool.Query(ctx, `SELECT `+agentColumns+` FROM agents`)
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", postgres.Fault(err))
	}
	agents, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Agent, error) {
		stored, err := pgx.RowToStructByName[agentRow](row)
		return stored.agent(), err
	})
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", postgres.Fault(err))
	}
	return agents, nil
}

func (row agentRow) agent() Agent {
	d := definition{ID: row.ID}
	if err := json.Unmarshal(row.Definition, &d); err != nil {
		a := definition{ID: row.ID}.agent(SourceAPI)
		a.Unavailable = "its stored definition cannot be read; define it again"
		return a
	}
	return d.agent(SourceAPI)
}

// PutAgent defines an agent, or replaces what the API defined before; a
// built-in agent or one of the file is hidden by it. It returns the agent as
// it is now, and whether there was none of that id.
//
// Faults: Forbidden unless the caller holds config:write; Invalid, naming
// every faulty field; TooMany.
func (r *Registry) PutAgent(ctx context.Context, caller policy.Caller, a Agent) (put Agent, created bool, err error) {
	if err := policy.Authorize(caller, policy.ConfigWrite).Err(); err != nil {
		return Agent{}, false, err
	}
	d := definitionOf(a)
	if err := d.valid(); err != nil {
		return Agent{}, false, err
	}
	a = d.agent(SourceAPI)
	definition, err := json.Marshal(definitionOf(a))
	if err != nil {
		return Agent{}, false, fmt.Errorf("encode agent %s: %w", a.ID, err)
	}
	// Readers must not be left with the old one even if the outcome is unknown.
	defer r.forget()
	inserted, err := r.upsert(ctx, a.ID, definition)
	if err != nil {
		return Agent{}, false, err
	}
	_, hides := r.base[a.ID]
	return r.judged(a), inserted && !hides, nil
}

// valid returns an Invalid fault that names every faulty field of a request.
func (d *definition) valid() error {
	var fields []fault.Field
	d.check(func(value any, path, message string) {
		in := "body."
		if value == &d.ID {
			in = "path."
		}
		fields = append(fields, fault.Field{Path: in + path, Message: message})
	})
	return fault.InvalidFields(fields)
}

func (r *Registry) upsert(ctx context.Context, id string, definition []byte) (inserted bool, err error) {
	err = postgres.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		// xmax is 0 in a row that this statement has inserted, not updated.
		row := tx.QueryRow(ctx, `
			INSERT INTO agents (id, definition) VALUES ($1, $2)
			ON CONFLICT ON CONSTRAINT agents_pkey
			DO UPDATE SET definition = excluded.definition, updated_at = now()
			RETURNING xmax = 0`, id, definition)
		if err := row.Scan(&inserted); err != nil {
			return fmt.Errorf("store agent %s: %w", id, err)
		}
		if !inserted {
			return nil
		}
		var stored int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM agents`).Scan(&stored); err != nil {
			return fmt.Errorf("count agents: %w", err)
		}
		if stored > maxStored {
			return fault.New(fault.TooMany, "%d agents are defined, and no more can be", maxStored)
		}
		return nil
	})
	return inserted, err
}

// DeleteAgent removes what the API defined under that id; a built-in agent or
// one of the file that it hid is back then.
//
// Faults: Forbidden unless the caller holds config:write; NotFound; Conflict
// for an agent that only the binary or the file defines.
func (r *Registry) DeleteAgent(ctx context.Context, caller policy.Caller, id string) error {
	if err := policy.Authorize(caller, policy.ConfigWrite).Err(); err != nil {
		return err
	}
	if !idForm.MatchString(id) {
		return noAgent(id) // and the database could not even be asked about U+0000
	}
	defer r.forget()
	tag, err := r.pool.Exec(ctx, `DELETE FROM agents WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("delete agent: %w", postgres.Fault(err))
	}
	if tag.RowsAffected() > 0 {
		return nil
	}
	switch r.base[id].Source {
	case SourceBuiltin:
		return fault.New(fault.Conflict, "agent %s is built in and cannot be deleted, only redefined", id)
	case SourceFile:
		return fault.New(fault.Conflict, "agent %s is defined in agents.yaml; remove it there and restart", id)
	default:
		return noAgent(id)
	}
}
