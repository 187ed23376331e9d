package clawbench

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/task"
)

// script is what pgbench runs over and over: the server's own statements, with
// the arguments that the server would give them.
//
// Arguments are variables of pgbench, which it sends as parameters, so that the
// server prepares and plans what it prepares and plans for us. Two kinds cannot
// be: a NULL, and the task's id, which differs from run to run and is put
// together by an expression in the statement.
type script struct {
	text      strings.Builder
	variables []string // name=value
}

// sqlText is an argument that is spliced into a statement as SQL.
type sqlText string

const (
	null = sqlText("NULL")

	// taskID is a UUIDv7: pgbench knows no text but constants, so its halves are
	// numbers. Each client begins at the present and goes on by a millisecond
	// with each task; what tells tasks of a millisecond apart is chance.
	taskID = sqlText("('0' || to_hex(:high::bigint) || to_hex(:low::bigint))::uuid")
	// entryID is that of an audit entry about the task.
	entryID   = sqlText("('0' || to_hex(:high::bigint) || to_hex(:entry::bigint))::uuid")
	nextEntry = "\\set entry random(-9223372036854775807, -4611686018427387905)\n"
	nextID    = "\\set high :high + 65536\n" +
		"\\set low random(-9223372036854775807, -4611686018427387905)\n"
)

// firstHigh is the value of the variable high before the first task: 48 bits of
// milliseconds, four of version, twelve of nothing.
func firstHigh(unixMilli int64) int64 { return unixMilli<<16 | 0x7000 }

var parameter = regexp.MustCompile(`\$\d+`)

// add adds a statement with its arguments, texts or sqlTexts. It panics when
// they are not as many as the statement has come to take.
func (s *script) add(statement string, args ...any) {
	numbers := map[string]bool{}
	for _, p := range parameter.FindAllString(statement, -1) {
		numbers[p] = true
	}
	if len(numbers) != len(args) {
		panic(fmt.Sprintf("clawbench: a statement takes %d arguments, not %d", len(numbers), len(args)))
	}
	spliced := make([]string, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case sqlText:
			spliced[i] = string(arg)
		case string:
			if arg == "" { // pgbench has no empty variables
				spliced[i] = "''"
				continue
			}
			name := fmt.Sprintf("v%d", len(s.variables))
			s.variables = append(s.variables, name+"="+arg)
			spliced[i] = ":" + name
		default:
			panic(fmt.Sprintf("clawbench: argument %v is neither text nor SQL", arg))
		}
	}
	s.text.WriteString(parameter.ReplaceAllStringFunc(strings.TrimSpace(statement), func(p string) string {
		n, _ := strconv.Atoi(p[1:]) // digits, as they matched
		return spliced[n-1]
	}))
	s.text.WriteString(";\n")
}

// submit adds what the server does with n.
func (s *script) submit(n api.NewTask) {
	runAfter := "{NULL}"
	if n.RunAfter != nil {
		runAfter = array(n.RunAfter.Format("2006-01-02 15:04:05Z07:00"))
	}
	empty := array("")
	s.text.WriteString(nextID + nextEntry)
	s.add(task.InsertSQL, append([]any{
		"ARRAY[" + taskID + "]", array(n.Description), array(n.Input), array(n.AgentID), empty, empty, empty,
		empty, empty, "{NULL}", array("{}"), array(string(n.Dispatch)), "{0}", runAfter, "{0}",
		"{1}", array("{}"), "{NULL}", "{0}", array("local"), empty, "{0}", "{NULL}", array("{}"), "{}", empty, "{0}", "{NULL}",
		"{NULL}", "{NULL}", "{0}", array("{}"), "{NULL}",
	}, entry("task.submit", array(`{"roles":["developer"],"trust":"untrusted","local":true,"permission":"task:submit","agentId":"`+n.AgentID+`"}`))...)...)
}

// reachable says from which statuses the steps of a lifecycle lead on, as the
// task engine tells the database.
var reachable = map[api.TaskStatus]string{
	"":                "{pending,planning,running,waiting}",
	api.TaskPlanning:  "{pending}",
	api.TaskRunning:   "{planning,waiting}",
	api.TaskCompleted: "{running}",
}

