package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// errConsumed says that a body cannot be sent again.
var errConsumed = errors.New("the content has been read already and cannot be sent again")

// upload is a body that is read as it is sent.
type upload struct {
	from io.Reader
	size int64 // -1: unknown
	// seeker is from, if it can be read again, which began at start.
	seeker io.Seeker
	start  int64

	mu      sync.Mutex
	read    bool
	current *sending
}

func newUpload(from io.Reader) (*upload, error) {
	u := &upload{from: from, size: -1}
	seeker, ok := from.(io.Seeker)
	if !ok {
		return u, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return u, nil // a pipe, which is an os.File too
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = seeker.Seek(start, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("measure the content: %w", err)
	}
	u.seeker, u.start, u.size = seeker, start, end-start
	return u, nil
}

// begin returns the body for a request.
func (u *upload) begin() (io.ReadCloser, error) {
	u.end()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.read {
		if u.seeker == nil {
			return nil, errConsumed
		}
		if _, err := u.seeker.Seek(u.start, io.SeekStart); err != nil {
			return nil, fmt.Errorf("go back to the beginning of the content: %w", err)
		}
		u.read = false
	}
	if u.size == 0 {
		return http.NoBody, nil
	}
	u.current = &sending{u}
	return u.current, nil
}

// end keeps a request that is over from reading on, which a transport may do for
// a while. What cannot be read again may also block for ever, and nobody waits
// for it.
func (u *upload) end() {
	if u.seeker == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = nil
}

// sending is an upload in one request.
type sending struct{ *upload }

func (s *sending) Read(p []byte) (int, error) {
	if s.seeker == nil {
		s.read = true
		return s.from.Read(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != s {
		return 0, errConsumed
	}
	s.read = true
	return s.from.Read(p)
}

// Close leaves what is read open: it is the caller's.
func (s *sending) Close() error { return nil }
