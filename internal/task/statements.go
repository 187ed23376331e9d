package task

import (
	"fmt"
	"strings"
)

// The statements of the hot paths, for benchmarks that run them without the
// server to see what the server adds.
var (
	InsertSQL = insertSQL // Submit
	UpdateSQL = updateSQL // Update
	ReportSQL = reportSQL // Report
	SettleSQL = settleSQL // follows them in its transaction when the task ends
)

// PlanSettings are settings of PostgreSQL that the hot statements run with. They
// keep the planner to reaching each row by an index, and to one plan whatever the
// parameters: how large a table has grown, and how few of its tasks can be claimed
// or are leased, statistics tell too late, while a plan that was made when it was
// new is kept.
var PlanSettings = [][2]string{
	{"enable_seqscan", "off"}, {"enable_bitmapscan", "off"}, {"enable_hashjoin", "off"}, {"enable_mergejoin", "off"},
	{"plan_cache_mode", "force_generic_plan"},
}

// planSQL makes the PlanSettings until the transaction ends.
var planSQL = func() string {
	var sets []string
	for _, s := range PlanSettings {
		sets = append(sets, fmt.Sprintf("set_config('%s', '%s', true)", s[0], s[1]))
	}
	return "SELECT " + strings.Join(sets, ", ")
}()
