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
	"github.com/coderclaw/runtime/internal/identity/token"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	challengeTTL = 5 * time.Minute
	// MaxEnrolmentTTL is how long an enrolment code may be good for.
	MaxEnrolmentTTL = 7 * 24 * time.Hour

	challengePrefix = "ccc_"
	enrolmentPrefix = "cce_"
)

// Possession shows that its sender holds the private key of a device: the
// signature, by the key, of a text of Challenge.
type Possession struct {
	Challenge, Signature string
}

// Challenge returns a text for a device of the caller's to sign, which is good
// once, for five minutes. It names this server, so that no other can pass it
// on.
func (s *Service) Challenge(ctx context.Context, c policy.Caller) (challenge string, expiresAt time.Time, err error) {
	d, err := s.serves(ctx, c)
	if err != nil {
		return "", time.Time{}, err
	}
	if !d.Allowed {
		return "", time.Time{}, d.Err()
	}
	expiresAt = s.now().Add(challengeTTL).UTC()
	secret, hash := token.NewSecret(challengePrefix)
	if _, err := s.pool.Exec(ctx, `INSERT INTO device_challenges (hash, user_id, expires_at) VALUES ($1, $2, $3)`,
		hash, c.UserID, expiresAt); err != nil {
		return "", time.Time{}, postgres.Fault(fmt.Errorf("store challenge: %w", err))
	}
	return s.challengeText(secret), expiresAt, nil
}

func (s *Service) challengeText(secret string) string { return s.issuer.URL() + " " + secret }

// possessed uses up the challenge of the caller's, and checks its signature.
func (s *Service) possessed(ctx context.Context, tx pgx.Tx, c policy.Caller, key dpop.Key, p Possession) error {
	prefix := s.challengeText("")
	if len(p.Challenge) > len(prefix) && p.Challenge[:len(prefix)] == prefix && key.VerifyChallenge(p.Challenge, p.Signature) {
		if hash, ok := token.ParseSecret(challengePrefix, p.Challenge[len(prefix):]); ok {
			tag, err := tx.Exec(ctx, `DELETE FROM device_challenges WHERE hash = $1 AND user_id = $2 AND expires_at > $3`, hash, c.UserID, s.now())
			if err != nil {
				return fmt.Errorf("use challenge: %w", err)
			}
			if tag.RowsAffected() == 1 {
				return nil
			}
		}
	}
	return deny(policy.LayerDevice, "the challenge is not signed by the device's key, or not one to be signed now")
}

// Enrolment asks for an enrolment code.
type Enrolment struct {
	UserID string        // the only one who may use it; empty: anyone
	TTL    time.Duration // 0: an hour
}

