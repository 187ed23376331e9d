package worker

import (
	"context"
	"errors"
	"io"
)

// Artifact implements executor.Sink.
func (s *sink) Artifact(context.Context, string, string, io.Reader) error {
	return errors.ErrUnsupported
}
