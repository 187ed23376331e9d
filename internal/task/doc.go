// Package task owns the life of a task: submission, claim by a worker, lease,
// progress, completion, and the event log that streams follow.
//
// It owns the tables tasks, task_events and task_dependencies; no other package
// names them. Each change of a task and the event that tells of it are written
// in one transaction, most of them in one statement. After the commit a signal
// says that something changed; whoever follows reads it from the log.
package task
