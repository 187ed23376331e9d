package policy

// Closed returns a policy that denies, with this layer, rule and reason, all
// that documents can deny. It stands in for documents that cannot be used; the
// version is that of the organisation's. No role grants anything by it.
func Closed(layer Layer, rule, reason string, version int64) *Policy {
	return &Policy{version: version, closed: &Decision{Layer: layer, Rule: rule, Reason: reason, PolicyVersion: version}}
}

// IsClosed reports whether p comes from Closed, and not from documents.
func (p *Policy) IsClosed() bool { return p.closed != nil }
