package httpapi

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/policy"
)

const (
	maxSimulated = 100_000 // entries, which are looked at from the newest
	maxChanged   = 500     // of which the answer tells
)

var errEnough = errors.New("enough entries")

func (s *Server) simulatePolicy(ctx context.Context, c policy.Caller, in *struct{ Body api.PolicySimulation }) (*struct{ Body api.PolicySimulationResult }, error) {
	trial, err := s.documents.Try(ctx, c, in.Body.ProjectID, []byte(in.Body.Document))
	if err != nil {
		return nil, err
	}
	result := api.PolicySimulationResult{Changed: []api.ChangedOutcome{}, Complete: true}
	looked := 0
	err = s.audit.Each(ctx, audit.Query{Action: "task.submit", ProjectID: in.Body.ProjectID, Since: in.Body.Since}, func(e audit.Entry) error {
		if looked++; looked > maxSimulated {
			result.Complete = false
			return errEnough
		}
		var x policy.Circumstances
		if e.Result == audit.Failed || json.Unmarshal(e.Details, &x) != nil || x.Permission == "" {
			result.Skipped++
			return nil
		}
		by := policy.Caller{UserID: e.UserID, SessionID: e.SessionID, DeviceID: e.DeviceID, ProjectID: e.ProjectID, Address: e.Address}
		r := policy.Request{Action: e.Action, ProjectID: e.ProjectID}
		x.Restore(&by, &r)
		d, err := trial.Decide(ctx, by, r)
		if err != nil {
			return err
		}
		result.Decisions++
		if d.Allowed == (e.Result == audit.Allowed) {
			return nil
		}
		if result.ChangedCount++; len(result.Changed) < maxChanged {
			result.Changed = append(result.Changed, api.ChangedOutcome{
				EntryID: e.ID.String(), UserID: e.UserID, Action: e.Action, Was: string(e.Result), Now: wireDecision(d),
			})
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return &struct{ Body api.PolicySimulationResult }{result}, nil
}
