package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/identity"
	"github.com/coderclaw/runtime/internal/policy"
)

// Devices are the machines that users work on, known by their keys.
type Devices interface {
	Challenge(ctx context.Context, c policy.Caller) (challenge string, expiresAt time.Time, err error)
	Register(ctx context.Context, c policy.Caller, n identity.NewDevice) (identity.Device, error)
	Devices(ctx context.Context, c policy.Caller, f identity.DeviceFilter, before uuid.UUID, limit int) ([]identity.Device, bool, error)
	Device(ctx context.Context, c policy.Caller, id uuid.UUID) (identity.Device, error)
	RenameDevice(ctx context.Context, c policy.Caller, id uuid.UUID, name string) (identity.Device, error)
	SetTrust(ctx context.Context, c policy.Caller, id uuid.UUID, level policy.TrustLevel) (identity.Device, error)
	Verify(ctx context.Context, c policy.Caller, id uuid.UUID, code string, p identity.Possession) (identity.Device, error)
	RevokeDevice(ctx context.Context, c policy.Caller, id uuid.UUID) error
	CreateEnrolment(ctx context.Context, c policy.Caller, n identity.Enrolment) (code string, expiresAt time.Time, err error)
}

type createdDevice struct {
	Location string `header:"Location" doc:"The path of the device."`
	Body     api.Device
}

