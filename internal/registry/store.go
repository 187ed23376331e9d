package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// maxStored bounds how many agents, and how many skills, the API may define,
// and so what a snapshot costs.
const maxStored = 1_000

// PutAgent defines an agent, or replaces what the API defined before; a
// built-in agent or one of the file is hidden by it. It returns the agent as
// it is now, and whether there was none of that id.
//
// Faults: Forbidden unless the caller holds config:write and is confined to no
// project; Invalid, naming every faulty field; TooMany; AuditUnavailable.
func (r *Registry) PutAgent(ctx context.Context, c policy.Caller, a Agent) (put Agent, created bool, err error) {
	act, err := r.permitShared(ctx, act{caller: c, action: "agent.put", resourceType: "agent", resourceID: a.ID})
	if err != nil {
		return Agent{}, false, err
	}
	s, err := r.current(ctx)
	if err != nil {
		return Agent{}, false, err
	}
	d := definitionOf(a)
	if err := invalid(&d.ID, func(refuse refusal) {
		d.check(s.skills.byID, refuse)
		if d.HTTP != nil && d.HTTP.SecretFile != "" {
			// It would have a worker send any file of its machine anywhere.
			refuse(&d.HTTP.SecretFile, "http.secretFile", "is for agents.yaml only")
		}
	}); err != nil {
		return Agent{}, false, err
	}
	a = d.agent(SourceAPI)
	inserted, err := r.put(ctx, act, agents, definitionOf(a), nil)
	if err != nil {
		return Agent{}, false, err
	}
	_, hides := r.base[a.ID]
	return r.judged(a, s.served), inserted && !hides, nil
}

// DeleteAgent removes what the API defined under that id; a built-in agent or
// one of the file that it hid is back then.
//
// Faults: Forbidden unless the caller holds config:write and is confined to no
// project; NotFound; Conflict for an agent that only the binary or the file
// defines; AuditUnavailable.
func (r *Registry) DeleteAgent(ctx context.Context, c policy.Caller, id string) error {
	act, err := r.permitShared(ctx, act{caller: c, action: "agent.delete", resourceType: "agent", resourceID: id})
	if err != nil {
		return err
	}
	missing := noAgent(id)
	switch r.base[id].Source {
	case SourceBuiltin:
		missing = fault.New(fault.Conflict, "agent %s is built in and cannot be deleted, only redefined", id)
	case SourceFile:
		missing = fault.New(fault.Conflict, "agent %s is defined in agents.yaml; remove it there and restart", id)
	}
	return r.remove(ctx, act, agents, missing, nil)
}

// PutSkill defines a skill, or replaces what the API defined before; a built-in
// one is hidden by it. It returns the skill as it is now, and whether there was
// none of that id.
//
// Faults: Forbidden unless the caller holds config:write, or admin:all if the
// skill asks for less than before, and is confined to no project; Invalid,
// naming every faulty field; TooMany; AuditUnavailable.
func (r *Registry) PutSkill(ctx context.Context, c policy.Caller, sk Skill) (put Skill, created bool, err error) {
	act, err := r.permitShared(ctx, act{caller: c, action: "skill.put", resourceType: "skill", resourceID: sk.ID})
	if err != nil {
		return Skill{}, false, err
	}
	d := skillDefinition(sk)
	if err := invalid(&d.ID, d.check); err != nil {
		return Skill{}, false, err
	}
	sk = d.skill()
	guard, err := r.guard(ctx, act, sk)
	if err != nil {
		return Skill{}, false, err
	}
	inserted, err := r.put(ctx, act, skills, skillDefinition(sk), guard)
	if err != nil {
		return Skill{}, false, err
	}
	_, hides := builtinSkills().byID[sk.ID]
	return sk, inserted && !hides, nil
}

// DeleteSkill removes what the API defined under that id; a built-in skill that
// it hid is back then.
//
// Faults: Forbidden unless the caller holds config:write, or admin:all if the
// skill asked for more than the built-in one or none does, and is confined to
// no project; NotFound; Conflict for a skill that only the binary defines;
// AuditUnavailable.
func (r *Registry) DeleteSkill(ctx context.Context, c policy.Caller, id string) error {
	act, err := r.permitShared(ctx, act{caller: c, action: "skill.delete", resourceType: "skill", resourceID: id})
	if err != nil {
		return err
	}
	missing := noSkill(id)
	// What is gone could be defined anew, and ask for nothing.
	after := Skill{ID: id, Enabled: true}
	if sk, ok := builtinSkills().byID[id]; ok {
		after = sk
		missing = fault.New(fault.Conflict, "skill %s is built in and cannot be deleted, only redefined", id)
	}
	guard, err := r.guard(ctx, act, after)
	if err != nil {
		return err
	}
	return r.remove(ctx, act, skills, missing, guard)
}

