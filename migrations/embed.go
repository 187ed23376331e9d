// Package migrations holds the database schema as numbered pairs of SQL files,
// NNNNNN_name.up.sql and NNNNNN_name.down.sql, in the binary.
//
// Each file runs as one transaction, unless it says CONCURRENTLY; such a
// statement stands alone in its file. A change is additive first: what older
// servers still use is dropped one release later.
package migrations

import "embed"

// FS holds every file of the schema.
//
//go:embed *.sql
var FS embed.FS
