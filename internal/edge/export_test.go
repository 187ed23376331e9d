package edge

// FileTLSLookingEach is FileTLS with another time between looks at the files.
var FileTLSLookingEach = fileTLS

// MaxBuckets bounds what a Limiter remembers.
const MaxBuckets = maxBuckets

// Len returns for how many keys there is a bucket.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buckets.Len()
}

// Len returns how many keys hold something.
func (q *Quota) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.held)
}
