// Package audit keeps the log of decisions: who asked to do what, from where,
// and why it was allowed or denied.
//
// Entries are written in the transaction of what they allow ([Append]), or by
// themselves for what was refused ([Log.Record]), and never changed after.
// Soon after, a sealer gives each its place in the tree of RFC 6962, and signs
// the tree's hash: a checkpoint, kept in a file outside of the database. By
// the file, [Verify] finds every later change; by a checkpoint and a [Proof],
// anyone can check a single entry without the database.
//
// What is not covered: entries of the last second or so, which are not sealed
// yet, and someone who has the signing key and can rewrite the file too.
//
// It owns the tables audit_*; no other package names them.
package audit
