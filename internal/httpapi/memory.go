package httpapi

// Memories are what sessions remember.
type Memories interface{}

func (s *Server) registerMemory() {}
