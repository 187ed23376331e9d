package worker

// Reporting is how many reports are under way, or wait to share a request.
func (r *Remote) Reporting() int {
	flushing, waiting := r.reports.Load()
	return flushing + waiting
}