// update adds what the server does with p, a change of the task submitted last
// by its submitter or, without an audit entry, as much as with a worker's report.
func (s *script) update(p api.TaskPatch, audited bool) {
	ch := changed{id: taskID, lease: null, message: p.Message, event: "progress", progress: p.Progress, output: p.Output}
	if p.Status != nil {
		ch.status, ch.event = *p.Status, "status"
	}
	statement, recorded := task.ReportSQL, noEntry()
	if audited {
		s.text.WriteString(nextEntry)
		statement, recorded = task.UpdateSQL, entry("task.update", "{NULL}")
	}
	if ch.status.Terminal() {
		s.text.WriteString("\\startpipeline\n")
	}
	s.change(statement, ch, recorded)
	if ch.status.Terminal() {
		s.add(task.SettleSQL, "ARRAY["+taskID+"]")
		s.text.WriteString("\\endpipeline\n")
	}
}

// report adds what the server does with a report of progress, on one of the
// tasks from a first to a last number; see pastSQL.
func (s *script) report(e api.ReportEvent, zero int64, first, last int) {
	fmt.Fprintf(&s.text, "\\set n random(%d, %d)\n", first, last)
	id := sqlText(fmt.Sprintf("(lpad(to_hex(%d + :n::bigint), 12, '0') || '7' || substr(md5('t' || :n::bigint), 1, 3) || '8' || substr(md5((:n::bigint)::text), 1, 15))::uuid", zero))
	s.change(task.ReportSQL, changed{id: id, lease: id, message: e.Message, event: string(e.Type), progress: e.Progress}, noEntry())
}

// changed is a change with its event.
type changed struct {
	id, lease      sqlText
	status         api.TaskStatus
	message, event string
	progress       *int
	output         *string
}

func (s *script) change(statement string, ch changed, recorded []any) {
	progress, output := sqlText("ARRAY[NULL]"), any(sqlText("ARRAY[NULL]"))
	if ch.progress != nil {
		progress = sqlText(fmt.Sprintf("ARRAY[%d]", *ch.progress))
	}
	if ch.output != nil {
		output = array(*ch.output)
	}
	empty := array("")
	s.add(statement, append([]any{
		"ARRAY[" + ch.id + "]", "ARRAY[" + ch.lease + "]", array("local"), empty, "{true}", sqlText(fmt.Sprintf("ARRAY[%t]", ch.lease != null)),
		array(reachable[ch.status]), array(string(ch.status)),
		empty, progress, output, sqlText("ARRAY[NULL]"), empty, "{false}", "{false}", "{1}",
		"{1}", "{1}", array(ch.event), array(ch.message), progress, "{NULL}", strconv.Itoa(task.MaxEvents),
	}, recorded...)...)
}

// entry are the arguments for the audit entry of an action on the task.
func entry(action, details string) []any {
	empty := array("")
	return []any{
		"ARRAY[" + entryID + "]", sqlText("ARRAY[now()]"), "ARRAY[" + taskID + "::text]", array("0123456789abcdef"), "{1}",
		"{0}", array("local"), empty, empty, empty, array(action), array("task"), array("allowed"), array("permission"), empty,
		array("role developer grants task:submit"), array("127.0.0.1"), details,
	}
}

// noEntry are the arguments for no audit entry.
func noEntry() []any {
	args := entry("", "{}")
	for i := range args {
		args[i] = "{}"
	}
	return args
}

// array writes a text as an array of one, in PostgreSQL's way.
func array(element string) string {
	return `{"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(element) + `"}`
}

// payload is the task that is submitted: as small as tasks are that name a file
// and say what to do with it.
func payload() api.NewTask {
	return api.NewTask{
		Description: "Review the change",
		Input:       "Look at the last commit on this branch. Say what it does, what it breaks and what is missing.",
		AgentID:     "codebase-survey", // which every server can run
		Dispatch:    api.DispatchManual,
	}
}

func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	return body, nil
}
