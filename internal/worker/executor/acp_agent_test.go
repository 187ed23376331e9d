package executor_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type object = map[string]any

// actor plays an agent of the Agent Client Protocol, good or bad. It writes and
// reads the protocol's lines itself.
type actor struct {
	in      *bufio.Scanner
	session string
	last    int
}

// message is a line of the protocol.
type message struct {
	ID     any             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func (a *actor) send(o object) {
	o["jsonrpc"] = "2.0"
	line, _ := json.Marshal(o)
	os.Stdout.Write(append(line, '\n'))
}

// receive returns the next message; without one the agent ends.
func (a *actor) receive() message {
	if !a.in.Scan() {
		os.Exit(0)
	}
	var m message
	if err := json.Unmarshal(a.in.Bytes(), &m); err != nil {
		panic(err)
	}
	return m
}

// answer waits for a request of the method and answers it.
func (a *actor) answer(method string, result object) message {
	for {
		if m := a.receive(); m.Method == method {
			a.send(object{"id": m.ID, "result": result})
			return m
		}
	}
}

func (a *actor) update(kind string, fields object) {
	fields["sessionUpdate"] = kind
	a.send(object{"method": "session/update", "params": object{"sessionId": a.session, "update": fields}})
}

func (a *actor) say(text string) {
	a.update("agent_message_chunk", object{"content": object{"type": "text", "text": text}})
}

// ask asks the client for something and returns what it answers, or its error.
func (a *actor) ask(method string, params object) (result object, err string) {
	a.last++
	id := fmt.Sprintf("ask-%d", a.last)
	params["sessionId"] = a.session
	a.send(object{"id": id, "method": method, "params": params})
	for {
		m := a.receive()
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			return nil, m.Error.Message
		}
		if e := json.Unmarshal(m.Result, &result); e != nil {
			panic(e)
		}
		return result, ""
	}
}

