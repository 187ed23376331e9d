package task

// The statements of the hot paths, for benchmarks that run them without the
// server to see what the server adds.
var (
	InsertSQL = insertSQL // Submit
	ChangeSQL = changeSQL // Update and Report
	SettleSQL = settleSQL // follows ChangeSQL in its transaction when the task ends
)
