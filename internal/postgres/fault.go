package postgres

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/coderclaw/runtime/internal/fault"
)

// unavailable tells what to say when the server reports that it cannot serve
// now, by SQLSTATE or, with two characters, by its class.
var unavailable = map[string]string{
	"08":                 "the database connection was lost",
	"53":                 "the database is out of resources",
	"53300":              "the database has too many connections",
	"57P01":              "the database is shutting down",
	"57P02":              "the database is restarting after a crash",
	"57P03":              "the database is starting or shutting down",
	"57P04":              "the database was dropped",
	"57P05":              "the database connection was lost",
	"57014":              "the database took too long to answer",
	"25P03":              "the database took too long to answer",
	"55P03":              "the database is busy",
	serializationFailure: "the database is busy",
	deadlockDetected:     "the database is busy",
	"25006":              "the database is read-only",
	"28":                 "the database refused the server's credentials",
	"3D000":              "the database does not exist",
	"58":                 "the database has a system error",
}

// Fault turns errors of the driver that say that the database cannot serve now
// (unreachable, shutting down, read-only, overloaded, too slow) into an
// Unavailable fault. Any other error, nil, faults and the caller's own
// cancellation or deadline among them, comes back as it is.
func Fault(err error) error {
	if err == nil || fault.CodeOf(err) != "" {
		return err
	}
	if message := unavailability(err); message != "" {
		return fault.Wrap(err, fault.Unavailable, "%s", message)
	}
	return err
}

func unavailability(err error) string {
	var (
		pgErr   *pgconn.PgError
		connect *pgconn.ConnectError
		network net.Error
	)
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &pgErr):
		if message, ok := unavailable[pgErr.Code]; ok {
			return message
		}
		return unavailable[class(pgErr)]
	case errors.As(err, &connect):
		// Before the deadline: the bound on connecting is the pool's own.
		return "the database cannot be reached"
	case errors.Is(err, context.DeadlineExceeded):
		return ""
	case errors.As(err, &network),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed),
		errors.Is(err, pgconn.ErrConnClosed):
		return "the database connection was lost"
	}
	return ""
}

// class returns the first two characters of the SQLSTATE.
func class(err *pgconn.PgError) string {
	return err.Code[:min(2, len(err.Code))]
}