// actACP plays one behaviour. It returns the exit status.
func actACP(args []string) int {
	a := &actor{in: bufio.NewScanner(os.Stdin), session: "the-session"}
	a.in.Buffer(nil, 16<<20)
	behaviour := args[0]

	initialized := object{"protocolVersion": 1, "agentCapabilities": object{"loadSession": behaviour == "resumable" || behaviour == "careful"}, "authMethods": []any{}}
	switch behaviour {
	case "hang-at-start":
		time.Sleep(time.Hour)
	case "old":
		initialized["protocolVersion"] = 7
	case "key":
		initialized["authMethods"] = []any{
			object{"id": "web", "name": "Log in on the web"}, object{"id": "other", "name": "Something else"},
			object{"id": "key", "name": "An API key", "type": "env_var", "vars": []any{object{"name": "ACTOR_KEY"}}},
		}
	}
	var capabilities struct{ ClientCapabilities json.RawMessage }
	json.Unmarshal(a.answer("initialize", initialized).Params, &capabilities)
	if behaviour == "key" {
		a.demand()
	}
	if behaviour == "resumable" {
		return a.resumable(args[1])
	}
	if behaviour == "careful" {
		return a.careful(args[1:])
	}
	a.answer("session/new", object{"sessionId": a.session})
	prompt := a.receive()
	end := func(reason string) { a.send(object{"id": prompt.ID, "result": object{"stopReason": reason}}) }

	switch behaviour {
	case "echo": // what it is told and what the client can
		a.say(string(prompt.Params) + string(capabilities.ClientCapabilities))
		end("end_turn")
	case "work":
		a.update("agent_thought_chunk", object{"content": object{"type": "text", "text": "Let me "}})
		a.update("agent_thought_chunk", object{"content": object{"type": "text", "text": "see."}})
		a.say("I will ")
		a.say("read it.")
		a.update("plan", object{"entries": []any{
			object{"content": "read", "priority": "high", "status": "completed"},
			object{"content": "write", "priority": "low", "status": "in_progress"}}})
		a.update("tool_call", object{"toolCallId": "1", "title": "Read a file", "kind": "read", "rawInput": object{"path": "a.go"}, "locations": []any{object{"path": "/w/a.go"}}})
		a.update("tool_call_update", object{"toolCallId": "1", "status": "in_progress"})
		a.update("tool_call_update", object{"toolCallId": "1", "status": "in_progress", "content": []any{}})
		a.update("tool_call_update", object{"toolCallId": "1", "status": "completed", "rawOutput": object{"lines": 3}})
		a.update("brand_new_kind", object{"x": 1})
		a.update("usage_update", object{"used": 1200, "size": 200000, "cost": object{"amount": 0.25, "currency": "USD"}})
		a.send(object{"method": "session/update", "params": object{"sessionId": "another", "update": object{
			"sessionUpdate": "agent_message_chunk", "content": object{"type": "text", "text": "not mine"}}}})
		a.say(" Done.")
		a.send(object{"id": prompt.ID, "result": object{"stopReason": "end_turn", "usage": object{"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}}})
	case "key":
		a.say("in")
		end("end_turn")
	case "stop":
		a.say("so far")
		end(args[1])
	case "last-words": // and it is gone
		for i := range 2000 {
			a.say(fmt.Sprint(i, ","))
		}
		end("end_turn")
		return 0
	case "error":
		a.send(object{"id": prompt.ID, "error": object{"code": -32603, "message": "Internal error", "data": object{"details": "no such model"}}})
		time.Sleep(time.Hour)
	case "ask": // for leave, with the options that it is told
		options := []any{}
		for _, kind := range args[1:] {
			options = append(options, object{"optionId": "id-" + kind, "name": "Name of " + kind, "kind": kind})
		}
		result, failed := a.ask("session/request_permission", object{"options": options, "toolCall": object{
			"toolCallId": "1", "title": "Remove everything", "kind": "execute", "rawInput": object{"command": "rm -rf ."},
			"content": []any{object{"type": "diff", "path": "/w/x", "oldText": "a", "newText": "b"}}}})
		answer, _ := json.Marshal(result["outcome"])
		a.say(string(answer) + failed)
		if strings.Contains(string(answer), "cancelled") && len(args) > 1 && args[1] == "allow_once" {
			end("cancelled")
			break
		}
		end("end_turn")
	case "files":
		a.files(args[1], args[2])
		end("end_turn")
	case "terminals":
		a.terminals()
		end("end_turn")
	case "terminal-at-end", "terminal-and-hang":
		result, failed := a.ask("terminal/create", object{"command": os.Args[0], "args": []string{"agent", "family", "stubborn"}})
		for !strings.Contains(failed, "waiting") { // for both of the family
			out, e := a.ask("terminal/output", object{"terminalId": result["terminalId"]})
			if failed = e; strings.Count(fmt.Sprint(out["output"]), "waiting") == 2 {
				for line := range strings.Lines(out["output"].(string)) {
					a.say(strings.TrimSpace(line))
				}
				break
			}
		}
		if behaviour == "terminal-at-end" {
			end("end_turn")
		}
		time.Sleep(time.Hour)
	case "flood":
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		for i := 0; ; i++ {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":%q,"update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%d %s"}}}}`+"\n", a.session, i, strings.Repeat("x", 500))
		}
	case "flood-of-requests":
		for i := range 10_000 {
			a.send(object{"id": i, "method": "session/request_permission", "params": object{"sessionId": a.session,
				"toolCall": object{"toolCallId": "1"}, "options": []any{object{"optionId": "y", "name": "y", "kind": "allow_once"}}}})
		}
		time.Sleep(time.Hour)
	case "endless-line":
		fmt.Print(`{"jsonrpc":"2.0","method":"`)
		for {
			fmt.Print(strings.Repeat("x", 1<<16))
		}
	case "prose":
		a.say("fine so far")
		fmt.Println("Segmentation fault, I think")
		time.Sleep(time.Hour)
	case "hang":
		signal.Ignore(syscall.SIGTERM)
		a.say(fmt.Sprint("waiting ", os.Getpid()))
		time.Sleep(time.Hour)
	case "hang-in-peace": // until it is cancelled
		a.say(fmt.Sprint("waiting ", os.Getpid()))
		for a.receive().Method != "session/cancel" {
		}
		a.say("stopping")
		end("cancelled")
		time.Sleep(time.Hour)
	case "deaf": // it asks and never reads what it is told
		for i := range 30 {
			a.send(object{"id": i, "method": "fs/read_text_file", "params": object{"sessionId": a.session, "path": args[1]}})
		}
		a.say(fmt.Sprint("waiting ", os.Getpid()))
		time.Sleep(time.Hour)
	case "exit":
		a.say("half of it")
		fmt.Fprintln(os.Stderr, "out of memory")
		return 3
	default:
		panic(behaviour)
	}
	if behaviour != "work" { // some agents wait to be told to end
		a.receive()
	}
	return 0
}

// demand wants a login before there can be a session, by the key only.
func (a *actor) demand() {
	for {
		m := a.receive()
		switch {
		case m.Method == "authenticate" && strings.Contains(string(m.Params), `"key"`) && os.Getenv("ACTOR_KEY") == "right":
			a.send(object{"id": m.ID, "result": object{}})
			return
		case m.Method == "authenticate":
			a.send(object{"id": m.ID, "error": object{"code": -32603, "message": "wrong key"}})
		default:
			a.send(object{"id": m.ID, "error": object{"code": -32000, "message": "Authentication required"}})
		}
	}
}

// resumable breaks off the first time and goes on with its session the second.
func (a *actor) resumable(how string) int {
	m := a.receive()
	switch m.Method {
	case "session/new":
		a.send(object{"id": m.ID, "result": object{"sessionId": a.session}})
		a.receive()
		a.say("first half ")
		return 1
	case "session/load":
		if how == "forgetful" {
			a.send(object{"id": m.ID, "error": object{"code": -32002, "message": "no such session"}})
			return a.resumable(how)
		}
		a.say("first half ") // as a part of the history
		a.send(object{"id": m.ID, "result": object{}})
		prompt := a.receive()
		a.say("second half of " + string(m.Params) + string(prompt.Params))
		a.send(object{"id": prompt.ID, "result": object{"stopReason": "end_turn"}})
	}
	a.receive()
	return 0
}

// careful asks for leave to do each of the things that it is told, over and over
// until it is not interrupted, and says what it hears.
func (a *actor) careful(things []string) int {
	m := a.receive()
	if m.Method == "session/new" || m.Method == "session/load" {
		a.send(object{"id": m.ID, "result": object{"sessionId": a.session}})
	}
	prompt := a.receive()
	if strings.Contains(string(prompt.Params), "people, who have decided") {
		a.say(m.Method + " ")
	}
	for _, thing := range things {
		result, failed := a.ask("session/request_permission", object{
			"options":  []any{object{"optionId": "yes", "name": "Yes", "kind": "allow_once"}, object{"optionId": "no", "name": "No", "kind": "reject_once"}},
			"toolCall": object{"toolCallId": fmt.Sprint(time.Now().UnixNano()), "title": "Run it", "kind": "execute", "rawInput": object{"n": 12345678901234567, "command": thing}}})
		outcome, _ := result["outcome"].(object)
		if outcome["outcome"] == "cancelled" {
			a.send(object{"id": prompt.ID, "result": object{"stopReason": "end_turn"}}) // rudely
			a.receive()
			return 0
		}
		a.say(fmt.Sprint(thing, "=", outcome["optionId"], failed, " "))
	}
	a.send(object{"id": prompt.ID, "result": object{"stopReason": "end_turn"}})
	a.receive()
	return 0
}

// files tries what may be done with files in and out of the workspace.
func (a *actor) files(root, outside string) {
	tell := func(what string, result object, failed string) {
		if failed != "" {
			a.say(what + ": refused: " + failed + "\n")
			return
		}
		answer, _ := json.Marshal(result)
		a.say(what + ": " + string(answer) + "\n")
	}
	in := func(name string) string { return filepath.Join(root, name) }
	for what, path := range map[string]string{
		"read": in("a.txt"), "read ..": in("../secret"), "read elsewhere": "/etc/passwd", "read by link": in("link/secret"),
		"read link": in("secret-link"), "read pipe": in("pipe"), "read device": "/dev/zero", "read directory": root,
		"read huge": in("huge"), "read binary": in("binary"), "read nothing": in("nothing"), "read sibling": outside,
	} {
		result, failed := a.ask("fs/read_text_file", object{"path": path})
		tell(what, result, failed)
	}
	result, failed := a.ask("fs/read_text_file", object{"path": in("a.txt"), "line": 2, "limit": 2})
	tell("read two lines", result, failed)
	result, failed = a.ask("fs/read_text_file", object{"path": in("a.txt"), "line": 4, "limit": 9})
	tell("read the end", result, failed)
	for what, path := range map[string]string{
		"write": in("a.txt"), "write new": in("new/deep/file"), "write ..": in("../made"), "write elsewhere": outside + "/made",
		"write by link": in("link/made"), "write link": in("secret-link"), "write dangling link": in("dangling"), "write pipe": in("pipe"),
	} {
		result, failed := a.ask("fs/write_text_file", object{"path": path, "content": "written"})
		tell(what, result, failed)
	}
	a.session = "another"
	result, failed = a.ask("fs/read_text_file", object{"path": in("a.txt")})
	a.session = "the-session"
	tell("another session", result, failed)
	result, failed = a.ask("fs/teleport", object{})
	tell("unknown", result, failed)
}

// terminals runs commands.
func (a *actor) terminals() {
	run := func(what string, params object) {
		result, failed := a.ask("terminal/create", params)
		if failed != "" {
			a.say(what + ": refused: " + failed + "\n")
			return
		}
		id := result["terminalId"]
		exit, _ := a.ask("terminal/wait_for_exit", object{"terminalId": id})
		out, _ := a.ask("terminal/output", object{"terminalId": id})
		_, failed = a.ask("terminal/release", object{"terminalId": id})
		_, again := a.ask("terminal/release", object{"terminalId": id})
		said, _ := json.Marshal([]any{exit, out, failed, again})
		a.say(what + ": " + string(said) + "\n")
	}
	self := os.Args[0]
	run("run", object{"command": self, "args": []string{"agent", "say", "$HOME; ls", "two"}})
	run("fail", object{"command": self, "args": []string{"agent", "fail", "4", "oh"}})
	run("little", object{"command": self, "args": []string{"agent", "say", "語語語語"}, "outputByteLimit": 8})
	run("much", object{"command": self, "args": []string{"agent", "say", strings.Repeat("y", 100<<10)}, "outputByteLimit": 4})
	run("environment", object{"command": self, "args": []string{"agent", "environment"}, "env": []any{object{"name": "GIVEN", "value": "yes"}}})
	run("bad environment", object{"command": self, "env": []any{object{"name": "A=B", "value": "yes"}}})
	run("directory", object{"command": self, "args": []string{"agent", "directory"}, "cwd": "sub"})
	run("directory elsewhere", object{"command": self, "args": []string{"agent", "directory"}, "cwd": "/"})
	run("shell", object{"command": "echo hi | cat"})
	result, _ := a.ask("terminal/create", object{"command": self, "args": []string{"agent", "wait"}})
	a.ask("terminal/kill", object{"terminalId": result["terminalId"]})
	exit, _ := a.ask("terminal/wait_for_exit", object{"terminalId": result["terminalId"]})
	said, _ := json.Marshal(exit)
	a.say("killed: " + string(said) + "\n")
	a.ask("terminal/release", object{"terminalId": result["terminalId"]})
	for i := range 20 {
		if _, failed := a.ask("terminal/create", object{"command": self, "args": []string{"agent", "wait"}}); failed != "" {
			a.say(fmt.Sprintf("after %d: refused: %s\n", i, failed))
			break
		}
	}
}
