// Package task owns the life of a task: submission, claim by a worker, lease,
// progress, completion, and the event log that streams follow.
//
// It owns the tables tasks, task_events, task_dependencies, workers, artifacts
// and artifact_contents; no other package names them. The bytes of artifacts lie
// in stores that know nothing of tasks. Each change of a task and the event that tells of it are written
// in one transaction, most of them in one statement. After the commit a signal
// says that something changed; whoever follows reads it from the log.
package task
