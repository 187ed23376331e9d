package embedded

import (
	"fmt"
	"time"
)

const (
	maxFailures = 10          // in a row, over half a minute
	steady      = time.Minute // a run of this length ends the row
)

// supervise keeps the server running until Stop. One that dies is started
// again, ever more slowly.
func (c *Cluster) supervise(s *server) {
	defer c.finish()
	failures, since := 0, time.Now()
	for {
		if s != nil {
			select {
			case <-c.ctx.Done():
				s.stop(c.patience)
				return
			case <-s.exited:
				c.opts.Log.ErrorContext(c.ctx, "PostgreSQL ended by itself; starting it again",
					"exit", fmt.Sprint(s.exit), "log", c.layout.log)
			}
			if time.Since(since) >= steady {
				failures = 0
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(min(10*time.Second, 100*time.Millisecond<<failures)):
		}
		var err error
		since = time.Now()
		if s, err = c.launch(c.ctx); err == nil {
			c.opts.Log.InfoContext(c.ctx, "PostgreSQL is running again")
		}
		if failures++; failures < maxFailures || c.ctx.Err() != nil {
			continue
		}
		if s != nil {
			s.stop(c.patience)
			err = fmt.Errorf("PostgreSQL ends soon after each start; see %s", c.layout.log)
		}
		c.err = err
		c.opts.Log.ErrorContext(c.ctx, "PostgreSQL cannot be kept running", "error", err)
		return
	}
}

func (c *Cluster) finish() {
	c.layout.cleanUp()
	c.lock.Close()
	c.stop()
	c.losePatience()
	close(c.done)
}
