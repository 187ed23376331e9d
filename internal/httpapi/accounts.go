package httpapi

// Accounts are users, the roles bound to them, and keys.
type Accounts interface{}

func (s *Server) registerAccounts() {}
