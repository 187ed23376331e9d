package worker

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/coderclaw/runtime/api"
)

// errNotCarried: whether the result arrived is open.
var errNotCarried = errors.New("no claim has carried the result")

// result is the last report of an attempt that a claim can carry, which asks for
// a task to take the place of the one that has ended.
type result struct {
	api.LeaseReport
	answer chan error // holds what has become of the report
}

// results are those that wait for a claim. They do so only while one is about to
// be made that does not itself wait for work.
type results struct {
	mu    sync.Mutex
	open  bool
	queue []*result
	come  chan struct{} // holds one element if there are some
}

// add has the next claim carry r, if one comes soon.
func (q *results) add(r *result) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open {
		return false
	}
	q.queue = append(q.queue, r)
	select {
	case q.come <- struct{}{}:
	default:
	}
	return true
}

// withdraw takes back what no claim carries yet.
func (q *results) withdraw(r *result) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.queue, r)
	if i < 0 {
		return false
	}
	q.queue = slices.Delete(q.queue, i, i+1)
	return true
}

// expect says that a claim will come which carries results.
func (q *results) expect() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = true
}

// take returns up to n results for a claim. If there are none the claim can wait
// for work: no others come.
func (q *results) take(n int) []*result {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.queue))
	taken := slices.Clone(q.queue[:n])
	q.queue = slices.Delete(q.queue, 0, n)
	q.open = q.open && n > 0
	return taken
}

// refuse has results be reported without a claim.
func (q *results) refuse() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = false
	for _, r := range q.queue {
		r.answer <- errNotCarried
	}
	q.queue = nil
}

// conclude makes the last report of an attempt, with a claim if one is about to
// be made. handedOver says that the claim has used the attempt's slot.
func (w *Worker) conclude(ctx context.Context, r reporter, last api.Report) (handedOver bool, err error) {
	size, err := sizeOf(last)
	res := &result{api.LeaseReport{TaskID: r.lease.taskID, LeaseToken: r.lease.token, Report: last}, make(chan error, 1)}
	if err != nil || size > maxShared || !w.results.add(res) {
		return false, r.report(ctx, last)
	}
	select {
	case err = <-res.answer:
	case <-ctx.Done():
		if w.results.withdraw(res) {
			return false, context.Cause(ctx)
		}
		err = <-res.answer
	}
	handedOver = !errors.Is(err, errNotCarried)
	if err == nil || r.refused(ctx, last, err) {
		return handedOver, err
	}
	return handedOver, r.report(ctx, last)
}
