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
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

// Device is a key pair whose private half stays on one machine. It is known by
// that alone, never by an id that somebody sends.
type Device struct {
	ID         uuid.UUID
	UserID     string
	Name       string // for people
	PublicKey  json.RawMessage
	Thumbprint string            // of the key (RFC 7638)
	Trust      policy.TrustLevel `db:"-"`
	CreatedAt  time.Time
	VerifiedAt *time.Time
	VerifiedBy string // who gave the code
	TrustedAt  *time.Time
	TrustedBy  string
	RevokedAt  *time.Time
	RevokedBy  string
	LastSeenAt *time.Time // within a minute or so
}

const deviceColumns = `id, user_id, name, public_key, thumbprint, trust AS level, created_at, verified_at, verified_by, trusted_at, trusted_by,
	revoked_at, revoked_by, last_seen_at`

func toDevice(row pgx.CollectableRow) (Device, error) {
	stored, err := pgx.RowToStructByName[struct {
		Device
		Level string
	}](row)
	if err != nil {
		return Device{}, err
	}
	d := stored.Device
	d.CreatedAt, d.VerifiedAt, d.TrustedAt = d.CreatedAt.UTC(), utc(d.VerifiedAt), utc(d.TrustedAt)
	d.RevokedAt, d.LastSeenAt = utc(d.RevokedAt), utc(d.LastSeenAt)
	return d, d.Trust.UnmarshalText([]byte(stored.Level))
}

// maxDevices bounds how many devices a user has at a time.
const maxDevices = 100

// NewDevice is a device to register.
type NewDevice struct {
	Name       string
	JWK        []byte // the public key (RFC 7517), Ed25519 or P-256
	Possession Possession
	// Code, if given, is an enrolment code, and verifies the device at once.
	Code string
}

func (s *Service) newDevice(userID, name string, key dpop.Key) Device {
	return Device{
		ID: uuid.Must(uuid.NewV7()), UserID: userID, Name: name, PublicKey: key.JWK(), Thumbprint: key.Thumbprint(), CreatedAt: s.now().UTC(),
	}
}

func (d Device) enrolled() act { return act{"device.enroll", "device", d.ID.String()} }

func (d Device) details() json.RawMessage {
	return detail(map[string]any{"name": d.Name, "thumbprint": d.Thumbprint})
}

// Register makes a device of the caller's user known, untrusted unless there is
// an enrolment code. What the user has opened with its key belongs to the device from then on.
//
// Faults: Invalid, also for a weak key; Forbidden for a challenge that is not
// signed by it, or a code that is not accepted; Conflict when the key is that of
// a device; TooMany.
func (s *Service) Register(ctx context.Context, c policy.Caller, n NewDevice) (Device, error) {
	var f faults
	f.text("name", n.Name, maxNameBytes, true)
	if err := f.err(); err != nil {
		return Device{}, err
	}
	key, err := dpop.ParseJWK(n.JWK)
	if err != nil {
		return Device{}, err
	}
	d, err := s.serves(ctx, c)
	if err != nil {
		return Device{}, err
	}
	device := s.newDevice(c.UserID, n.Name, key)
	err = s.changeAccess(ctx, c, device.enrolled(), "", d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = device.details()
		if err := s.possessed(ctx, tx, c, key, n.Possession); err != nil {
			return err
		}
		if err := s.insertDevice(ctx, tx, device); err != nil || n.Code == "" {
			return err
		}
		return s.enrol(ctx, tx, c, device.ID, n.Code)
	})
	if err != nil {
		return Device{}, asDevice(err, c.UserID)
	}
	return s.Device(ctx, c, device.ID)
}

// asDevice says why a device cannot be stored, if that is the error.
func asDevice(err error, userID string) error {
	switch {
	case postgres.Violates(err, "devices_thumbprint_key"):
		return fault.New(fault.Conflict, "the key is that of a device already")
	case postgres.Violates(err, "devices_user_fkey"):
		return fault.New(fault.Conflict, "%s has no account that a device could belong to", userID)
	}
	return err
}

func (s *Service) insertDevice(ctx context.Context, tx pgx.Tx, d Device) error {
	var devices int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM devices WHERE user_id = $1 AND revoked_at IS NULL`, d.UserID).Scan(&devices); err != nil {
		return fmt.Errorf("count devices: %w", err)
	}
	if devices >= maxDevices {
		return fault.New(fault.TooMany, "%s has %d devices, and can have no more", d.UserID, devices)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO devices (id, user_id, name, public_key, thumbprint, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		d.ID, d.UserID, d.Name, d.PublicKey, d.Thumbprint, d.CreatedAt); err != nil {
		return fmt.Errorf("store device: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE sessions SET device_id = $1
		WHERE user_id = $2 AND key_thumbprint = $3 AND device_id IS NULL AND revoked_at IS NULL`, d.ID, d.UserID, d.Thumbprint); err != nil {
		return fmt.Errorf("give sessions to the device: %w", err)
	}
	return nil
}

// RenameDevice gives a device of the caller's user another name.
//
// Faults: NotFound, Invalid.
func (s *Service) RenameDevice(ctx context.Context, c policy.Caller, id uuid.UUID, name string) (Device, error) {
	var f faults
	f.text("name", name, maxNameBytes, true)
	if err := f.err(); err != nil {
		return Device{}, err
	}
	if _, err := s.Device(ctx, c, id); err != nil {
		return Device{}, err
	}
	d, err := s.serves(ctx, c)
	if err != nil {
		return Device{}, err
	}
	err = s.change(ctx, c, act{"device.update", "device", id.String()}, d, func(tx pgx.Tx, e *audit.Entry) error {
		e.Details = detail(map[string]any{"name": name})
		if _, err := tx.Exec(ctx, `UPDATE devices SET name = $2 WHERE id = $1`, id, name); err != nil {
			return fmt.Errorf("rename device: %w", err)
		}
		return nil
	})
	if err != nil {
		return Device{}, err
	}
	return s.Device(ctx, c, id)
}

