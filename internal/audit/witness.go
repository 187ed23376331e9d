package audit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// witness is someone elsewhere who keeps checkpoints.
type witness struct {
	url    string
	client *http.Client
}

const (
	witnessTimeout = 10 * time.Second
	// The pause after a failure doubles from the one to the other.
	leastPause = time.Second
	mostPause  = 5 * time.Minute
)

func witnessClient() *http.Client {
	return &http.Client{
		Timeout:       witnessTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// tellWitness posts what is offered until ctx ends.
func (l *Log) tellWitness(ctx context.Context) {
	defer l.witness.client.CloseIdleConnections()
	var c Checkpoint
	var again <-chan time.Time
	pause := leastPause
	for {
		select {
		case <-ctx.Done():
			return
		case c = <-l.offers:
			if again != nil {
				continue // the newest, once the pause is over
			}
		case <-again:
		}
		again = nil
		if err := l.witness.post(ctx, c); err != nil {
			if ctx.Err() != nil {
				return
			}
			l.numbers.postFailures.Add(1)
			l.log.WarnContext(ctx, "the witness did not take a checkpoint; will try again", "error", err, "in", pause)
			again = time.After(pause)
			pause = min(2*pause, mostPause)
			continue
		}
		pause = leastPause
		l.numbers.postedSize.Store(c.Size)
	}
}

func (w witness) post(ctx context.Context, c Checkpoint) error {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, strings.NewReader(c.Note))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "text/plain; charset=utf-8")
	response, err := w.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 4096) // so that the connection can be used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %s", response.Status)
	}
	return nil
}
