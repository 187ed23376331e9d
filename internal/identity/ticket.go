package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// TicketTTL is how long a ticket waits to be used.
const TicketTTL = time.Minute

// Ticket returns a text with which one stream can be opened, once, in the name
// of the caller's session: for browsers, whose EventSource can send no headers,
// in the place of a credential that would live on in a URL. Forbidden for a
// caller without session.
func (s *Service) Ticket(ctx context.Context, c policy.Caller) (ticket string, expiresAt time.Time, err error) {
	id, err := uuid.Parse(c.SessionID)
	if err != nil {
		return "", time.Time{}, fault.New(fault.Forbidden, "tickets are for callers with a session")
	}
	ticket, hash := token.NewSecret(ticketPrefix)
	expiresAt = s.now().Add(TicketTTL).UTC()
	if _, err := s.pool.Exec(ctx, `INSERT INTO stream_tickets (hash, session_id, expires_at) VALUES ($1, $2, $3)`, hash, id, expiresAt); err != nil {
		return "", time.Time{}, postgres.Fault(fmt.Errorf("store ticket: %w", err))
	}
	return ticket, expiresAt, nil
}

// byTicket uses up a ticket. A proof was asked for when it was given out.
func (s *Service) byTicket(ctx context.Context, ticket string) (*standing, error) {
	hash, ok := token.ParseSecret(ticketPrefix, ticket)
	if !ok {
		return nil, errNoTicket
	}
	var id uuid.UUID
	err := s.pool.QueryRow(ctx, `DELETE FROM stream_tickets WHERE hash = $1 AND expires_at > $2 RETURNING session_id`, hash, s.now()).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoTicket
	}
	if err != nil {
		return nil, postgres.Fault(fmt.Errorf("use ticket: %w", err))
	}
	return s.standing(ctx, id)
}

const errNoTicket = errEnded("the ticket is not known, was used or has expired")
