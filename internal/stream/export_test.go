package stream

const KeepFor = keepFor

// Followers returns how many followers there are.
func (h *Hub[E]) Followers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, t := range h.logs {
		n += len(t.followers)
	}
	return n
}