// guard returns what to run first in the transaction that turns a skill into
// another: whoever makes it ask for less than it does needs admin:all.
func (r *Registry) guard(ctx context.Context, a act, to Skill) (func(pgx.Tx, *audit.Entry) error, error) {
	p, err := r.Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	a.decision = p.Decide(a.caller, policy.Request{Permission: policy.AdminAll, Action: a.action})
	return func(tx pgx.Tx, e *audit.Entry) error {
		from, ok := builtinSkills().byID[to.ID]
		row := definitionRow{ID: to.ID}
		err := tx.QueryRow(ctx, `SELECT definition FROM skills WHERE id = $1`, to.ID).Scan(&row.Definition)
		switch {
		case err == nil:
			from = row.skill()
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("read skill %s: %w", to.ID, err)
		case !ok:
			return nil
		}
		if !weaker(from, to) {
			return nil
		}
		if d := a.decision; !d.Allowed {
			d.Reason = fmt.Sprintf("skill %s would ask for less than it does now: %s", to.ID, d.Reason)
			return &denial{d}
		}
		*e = a.entry()
		return nil
	}, nil
}

func weaker(from, to Skill) bool {
	return to.Enabled && !from.Enabled || from.Dangerous && !to.Dangerous ||
		slices.ContainsFunc(from.RequiredPermissions, func(p string) bool { return !slices.Contains(to.RequiredPermissions, p) })
}

// invalid returns an Invalid fault that names every faulty field of a request
// whose path holds the id.
func invalid(id *string, check func(refusal)) error {
	var fields []fault.Field
	check(func(value any, path, message string) {
		in := "body."
		if value == id {
			in = "path."
		}
		fields = append(fields, fault.Field{Path: in + path, Message: message})
	})
	return fault.InvalidFields(fields)
}

// table is where definitions of one kind are stored.
type table string

const (
	agents   table = "agents"
	skills   table = "skills"
	policies table = "policies"
)

// put stores the definition of what is acted on and reports whether there was
// none. first, if not nil, runs in the same transaction, before.
func (r *Registry) put(ctx context.Context, a act, t table, definition any, first func(pgx.Tx, *audit.Entry) error) (inserted bool, err error) {
	text, err := json.Marshal(definition)
	if err != nil {
		return false, fmt.Errorf("encode %s %s: %w", a.resourceType, a.resourceID, err)
	}
	sql := strings.NewReplacer("$table", string(t))
	err = r.commit(ctx, a, func(tx pgx.Tx, e *audit.Entry) error {
		if err := prepare(ctx, tx, t, e, first); err != nil {
			return err
		}
		// xmax is 0 in a row that this statement has inserted, not updated.
		row := tx.QueryRow(ctx, sql.Replace(`
			INSERT INTO $table (id, definition) VALUES ($1, $2)
			ON CONFLICT ON CONSTRAINT $table_pkey
			DO UPDATE SET definition = excluded.definition, updated_at = now()
			RETURNING xmax = 0`), a.resourceID, text)
		if err := row.Scan(&inserted); err != nil {
			return fmt.Errorf("store %s %s: %w", a.resourceType, a.resourceID, err)
		}
		if !inserted {
			return nil
		}
		var stored int
		if err := tx.QueryRow(ctx, sql.Replace(`SELECT count(*) FROM $table`)).Scan(&stored); err != nil {
			return fmt.Errorf("count %s: %w", t, err)
		}
		if stored > maxStored {
			return fault.New(fault.TooMany, "%d %s are defined, and no more can be", maxStored, t)
		}
		return nil
	})
	return inserted, err
}

// remove deletes the definition of what is acted on, or returns missing if
// there is none. first is as put's.
func (r *Registry) remove(ctx context.Context, a act, t table, missing error, first func(pgx.Tx, *audit.Entry) error) error {
	if !idForm.MatchString(a.resourceID) {
		return missing // and the database could not even be asked about U+0000
	}
	return r.commit(ctx, a, func(tx pgx.Tx, e *audit.Entry) error {
		if err := prepare(ctx, tx, t, e, first); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM `+string(t)+` WHERE id = $1`, a.resourceID)
		if err != nil {
			return fmt.Errorf("delete %s %s: %w", a.resourceType, a.resourceID, err)
		}
		if tag.RowsAffected() == 0 {
			return missing
		}
		return nil
	})
}

func prepare(ctx context.Context, tx pgx.Tx, t table, e *audit.Entry, first func(pgx.Tx, *audit.Entry) error) error {
	if err := lock(ctx, tx, t); err != nil || first == nil {
		return err
	}
	return first(tx, e)
}
