package httpapi

import (
	"net/http"
	"time"

	"github.com/coderclaw/runtime/internal/edge"
	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
)

// Limits bound what one caller may ask of one server. What is zero is not
// bounded.
type Limits struct {
	Principal int // requests per second of a principal
	Anonymous int // requests per second of an address without a credential
	Streams   int // open streams of a principal
}

const (
	// burst is how many seconds' worth of requests may come at once.
	burst = 5
	// An address may fail to authenticate this often at once, and then once
	// in so many seconds.
	failureBurst    = 20
	failureInterval = 3.0
)

type limits struct {
	principal, anonymous, failures *edge.Limiter
	streams                        *edge.Quota
}

func newLimits(l Limits) limits {
	return limits{
		principal: edge.NewLimiter(float64(l.Principal), burst*l.Principal),
		anonymous: edge.NewLimiter(float64(l.Anonymous), burst*l.Anonymous),
		failures:  edge.NewLimiter(1/failureInterval, failureBurst),
		streams:   edge.NewQuota(l.Streams),
	}
}

// unlimited reports whether no limit binds the caller: the operator, workers,
// and whoever needs no credential on this machine.
func (s *Server) unlimited(c policy.Caller) bool {
	return c.UserID == Operator.UserID || c.Worker != nil || c.Local && c.UserID == s.access.Anonymous.UserID
}

// takeStream takes one of the caller's places for what may stay open for long,
// and returns how to give it back.
func (s *Server) takeStream(c policy.Caller) (release func(), err error) {
	if s.unlimited(c) {
		return func() {}, nil
	}
	release, ok := s.limits.streams.Acquire(c.UserID)
	if !ok {
		return nil, fault.New(fault.TooMany, "too many streams are open for %s", c.UserID)
	}
	return release, nil
}

func (s *Server) limited(l *edge.Limiter, key string) *Problem {
	if wait, ok := l.Take(key); !ok {
		return tooMany(wait)
	}
	return nil
}

func tooMany(wait time.Duration) *Problem {
	p := newProblem(http.StatusTooManyRequests, edge.TooMany, "too many requests; Retry-After says when to try again")
	p.header = edge.RetryAfter(wait)
	return p
}

// refuse answers for the edge.
func refuse(w http.ResponseWriter, r *http.Request, status int, slug, detail string, header http.Header) {
	p := newProblem(status, slug, detail)
	p.header = header
	writeProblem(w, r, p)
}
