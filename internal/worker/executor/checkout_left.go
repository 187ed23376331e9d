package executor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// leftSuffix ends the name of the file that says what was known of a checkout
	// whose attempt was suspended. A sweep leaves such checkouts alone.
	leftSuffix = ".left"
	// maxLeft is after how long one that nobody came back to is removed: longer
	// than a question can be open.
	maxLeft = 8 * 24 * time.Hour
)

// leftCheckout is what that file holds.
type leftCheckout struct {
	Base   string `json:"base"`
	Config []byte `json:"config"`
}

// placed is the sink of an attempt in a checkout, which goes on in the same one.
type placed struct {
	Sink
	checkout *checkout
}

// inPlace is the state of such an attempt.
type inPlace struct {
	Checkout string `json:"checkout"` // its name
	State    string `json:"state"`    // the executor's
}

// Resumable implements Sink.
func (p placed) Resumable(state func() string) {
	p.Sink.Resumable(func() string {
		inner := state()
		if inner == "" {
			return ""
		}
		text, err := json.Marshal(inPlace{filepath.Base(p.checkout.dir), inner})
		if err != nil {
			return ""
		}
		return string(text)
	})
}

// leave keeps the checkout for the attempt to go on in. If that cannot be written
// down it is removed, and the attempt begins anew.
func (c *checkout) leave() {
	if c.base == "" { // it was not complete yet
		c.close(false)
		return
	}
	text, err := json.Marshal(leftCheckout{c.base, c.config})
	if err == nil {
		err = os.WriteFile(c.dir+leftSuffix, text, 0o600)
	}
	c.close(err == nil)
}

// reopen returns the checkout that a job goes on in, and gives the job the state
// of its executor. It returns nil if the job begins anew, also because there is
// no such checkout any more.
func (cs *checkouts) reopen(job *Job) (*checkout, error) {
	if job.Resume == nil {
		return nil, nil
	}
	var was inPlace
	r := *job.Resume
	job.Resume = nil
	if json.Unmarshal([]byte(r.State), &was) != nil || filepath.Base(was.Checkout) != was.Checkout || !strings.HasPrefix(was.Checkout, job.Task.ID+"-") {
		return nil, nil
	}
	dir := filepath.Join(cs.dir, was.Checkout)
	text, err := os.ReadFile(dir + leftSuffix)
	if err != nil {
		return nil, nil
	}
	var known leftCheckout
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || json.Unmarshal(text, &known) != nil {
		return nil, nil
	}
	lock, err := locked(dir + ".lock")
	if err != nil {
		return nil, fmt.Errorf("lock checkout: %w", err)
	}
	if err := os.Remove(dir + leftSuffix); err != nil {
		lock.Close()
		return nil, fmt.Errorf("take checkout up again: %w", err)
	}
	r.State = was.State
	job.Resume = &r
	return &checkout{dir: dir, lock: lock, git: git{dir: dir, index: dir + ".index", grace: cs.grace}, base: known.Base, config: known.Config}, nil
}

// prune removes the checkouts that nobody came back to.
func (cs *checkouts) prune() {
	all, _ := filepath.Glob(filepath.Join(cs.dir, "*"+leftSuffix))
	for _, name := range all {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > maxLeft {
			_ = removeAll(strings.TrimSuffix(name, leftSuffix))
			_ = os.Remove(name)
		}
	}
}
