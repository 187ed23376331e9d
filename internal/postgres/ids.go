package postgres

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// FirstID returns the least UUIDv7 of a time, not before 1970: 48 bits of
// milliseconds, then nothing but zeros (RFC 9562, section 5.7).
func FirstID(t time.Time) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 0))<<16)
	return id
}
