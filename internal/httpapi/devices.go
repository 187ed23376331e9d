package httpapi

// Devices are the machines that users work on.
type Devices interface{}

func (s *Server) registerDevices() {}
