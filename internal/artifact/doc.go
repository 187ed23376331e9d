// Package artifact keeps the bytes of artifacts, each content under an id of its
// own: in PostgreSQL, or in a bucket of an S3-compatible service.
//
// It owns the table artifact_chunks. Which contents there are, whose they are
// and when they may go is the task engine's to know.
package artifact
