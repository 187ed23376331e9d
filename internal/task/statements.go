package task

// The statements of the hot paths, for benchmarks that run them without the
// server to see what the server adds.
var (
	InsertSQL = insertSQL // Submit
	UpdateSQL = updateSQL // Update
	ReportSQL = reportSQL // Report
	SettleSQL = settleSQL // follows them in its transaction when the task ends
)