// CreateEnrolment returns a code with which a user can verify one device, once.
//
// Faults: Forbidden unless the caller administers the server, Invalid.
func (s *Service) CreateEnrolment(ctx context.Context, c policy.Caller, n Enrolment) (code string, expiresAt time.Time, err error) {
	if n.TTL == 0 {
		n.TTL = time.Hour
	}
	var f faults
	if n.UserID != "" {
		f.subject("userId", n.UserID)
	}
	if n.TTL < 0 || n.TTL > MaxEnrolmentTTL {
		f.bad("expiresSeconds", "must be at most %d", int(MaxEnrolmentTTL.Seconds()))
	}
	if err := f.err(); err != nil {
		return "", time.Time{}, err
	}
	d, err := s.administers(ctx, c, "")
	if err != nil {
		return "", time.Time{}, err
	}
	code, hash := token.NewSecret(enrolmentPrefix)
	expiresAt = s.now().Add(n.TTL).UTC()
	err = s.change(ctx, c, act{"enrolment.create", "user", n.UserID}, d, func(tx pgx.Tx, _ *audit.Entry) error {
		if _, err := tx.Exec(ctx, `
			INSERT INTO enrolment_codes (hash, purpose, user_id, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			hash, forDevice, n.UserID, c.UserID, s.now(), expiresAt); err != nil {
			return fmt.Errorf("store enrolment code: %w", err)
		}
		return nil
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return code, expiresAt, nil
}

// Verify raises a device of the caller's to verified, for an enrolment code and
// a proof of its key.
//
// Faults: NotFound, Forbidden for a code or a proof that is not accepted.
func (s *Service) Verify(ctx context.Context, c policy.Caller, id uuid.UUID, code string, p Possession) (Device, error) {
	device, err := s.Device(ctx, c, id)
	if err != nil {
		return Device{}, err
	}
	d, err := s.serves(ctx, c)
	if err != nil {
		return Device{}, err
	}
	a := act{"device.verify", "device", id.String()}
	if device.UserID != c.UserID { // even for an administrator, who can set the level
		return Device{}, s.refuse(ctx, c, a, deny(policy.LayerDevice, "the device is another user's"))
	}
	key, err := dpop.ParseJWK(device.PublicKey)
	if err != nil {
		return Device{}, fmt.Errorf("read device %s: %w", id, err)
	}
	err = s.changeAccess(ctx, c, a, "", d, func(tx pgx.Tx, _ *audit.Entry) error {
		if err := s.possessed(ctx, tx, c, key, p); err != nil {
			return err
		}
		return s.enrol(ctx, tx, c, id, code)
	})
	if err != nil {
		return Device{}, err
	}
	return s.Device(ctx, c, id)
}

// enrolProven makes the key of a session's proof a device of the claimant's, if
// it is none, and verifies it if there is a code for that.
func (s *Service) enrolProven(ctx context.Context, tx pgx.Tx, c policy.Caller, cl *claimant, known *uuid.UUID, proof *dpop.Proof, n DeviceEnrolment) (*uuid.UUID, error) {
	if err := lockAccess(ctx, tx); err != nil {
		return nil, err
	}
	note := func(a act, details json.RawMessage) error {
		e := audit.NewEntry(c, a.action, a.resourceType, a.resourceID, policy.Decision{Allowed: true})
		e.Details = details
		return audit.Append(ctx, tx, e)
	}
	id := known
	if id == nil {
		if n.Name == "" {
			return nil, fault.InvalidFields([]fault.Field{{Path: "deviceName", Message: "is required for a key that is no device's yet"}})
		}
		device := s.newDevice(c.UserID, n.Name, proof.Key)
		if err := s.insertDevice(ctx, tx, device); err != nil {
			return nil, err
		}
		if err := note(device.enrolled(), device.details()); err != nil {
			return nil, err
		}
		id = &device.ID
	}
	switch {
	case n.Code != "":
		if err := s.enrol(ctx, tx, c, *id, n.Code); err != nil {
			return nil, err
		}
	case cl.invited:
		if err := s.verified(ctx, tx, *id, c.UserID); err != nil {
			return nil, err
		}
	default:
		return id, nil
	}
	return id, note(act{"device.verify", "device", id.String()}, nil)
}

// enrol uses up an enrolment code for a device.
func (s *Service) enrol(ctx context.Context, tx pgx.Tx, c policy.Caller, id uuid.UUID, code string) error {
	hash, ok := token.ParseSecret(enrolmentPrefix, code)
	if !ok {
		return deny(policy.LayerDevice, "%s", errNoCode)
	}
	by, err := s.redeem(ctx, tx, hash, forDevice, c.UserID)
	if errors.Is(err, errNoCode) {
		return deny(policy.LayerDevice, "%s", errNoCode)
	}
	if err != nil {
		return err
	}
	return s.verified(ctx, tx, id, by)
}

func (s *Service) verified(ctx context.Context, tx pgx.Tx, id uuid.UUID, by string) error {
	tag, err := tx.Exec(ctx, `UPDATE devices SET trust = CASE trust WHEN 'untrusted' THEN 'verified' ELSE trust END,
		verified_at = $2, verified_by = $3 WHERE id = $1 AND revoked_at IS NULL`, id, s.now(), by)
	if err != nil {
		return fmt.Errorf("verify device: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return revoked(id)
	}
	return nil
}

func revoked(id uuid.UUID) error { return fault.New(fault.Conflict, "device %s was revoked", id) }
