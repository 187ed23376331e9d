package embedded

import (
	"fmt"
	"time"
)

const (
	maxFailures = 6           // in a row, over some 6 s
	steady      = time.Minute // a run of this length ends the row
)

// supervise keeps the server running until Stop. One that dies is started
// again, ever more slowly and not for ever.
func (c *Cluster) supervise(s *server) {
	defer c.finish()
	failures, since := 0, time.Now()
	for {
		select {
		case <-c.ctx.Done():
			s.stop(c.patience)
			return
		case <-s.exited:
		}
		if time.Since(since) >= steady {
			failures = 0
		}
		if s = c.restart(fmt.Errorf("PostgreSQL ended by itself: %w", s.exit), &failures); s == nil {
			return
		}
		c.opts.Log.InfoContext(c.ctx, "PostgreSQL is running again")
		since = time.Now()
	}
}

// restart starts the server that is down for the given reason. It returns nil
// when Stop is called or, with c.err set, when it gives up.
func (c *Cluster) restart(reason error, failures *int) *server {
	for ; *failures < maxFailures; *failures++ {
		c.opts.Log.ErrorContext(c.ctx, "PostgreSQL is down; starting it again", "error", reason, "log", c.layout.log)
		select {
		case <-c.ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond << *failures):
		}
		s, err := c.launch(c.ctx)
		if err == nil {
			*failures++
			return s
		}
		if c.ctx.Err() != nil {
			return nil
		}
		reason = err
	}
	c.err = fmt.Errorf("PostgreSQL cannot be kept running: %w", reason)
	return nil
}

// finish lets go of everything once the server is gone for good.
func (c *Cluster) finish() {
	c.layout.cleanUp()
	c.lock.Close()
	c.stop()
	c.losePatience()
	close(c.done)
}
