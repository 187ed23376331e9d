package httpapi

import "time"

// SetWriteTimeout shortens the patience with slow followers.
func (s *Server) SetWriteTimeout(d time.Duration) { s.writeTimeout = d }

// ScanJSON and DecodeJSON read bodies.
var (
	ScanJSON   = scanJSON
	DecodeJSON = decodeJSON
)