// SetTrust sets the level of a device, higher or lower, at once.
//
// Faults: Forbidden unless the caller administers the server, NotFound,
// Conflict for a device that was revoked.
func (s *Service) SetTrust(ctx context.Context, c policy.Caller, id uuid.UUID, level policy.TrustLevel) (Device, error) {
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return Device{}, err
	}
	a := act{"device.trust", "device", id.String()}
	err = s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		device, err := findDevice(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case device.RevokedAt != nil:
			return revoked(id)
		}
		e.Details = detail(map[string]any{"from": device.Trust.String(), "to": level.String(), "userId": device.UserID})
		if _, err := tx.Exec(ctx, `
			UPDATE devices SET trust = @level,
				verified_at = CASE WHEN @level <> 'untrusted' THEN coalesce(verified_at, @now) END,
				verified_by = CASE WHEN @level = 'untrusted' THEN '' WHEN verified_at IS NULL THEN @by ELSE verified_by END,
				trusted_at = CASE WHEN @level = 'trusted' THEN @now END,
				trusted_by = CASE WHEN @level = 'trusted' THEN @by ELSE '' END
			WHERE id = @id`,
			pgx.NamedArgs{"id": id, "level": level.String(), "now": s.now(), "by": c.UserID}); err != nil {
			return fmt.Errorf("set trust of device: %w", err)
		}
		return nil
	})
	if err != nil {
		return Device{}, err
	}
	return s.Device(ctx, c, id)
}

// RevokeDevice ends a device, and every session opened with its key, at once
// and for ever. NotFound unless it is the caller's user's or the caller
// administers the server.
func (s *Service) RevokeDevice(ctx context.Context, c policy.Caller, id uuid.UUID) error {
	d, err := s.serves(ctx, c)
	if err != nil {
		return err
	}
	a := act{"device.revoke", "device", id.String()}
	device, err := findDevice(ctx, s.pool, id)
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return postgres.Fault(err)
	}
	if err != nil || device.UserID != c.UserID {
		d, derr := s.administers(ctx, c, "")
		switch {
		case derr != nil:
			return derr
		case !d.Allowed:
			return s.refuse(ctx, c, a, hide(d, "device", id.String()))
		case err != nil:
			return err
		}
	}
	return s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, e *audit.Entry) error {
		if _, err := tx.Exec(ctx, `UPDATE devices SET revoked_at = $2, revoked_by = $3 WHERE id = $1 AND revoked_at IS NULL`,
			id, s.now(), c.UserID); err != nil {
			return fmt.Errorf("revoke device: %w", err)
		}
		n, err := s.endSessions(ctx, tx, c, "its device was revoked", `device_id = $4`, id)
		e.Details = detail(map[string]any{"sessions": n, "userId": device.UserID})
		return err
	})
}

// DeviceFilter selects devices; what is zero selects all.
type DeviceFilter struct {
	UserID  string
	Revoked bool // those that were revoked, too
}

// Devices returns up to limit devices that the filter selects, newest first,
// older than the one with the id before; uuid.Max begins. more says that there
// are further ones. Who administers the server sees everyone's, others their
// user's.
func (s *Service) Devices(ctx context.Context, c policy.Caller, f DeviceFilter, before uuid.UUID, limit int) (devices []Device, more bool, err error) {
	whose, err := s.whoseDevices(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if !storable(f.UserID) {
		return nil, false, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT `+deviceColumns+` FROM devices
		WHERE id < @before AND (@whose = '' OR user_id = @whose) AND (@user = '' OR user_id = @user) AND (@revoked OR revoked_at IS NULL)
		ORDER BY id DESC LIMIT @limit`,
		pgx.NamedArgs{"before": before, "whose": whose, "user": f.UserID, "revoked": f.Revoked, "limit": limit + 1})
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list devices: %w", err))
	}
	devices, err = pgx.CollectRows(rows, toDevice)
	if err != nil {
		return nil, false, postgres.Fault(fmt.Errorf("list devices: %w", err))
	}
	devices, more = page(devices, limit)
	return devices, more, nil
}

func (s *Service) whoseDevices(ctx context.Context, c policy.Caller) (string, error) {
	d, err := s.administers(ctx, c, "")
	if err != nil || d.Allowed {
		return "", err
	}
	d, err = s.serves(ctx, c)
	if err != nil {
		return "", err
	}
	return c.UserID, d.Err()
}

// Device returns a device that Devices would list, revoked or not, or NotFound.
func (s *Service) Device(ctx context.Context, c policy.Caller, id uuid.UUID) (Device, error) {
	whose, err := s.whoseDevices(ctx, c)
	if err != nil {
		return Device{}, err
	}
	d, err := findDevice(ctx, s.pool, id)
	if err != nil {
		return Device{}, postgres.Fault(err)
	}
	if whose != "" && d.UserID != whose {
		return Device{}, missing("device", id.String())
	}
	return d, nil
}

func findDevice(ctx context.Context, db querier, id uuid.UUID) (Device, error) {
	rows, err := db.Query(ctx, `SELECT `+deviceColumns+` FROM devices WHERE id = $1`, id)
	if err != nil {
		return Device{}, fmt.Errorf("read device: %w", err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, toDevice)
	if errors.Is(err, pgx.ErrNoRows) {
		return Device{}, missing("device", id.String())
	}
	if err != nil {
		return Device{}, fmt.Errorf("read device: %w", err)
	}
	return d, nil
}
