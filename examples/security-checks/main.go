// Security-checks asks what a session may do before it does it, and reads what
// the audit log says of that; see README.md.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/coderclaw/runtime/api"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	server := cmp.Or(os.Getenv("CODERCLAW_URL"), "http://127.0.0.1:7433")
	stranger, err := api.NewClient(server)
	check(err)
	opened, err := stranger.OpenSession(ctx, api.NewSession{
		Login: os.Getenv("CLAW_USER"), Password: os.Getenv("CLAW_PASSWORD"), Roles: []string{"developer"},
	})
	check(err)
	fmt.Println("Session of", opened.Session.UserID, "with the roles", opened.Session.Roles)
	client, err := api.NewClient(server, api.WithSession(opened))
	check(err)

	for _, permission := range []string{"task:submit", "config:write"} {
		d, err := client.CheckPermission(ctx, api.PermissionQuery{Permission: permission})
		check(err)
		verdict := "denied"
		if d.Allowed {
			verdict = "granted"
		}
		fmt.Printf("%s: %s: %s\n", permission, verdict, d.Reason)
	}

	task, err := client.SubmitTask(ctx, api.NewTask{
		Description: "Implement user authentication", Input: "Add JWT-based auth to the API", Dispatch: api.DispatchManual,
	})
	check(err)
	fmt.Println("Submitted", task.ID)

	for entry, err := range client.AllAudit(ctx, api.AuditFilter{ResourceID: task.ID}) {
		check(err)
		fmt.Printf("Audited: %s %s, %s\n", entry.Action, entry.Result, entry.Reason)
	}
	check(client.RevokeSession(ctx, "current"))
	if _, err := client.Me(ctx); err == nil {
		log.Fatal("the session goes on")
	}
	fmt.Println("The session has ended")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
