package worker

import (
	"context"
	"errors"

	"github.com/coderclaw/runtime/api"
)

// Ask implements executor.Sink.
func (s *sink) Ask(context.Context, api.NewQuestion) (api.Question, error) {
	return api.Question{}, errors.ErrUnsupported
}
