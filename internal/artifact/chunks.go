package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/postgres"
)

const (
	// chunkSize is the length of a piece, of which one is in memory at a time.
	chunkSize = 256 << 10
	// chunkTimeout bounds what is done with one piece.
	chunkTimeout = 10 * time.Second
	// removeBatch is how many pieces one statement removes.
	removeBatch = 1000
)

// Chunks keeps contents in PostgreSQL, in pieces. No transaction outlasts a
// piece, however slow its reader or writer is.
type Chunks struct{ pool *pgxpool.Pool }

// NewChunks returns the store in the database of pool.
func NewChunks(pool *pgxpool.Pool) Chunks { return Chunks{pool} }

// Name is "postgres".
func (Chunks) Name() string { return "postgres" }

// Write keeps what r yields until its end, under an id that stands in
// artifact_contents. After an error a part of it may be there, for Remove.
func (c Chunks) Write(ctx context.Context, id uuid.UUID, r io.Reader) error {
	chunk := make([]byte, chunkSize)
	for number := 0; ; number++ {
		n, err := fill(r, chunk)
		if err != nil && err != io.EOF { //nolint:errorlint // likewise
			return err
		}
		if n > 0 {
			if err := c.insert(ctx, id, number, chunk[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// fill reads until p is full. Unlike io.ReadFull it tells the end of r from a
// reader that broke off: io.EOF is the end and nothing else.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (c Chunks) insert(ctx context.Context, id uuid.UUID, number int, bytes []byte) error {
	ctx, cancel := context.WithTimeout(ctx, chunkTimeout)
	defer cancel()
	err := postgres.Retry(ctx, func() error {
		_, err := c.pool.Exec(ctx, `INSERT INTO artifact_chunks (content_id, number, bytes) VALUES ($1, $2, $3)`, id, number, bytes)
		return err
	})
	if err != nil {
		return fmt.Errorf("write chunk %d of content %s: %w", number, id, err)
	}
	return nil
}

// Open returns what is kept from an offset on. Its end is the end of what is
// there: the caller knows how much there should be.
func (c Chunks) Open(ctx context.Context, id uuid.UUID, offset int64) (io.ReadCloser, error) {
	return &chunkReader{ctx: ctx, pool: c.pool, id: id, number: offset / chunkSize, skip: offset % chunkSize}, nil
}

// chunkReader reads piece after piece.
type chunkReader struct {
	ctx    context.Context //nolint:containedctx // an io.Reader has no other place for it
	pool   *pgxpool.Pool
	id     uuid.UUID
	number int64
	skip   int64 // of the next piece
	rest   []byte
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *chunkReader) next() error {
	ctx, cancel := context.WithTimeout(r.ctx, chunkTimeout)
	defer cancel()
	err := r.pool.QueryRow(ctx, `SELECT substr(bytes, $3 + 1) FROM artifact_chunks WHERE content_id = $1 AND number = $2`,
		r.id, r.number, r.skip).Scan(&r.rest)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && len(r.rest) == 0:
		return io.EOF
	case err != nil:
		return postgres.Fault(fmt.Errorf("read chunk %d of content %s: %w", r.number, r.id, err))
	}
	r.number, r.skip = r.number+1, 0
	return nil
}

// Close has nothing to give back.
func (r *chunkReader) Close() error { return nil }

// Remove removes what is kept under an id, which may be nothing.
func (c Chunks) Remove(ctx context.Context, id uuid.UUID) error {
	for {
		tag, err := c.pool.Exec(ctx, `DELETE FROM artifact_chunks WHERE content_id = $1 AND number IN (
			SELECT number FROM artifact_chunks WHERE content_id = $1 LIMIT $2)`, id, removeBatch)
		if err != nil {
			return postgres.Fault(fmt.Errorf("remove content %s: %w", id, err))
		}
		if tag.RowsAffected() < removeBatch {
			return nil
		}
	}
}
