package app

import (
	"context"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/coderclaw/runtime/internal/config"
	"github.com/coderclaw/runtime/internal/httpapi"
)

// newLogger returns a logger that writes text to a terminal and JSON otherwise,
// unless the configuration says which.
func newLogger(w io.Writer, cfg config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel, ReplaceAttr: readableDuration}
	text := cfg.LogFormat == config.LogText
	if f, ok := w.(*os.File); ok && cfg.LogFormat == config.LogAuto {
		text = term.IsTerminal(int(f.Fd()))
	}
	if text {
		return slog.New(requestLog{slog.NewTextHandler(w, options)})
	}
	return slog.New(requestLog{slog.NewJSONHandler(w, options)})
}

// readableDuration writes durations as people do, in JSON too.
func readableDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// requestLog adds the id of the request, if there is one, to each line.
type requestLog struct{ slog.Handler }

func (h requestLog) Handle(ctx context.Context, r slog.Record) error {
	if id := httpapi.RequestID(ctx); id != "" {
		r.AddAttrs(slog.String("request", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h requestLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestLog{h.Handler.WithAttrs(attrs)}
}

func (h requestLog) WithGroup(name string) slog.Handler { return requestLog{h.Handler.WithGroup(name)} }
