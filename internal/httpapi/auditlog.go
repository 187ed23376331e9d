package httpapi

// AuditLog is the record of decisions.
type AuditLog interface{}

func (s *Server) registerAudit() {}
