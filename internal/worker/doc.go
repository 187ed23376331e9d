// Package worker runs agents: it claims tasks from a server, renews its leases
// while executors do the work, and reports what they say.
//
// It never sees the database. In one process with the server or on another
// machine it is the same code; only the Server it talks to differs.
package worker
