package httpapi

func (s *Server) registerGovernance() {}
