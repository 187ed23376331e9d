// Command clawctl submits tasks to a CoderClaw server and watches them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/coderclaw/runtime/internal/clawctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := clawctl.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