func (s *Server) registerDevices() {
	handle(s, operation{
		id: "createDeviceChallenge", action: "device.challenge", method: http.MethodPost, path: "/v1/devices/challenges", permission: policy.Authenticated, tag: "Devices",
		summary: "Get a text for a device to sign, to show that it holds its key", status: http.StatusCreated,
	}, s.createDeviceChallenge)
	handle(s, operation{
		id: "enrollDevice", action: "device.enroll", method: http.MethodPost, path: "/v1/devices", permission: policy.Authenticated, tag: "Devices",
		summary: "Make a device of one's own known", status: http.StatusCreated,
		detail: "It is untrusted, or verified with an enrolment code. Where a session needs a known device, POST /v1/sessions can bring the first one along.",
		errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests},
	}, s.enrollDevice)
	handle(s, operation{
		id: "listDevices", action: "device.list", method: http.MethodGet, path: "/v1/devices", permission: policy.Authenticated, tag: "Devices",
		summary: "List one's devices; all, for an administrator", errors: []int{http.StatusUnprocessableEntity},
	}, s.listDevices)
	handle(s, operation{
		id: "getDevice", action: "device.read", method: http.MethodGet, path: "/v1/devices/{id}", permission: policy.Authenticated, tag: "Devices",
		summary: "Get a device", errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.getDevice)
	handle(s, operation{
		id: "updateDevice", action: "device.update", method: http.MethodPatch, path: "/v1/devices/{id}", permission: policy.Authenticated, tag: "Devices",
		summary: "Rename a device of one's own, or trust one, as an administrator",
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.updateDevice)
	handle(s, operation{
		id: "verifyDevice", action: "device.verify", method: http.MethodPost, path: "/v1/devices/{id}/verify", permission: policy.Authenticated, tag: "Devices",
		summary: "Raise a device of one's own to verified",
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, s.verifyDevice)
	handle(s, operation{
		id: "revokeDevice", action: "device.revoke", method: http.MethodDelete, path: "/v1/devices/{id}", permission: policy.Authenticated, tag: "Devices",
		summary: "End a device for ever, and the sessions opened with its key", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.revokeDevice)
	handle(s, operation{
		id: "createEnrolmentCode", action: "enrolment.create", method: http.MethodPost, path: "/v1/devices/enrolment-codes", permission: policy.AdminAll, tag: "Devices",
		summary: "Get a code with which one device can be verified", status: http.StatusCreated, errors: []int{http.StatusUnprocessableEntity},
	}, s.createEnrolmentCode)
}

func (s *Server) createDeviceChallenge(ctx context.Context, c policy.Caller, _ *struct{}) (*struct{ Body api.DeviceChallenge }, error) {
	challenge, expires, err := s.identity.Challenge(ctx, c)
	return &struct{ Body api.DeviceChallenge }{api.DeviceChallenge{Challenge: challenge, ExpiresAt: expires}}, err
}

func (s *Server) enrollDevice(ctx context.Context, c policy.Caller, in *struct{ Body api.NewDevice }) (*createdDevice, error) {
	n := in.Body
	d, err := s.identity.Register(ctx, c, identity.NewDevice{
		Name: n.Name, JWK: n.Key, Code: n.Code, Possession: identity.Possession{Challenge: n.Challenge, Signature: n.Signature},
	})
	return &createdDevice{"/v1/devices/" + d.ID.String(), wireDevice(d)}, err
}

func (s *Server) listDevices(ctx context.Context, c policy.Caller, in *struct {
	PageInput
	UserID  string `query:"userId" maxLength:"300"`
	Revoked bool   `query:"revoked" doc:"List those that were revoked, too."`
}) (*struct{ Body api.DeviceList }, error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	devices, more, err := s.identity.Devices(ctx, c, identity.DeviceFilter{UserID: in.UserID, Revoked: in.Revoked}, before, in.Limit)
	if err != nil {
		return nil, err
	}
	list := api.DeviceList{Items: make([]api.Device, len(devices))}
	for i, d := range devices {
		list.Items[i] = wireDevice(d)
	}
	if more {
		list.NextCursor = after(devices[len(devices)-1].ID)
	}
	return &struct{ Body api.DeviceList }{list}, nil
}

func (s *Server) getDevice(ctx context.Context, c policy.Caller, in *IDInput) (*struct{ Body api.Device }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	d, err := s.identity.Device(ctx, c, id)
	return &struct{ Body api.Device }{wireDevice(d)}, err
}

func (s *Server) updateDevice(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	Body api.DevicePatch
}) (*struct{ Body api.Device }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	name, trust := in.Body.Name, in.Body.Trust
	if (name == nil) == (trust == nil) {
		// The two are different decisions, and one of them may be denied.
		return nil, fault.InvalidFields([]fault.Field{{Path: "body", Message: "must have either a name or a trust level"}})
	}
	var d identity.Device
	if name != nil {
		d, err = s.identity.RenameDevice(ctx, c, id, *name)
	} else {
		var level policy.TrustLevel
		if err := level.UnmarshalText([]byte(*trust)); err != nil {
			return nil, err
		}
		d, err = s.identity.SetTrust(ctx, c, id, level)
	}
	return &struct{ Body api.Device }{wireDevice(d)}, err
}

func (s *Server) verifyDevice(ctx context.Context, c policy.Caller, in *struct {
	IDInput
	Body api.VerifyDevice
}) (*struct{ Body api.Device }, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	d, err := s.identity.Verify(ctx, c, id, in.Body.Code, identity.Possession{Challenge: in.Body.Challenge, Signature: in.Body.Signature})
	return &struct{ Body api.Device }{wireDevice(d)}, err
}

func (s *Server) revokeDevice(ctx context.Context, c policy.Caller, in *IDInput) (*struct{}, error) {
	id, err := parseID(in.ID, "path.id")
	if err != nil {
		return nil, err
	}
	return nil, s.identity.RevokeDevice(ctx, c, id)
}

func (s *Server) createEnrolmentCode(ctx context.Context, c policy.Caller, in *struct{ Body api.NewEnrolmentCode }) (*struct{ Body api.EnrolmentCode }, error) {
	code, expires, err := s.identity.CreateEnrolment(ctx, c, identity.Enrolment{
		UserID: in.Body.UserID, TTL: time.Duration(in.Body.ExpiresSeconds) * time.Second,
	})
	return &struct{ Body api.EnrolmentCode }{api.EnrolmentCode{Code: code, ExpiresAt: expires}}, err
}

func wireDevice(d identity.Device) api.Device {
	return api.Device{
		ID: d.ID.String(), UserID: d.UserID, Name: d.Name, Trust: d.Trust.String(), Thumbprint: d.Thumbprint, CreatedAt: d.CreatedAt,
		VerifiedAt: d.VerifiedAt, TrustedAt: d.TrustedAt, LastSeenAt: d.LastSeenAt, RevokedAt: d.RevokedAt,
	}
}
