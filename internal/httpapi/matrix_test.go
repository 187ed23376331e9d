package httpapi_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/identity/dpop"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// public are the operations that need no credential: to log in, to see whether
// the server is there, and to check what it signs.
var public = []string{
	"beginLogin", "finishLogin", "getKeySet", "getStatus", "listLoginProviders", "openSession", "refreshSession", "returnFromLogin",
}

// whateverDevice are those for every principal from any device: to see where one
// stands, to have the device trusted, and to give up what one has.
var whateverDevice = []string{
	"checkPermission", "createDeviceChallenge", "enrollDevice", "getDevice", "getMe", "getSession", "listAPIKeys", "listDevices", "listSessions",
	"revokeAPIKey", "revokeDevice", "revokeSession", "updateDevice", "verifyDevice",
}

// alsoForWorkers are those that a worker's key opens besides work itself.
var alsoForWorkers = []string{"getAgent", "listAgents", "putArtifact", "updateTask"}

// forAgents are those that the token of a leased task's agent opens, of that
// task.
var forAgents = []string{"askQuestion", "getQuestion", "getTask", "reportTask", "reportUsage"}

// sample is how the matrix calls an operation, and what comes of it for those
// who hold its permission.
type sample struct {
	of    string // what {id} is the id of; "": it is not of a project or a user
	query string
	body  string                                        // may hold {project}
	write func(w *world, who *person, id string) string // makes the body
	needs func(p *person) bool                          // what it takes besides the permission
	other int                                           // for what is another project's; default 404
	want  int                                           // default 200
}

var samples = map[string]sample{
	"submitTask":       {body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"submitTasks":      {body: `{"tasks":[{"description":"d","input":"i","dispatch":"manual"}]}`, want: 201},
	"listTasks":        {},
	"getTask":          {of: "task"},
	"updateTask":       {of: "own task", body: `{"message":"m"}`},
	"cancelTask":       {of: "task"},
	"listTaskEvents":   {of: "task"},
	"streamTask":       {of: "task"},
	"streamTasks":      {},
	"answerTask":       {of: "waiting task", body: `{"input":"x"}`},
	"listApprovals":    {},
	"retryTask":        {of: "cancelled task", want: 201},
	"getTaskTree":      {of: "task"},
	"cancelTasks":      {query: "?q=no-such-task"},
	"askQuestion":      {of: "task", body: `{"id":"0190b8a1-0000-4000-8000-000000000001","kind":"input","text":"t"}`, want: 422}, // without a lease
	"getQuestion":      {of: "task", want: 422},
	"authorizeSkill":   {of: "task", body: `{"questionId":"0190b8a1-0000-4000-8000-000000000001"}`, want: 422},
	"answerQuestion":   {of: "question", body: `{"approve":true}`},
	"listGrants":       {},
	"revokeGrant":      {of: "grant", want: 204},
	"listTaskAttempts": {of: "task"},

	"createSchedule":  {body: `{"name":"n","intervalSeconds":3600,"task":{"description":"d","input":"i","dispatch":"manual"}}`, want: 201},
	"listSchedules":   {},
	"getSchedule":     {of: "schedule"},
	"updateSchedule":  {of: "schedule", body: `{"paused":true}`},
	"deleteSchedule":  {of: "schedule", want: 204},
	"triggerSchedule": {of: "schedule", want: 201},

	"listArtifacts":  {of: "task"},
	"getArtifact":    {of: "artifact"},
	"headArtifact":   {of: "artifact"},
	"putArtifact":    {of: "own task", body: `"content"`, want: 201},
	"deleteArtifact": {of: "artifact", want: 204},

	"registerWorker": {write: newWorkerBody, want: 204},
	"listWorkers":    {},
	"claimTasks":     {of: "worker", body: `{"max":1}`},
	"heartbeat":      {of: "worker", body: `{}`},
	"drainWorker":    {of: "worker", want: 204},
	"getLease":       {of: "task", want: 422},                          // likewise
	"reportTask":     {of: "task", body: `{"message":"m"}`, want: 422}, // without a lease
	"reportTasks":    {body: `{"reports":[{"taskId":"00000000-0000-7000-8000-000000000000","leaseToken":"00000000-0000-4000-8000-000000000000","report":{"message":"m"}}]}`},

	"listBudgets":  {},
	"getBudget":    {of: "budget", query: "?name={id}"},
	"putBudget":    {of: "budget", query: "?name={id}", body: `{"maxTokens":5}`},
	"deleteBudget": {of: "budget", query: "?name={id}", want: 204},
	"reportUsage":  {of: "task", body: `{}`, want: 422}, // without a lease

	"listLimits":  {},
	"putLimit":    {body: `{"maxConcurrentTasks":5000}`, needs: unconfined},
	"deleteLimit": {of: "limit", needs: unconfined, other: 403, want: 204},

	"pauseAgent":    {of: "agent", body: `{"reason":"r"}`, needs: unconfined},
	"resumeAgent":   {of: "agent", needs: unconfined, want: 204},
	"pauseSession":  {of: "session", body: `{}`},
	"resumeSession": {of: "session", want: 204},

	"createWebhook":         {body: `{"url":"http://127.0.0.1:1/"}`, want: 201},
	"listWebhooks":          {},
	"getWebhook":            {of: "webhook"},
	"updateWebhook":         {of: "webhook", body: `{"description":"d"}`},
	"deleteWebhook":         {of: "webhook", want: 204},
	"rotateWebhookSecret":   {of: "webhook", body: `{}`},
	"testWebhook":           {of: "webhook"},
	"listWebhookDeliveries": {of: "webhook"},
	"retryWebhookDelivery":  {of: "webhook"},
	"replayWebhook":         {of: "webhook", write: replayBody},

	"listAgents":   {},
	"getAgent":     {of: "agent"},
	"putAgent":     {of: "agent", body: `{"name":"n","description":"d","executor":"process","process":{"command":["true"]}}`, needs: unconfined},
	"deleteAgent":  {of: "agent", needs: unconfined, want: 204},
	"invokeAgent":  {of: "agent", body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"listSkills":   {},
	"executeSkill": {of: "skill", body: `{"description":"d","input":"i","dispatch":"manual"}`, want: 201},
	"getSkill":     {of: "skill"},
	"putSkill":     {of: "skill", body: `{"description":"d"}`, needs: unconfined},
	"deleteSkill":  {of: "skill", needs: unconfined, want: 204},

	"getMe":              {},
	"listSessions":       {},
	"getSession":         {of: "session"},
	"revokeSession":      {of: "session", want: 204},
	"createStreamTicket": {want: 201},
	"listMemory":         {of: "memory"},
	"getMemory":          {of: "memory"},
	"putMemory":          {of: "memory", body: `{"value":1}`},
	"deleteMemory":       {of: "memory", want: 204},

	"listUsers":         {needs: unconfined},
	"createUser":        {write: newUserBody, needs: unconfined, want: 201},
	"getUser":           {of: "self"},
	"updateUser":        {of: "user", body: `{"name":"n"}`, needs: unconfined, other: 403},
	"deleteUser":        {of: "user", needs: unconfined, other: 403, want: 204},
	"changePassword":    {body: fmt.Sprintf(`{"old":%q,"new":%q}`, password, password), want: 204},
	"listRoleBindings":  {},
	"createRoleBinding": {of: "project", write: newBindingBody, other: 403, want: 201},
	"deleteRoleBinding": {of: "binding", want: 204},
	"listAPIKeys":       {},
	"createAPIKey":      {body: `{"name":"k","personal":true,"expiresSeconds":3600}`, want: 201},
	"revokeAPIKey":      {of: "key", want: 204},

	"createDeviceChallenge": {want: 201},
	"enrollDevice":          {write: newDeviceBody, want: 201},
	"listDevices":           {},
	"getDevice":             {of: "device"},
	"updateDevice":          {of: "device", body: `{"name":"n"}`},
	"verifyDevice":          {of: "device", write: verifyDeviceBody},
	"revokeDevice":          {of: "device", want: 204},
	"createEnrolmentCode":   {body: `{}`, needs: unconfined, want: 201},

	"getRuntimeConfig":               {},
	"getOrganizationPolicy":          {needs: unconfined},
	"putOrganizationPolicy":          {body: `{"document":"enforceTrust: false\n"}`, needs: unconfined},
	"listOrganizationPolicyVersions": {needs: unconfined},
	"getOrganizationPolicyVersion":   {needs: unconfined},
	"diffOrganizationPolicy":         {needs: unconfined},
	"rollBackOrganizationPolicy":     {body: `{"version":1}`, needs: unconfined},
	"getProjectPolicy":               {of: "project"},
	"putProjectPolicy":               {of: "project", body: `{"document":"enforceTrust: false\n"}`},
	"listProjectPolicyVersions":      {of: "project"},
	"getProjectPolicyVersion":        {of: "project"},
	"diffProjectPolicy":              {of: "project"},
	"rollBackProjectPolicy":          {of: "project", body: `{"version":1}`},
	"checkPermission":                {body: `{"permission":"task:submit"}`},
	"simulatePolicy":                 {of: "project", body: `{"projectId":"{project}","document":"enforceTrust: false\n","since":"2026-01-01T00:00:00Z"}`},

	"listAudit":           {},
	"exportAudit":         {},
	"getAuditCheckpoint":  {},
	"getAuditConsistency": {query: "?from=1"},
	"getAuditProof":       {of: "entry"},
}

// operation is one as openapi.yaml has it.
type operation struct{ id, method, path, permission string }

func operations(t *testing.T) (all []operation) {
	t.Helper()
	data, err := os.ReadFile("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `yaml:"operationId"`
			Permission string `yaml:"x-permission"`
		} `yaml:"paths"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var open, entry []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Permission == "public" {
				open = append(open, op.ID)
				continue
			}
			if _, ok := samples[op.ID]; !ok {
				t.Errorf("the matrix has no sample of %s", op.ID)
			}
			if op.Permission == "authenticated" {
				entry = append(entry, op.ID)
			}
			all = append(all, operation{op.ID, strings.ToUpper(method), path, op.Permission})
		}
	}
	slices.Sort(open)
	if !slices.Equal(open, public) {
		t.Errorf("operations that need no credential: %v, want %v", open, public)
	}
	slices.Sort(entry)
	if !slices.Equal(entry, whateverDevice) {
		t.Errorf("operations from any device: %v, want %v", entry, whateverDevice)
	}
	if len(all) != len(samples) {
		t.Errorf("%d operations, %d samples", len(all), len(samples))
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// request is the path and the body with which who asks for something of
// whose's.
func (w *world) request(op operation, who, whose *person) (path, body string) {
	w.t.Helper()
	s, id := samples[op.id], ""
	if s.of != "" {
		id = w.make(s.of, whose)
	}
	kind := "agent"
	if s.of == "budget" {
		kind = "project"
	}
	path = strings.NewReplacer("{kind}", kind, "{name}", "n", "{id}", id, "{key}", "k", "{version}", "1", "{questionId}", "0190b8a1-0000-4000-8000-000000000001", "{skillId}", "s", "{deliveryId}", "evt_0190b8a1000070008000000000000000_1").Replace(op.path + s.query)
	body = strings.ReplaceAll(s.body, "{project}", whose.project)
	if s.write != nil {
		body = s.write(w, who, id)
	}
	return path, body
}

func TestEveryOperationIsForThoseWithItsPermissionInTheirOwnProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check := func(op operation, who, whose *person, want int) {
		t.Helper()
		path, body := w.request(op, who, whose)
		got, text := w.call(who, op.method, path, body)
		by := "nobody"
		if who != nil {
			by = who.name + " of project " + who.project
		}
		if got != want {
			t.Errorf("%s by %s, of %s: %d %s, want %d", op.id, by, whose.name, got, text, want)
		}
		if who != w.root && strings.Contains(text, mark) && !strings.Contains(path, mark) {
			t.Errorf("%s shows %s what is the bank's: %s", op.id, by, text)
		}
	}
	for _, op := range operations(t) {
		s := samples[op.id]
		success, other := s.want, s.other
		if success == 0 {
			success = 200
		}
		if other == 0 {
			other = 404
		}
		for _, p := range w.members {
			want := success
			if !p.holds(op.permission) || s.needs != nil && !s.needs(p) {
				want = 403
			}
			check(op, p, p, want)
			if s.of != "" && s.of != "agent" && s.of != "skill" {
				if want == success {
					want = other
				}
				check(op, p, w.bank, want)
			}
		}
		check(op, w.root, w.root, success)
		// Administrators see everything but what sessions remember, and speak
		// for nobody else.
		if s.of != "memory" && op.id != "updateTask" && op.id != "putArtifact" && op.id != "verifyDevice" {
			check(op, w.root, w.bank, success)
		}
	}
}

func TestAWorkersKeyIsGoodForWorkAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made api.CreatedAPIKey
	w.decode(&made, w.must(w.root, 201, "POST", "/v1/api-keys", `{"name":"w","worker":{"projects":["shop"]},"expiresSeconds":3600}`))
	if made.UserID != "" || len(made.Roles) > 0 || made.Worker == nil || !slices.Equal(made.Worker.Projects, []string{"shop"}) {
		t.Errorf("made %+v", made)
	}
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		got, text := w.call(nil, op.method, path, body, "Authorization", "Bearer "+made.Key)
		switch {
		case op.permission == "work", slices.Contains(alsoForWorkers, op.id):
			if got == 401 || got == 403 {
				t.Errorf("%s by a worker: %d %s", op.id, got, text)
			}
		case op.permission != "authenticated" && op.permission != "admitted" && got != 403:
			t.Errorf("%s by a worker: %d %s, want 403", op.id, got, text)
		}
		if strings.Contains(text, "local:"+w.root.name) && got < 300 {
			t.Errorf("%s shows a worker what is a person's: %s", op.id, text)
		}
	}
	for body, want := range map[string]int{
		`{"name":"w","worker":{},"roles":["admin"],"expiresSeconds":3600}`:        422,
		`{"name":"w","worker":{"agents":["no such\nid"]},"expiresSeconds":3600}`:  422,
		`{"name":"w","worker":{"labels":{"":"x"}},"expiresSeconds":3600}`:         422,
		`{"name":"w","worker":{},"personal":true,"expiresSeconds":3600}`:          201,
		`{"name":"w","worker":{"projects":["bank"],"x":1},"expiresSeconds":3600}`: 422,
		`{"name":"w","worker":{},"projectId":"shop","expiresSeconds":3600}`:       422,
		`{"name":"w","worker":{},"scopes":["task:read"],"expiresSeconds":3600}`:   422,
		`{"name":"w","worker":{"labels":{"team":"a"}},"expiresSeconds":3600}`:     201,
	} {
		if got, text := w.call(w.root, "POST", "/v1/api-keys", body); got != want {
			t.Errorf("%s: %d %s, want %d", body, got, text, want)
		}
	}
	if got, text := w.call(w.members["admin"], "POST", "/v1/api-keys", `{"name":"w","worker":{},"expiresSeconds":3600}`); got != 403 {
		t.Errorf("the administrator of one project makes a worker of all: %d %s", got, text)
	}
}

func TestAnAgentsTokenIsGoodForItsTaskAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if runtime.GOOS != "linux" {
		t.Skip("who fails often must wait, unless from ever other addresses, which only Linux's loopback has")
	}
	by := w.caller(w.root)
	mine, ended := w.lease(by), w.lease(by)
	good, over := "Bearer "+api.AgentToken(mine.ID.String(), mine.LeaseToken.String()), "Bearer "+api.AgentToken(ended.ID.String(), ended.LeaseToken.String())
	if err := w.tasks.Report(t.Context(), task.InProcess, ended.ID, ended.LeaseToken, task.Report{Status: task.Failed}); err != nil {
		t.Fatal(err)
	}
	forged := "Bearer " + api.AgentToken(mine.ID.String(), ended.LeaseToken.String())
	n := 0
	call := func(op operation, path, body, token string) (int, string) {
		n++
		w.from = &net.TCPAddr{IP: net.IPv4(127, 2, byte(n>>8), byte(n))}
		defer func() { w.from = nil }()
		return w.call(nil, op.method, path, body, "Authorization", token)
	}
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		for what, c := range map[string]struct {
			token string
			want  int
		}{
			"a good token":                  {good, 403},
			"a token whose lease is over":   {over, 401},
			"a token of another's lease":    {forged, 401},
			"a token cut short":             {good[:len(good)-4], 401},
			"a token of nothing":            {"Bearer " + api.AgentTokenPrefix, 401},
			"the lease itself, as a bearer": {"Bearer " + mine.LeaseToken.String(), 401},
		} {
			if got, text := call(op, path, body, c.token); got != c.want {
				t.Errorf("%s with %s: %d %s, want %d", op.id, what, got, text, c.want)
			}
		}
		if !strings.Contains(op.path, "/tasks/{id}") {
			continue
		}
		own := strings.Replace(path, strings.Split(path, "/")[3], mine.ID.String(), 1)
		got, text := call(op, own, body, good)
		if slices.Contains(forAgents, op.id) == (got == 401 || got == 403) {
			t.Errorf("%s of its own task: %d %s", op.id, got, text)
		}
		want := 401
		if slices.Contains(forAgents, op.id) {
			want = 409 // it is told that its lease is lost
		}
		if got, text := call(op, own, body, forged); got != want {
			t.Errorf("%s of that task with another's token: %d %s, want %d", op.id, got, text, want)
		}
	}
	for what, c := range map[string]struct {
		method, path, body string
		want               int
	}{
		"release":             {"POST", "/reports", `{"release":true}`, 422},
		"completion":          {"POST", "/reports", `{"status":"completed","output":"o"}`, 409}, // it does not run yet
		"nothing but a lease": {"GET", "", "", 200},
	} {
		if got, text := call(operation{method: c.method}, "/v1/tasks/"+mine.ID.String()+c.path, c.body, good); got != c.want {
			t.Errorf("%s: %d %s, want %d", what, got, text, c.want)
		}
	}
}

func TestNoOperationIsForThoseWithoutAGoodCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if runtime.GOOS != "linux" {
		t.Skip("who fails often must wait, unless from ever other addresses, which only Linux's loopback has")
	}
	_, elsewhere := locked(t) // another server, with keys of its own
	n := 0
	for _, op := range operations(t) {
		path, body := w.request(op, w.root, w.root)
		for what, headers := range map[string][]string{
			"nothing":               nil,
			"another scheme":        {"Authorization", "Basic cm9vdDpyb290"},
			"a made-up token":       {"Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2NhbDpyb290In0."},
			"a made-up key":         {"Authorization", "Bearer ccl_0_0"},
			"a made-up agent":       {"Authorization", "Bearer " + api.AgentToken(uuid.NewString(), uuid.NewString())},
			"a made-up cookie":      {"Cookie", "__Host-coderclaw=ccs_0"},
			"another's token":       {"Authorization", "Bearer " + elsewhere.AccessToken},
			"a refresh token":       {"Authorization", "Bearer " + w.root.session.RefreshToken},
			"a token cut short":     {"Authorization", "Bearer " + w.root.session.AccessToken[:len(w.root.session.AccessToken)-4]},
			"a forwarded loopback":  {"X-Forwarded-For", "127.0.0.1"},
			"a user in a header":    {"X-Forwarded-User", "local:root"},
			"an access token below": {"Authorization", "Bearer " + strings.Replace(w.root.session.AccessToken, ".", ".x", 1)},
		} {
			n++
			w.from = &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
			if got, text := w.call(nil, op.method, path, body, headers...); got != 401 {
				t.Errorf("%s with %s: %d %s, want 401", op.id, what, got, text)
			}
			w.from = nil
		}
	}
}

func TestWhereTrustIsEnforcedNoOperationIsForDevicesOfLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	levels := map[policy.TrustLevel]*person{}
	var code api.EnrolmentCode
	for _, level := range []policy.TrustLevel{policy.Untrusted, policy.Verified, policy.Trusted} {
		p := &person{name: "with-" + level.String(), role: "admin"}
		w.login(w.root.session, p.name, "admin", "")
		signer, err := dpop.GenerateEd25519()
		if err != nil {
			t.Fatal(err)
		}
		opening := api.NewSession{Login: p.name, Password: password, DeviceName: p.name}
		if level > policy.Untrusted {
			w.decode(&code, w.must(w.root, 201, "POST", "/v1/devices/enrolment-codes", `{}`))
			opening.EnrolmentCode = code.Code
		}
		proof, err := signer.Proof("POST", w.url+"/v1/sessions", "", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		status, text := w.call(nil, "POST", "/v1/sessions", w.encode(opening), "DPoP", proof)
		if status != 201 {
			t.Fatal(status, text)
		}
		w.decode(&p.session, text)
		p.signer = signer
		if level == policy.Trusted {
			w.must(w.root, 200, "PATCH", "/v1/devices/"+p.session.Session.DeviceID, `{"trust":"trusted"}`)
		}
		levels[level] = p
	}
	none := w.root
	w.root = levels[policy.Trusted]
	w.must(w.root, 200, "PUT", "/v1/config/security", `{"document":"enforceTrust: true\nminimumTrustLevel: verified\ndeviceTrust: {autoTrustLocal: false}\n"}`)
	for _, op := range operations(t) {
		if op.id == "putOrganizationPolicy" || op.id == "rollBackOrganizationPolicy" {
			continue // they would end what is tried here; below
		}
		path, body := w.request(op, w.root, w.root)
		for who, p := range map[string]*person{"no device": none, "an untrusted device": levels[policy.Untrusted]} {
			if op.permission == "authenticated" {
				continue // they are named above
			}
			got, text := w.call(p, op.method, path, body)
			if got != 403 || !strings.Contains(text, "device") && op.method != "HEAD" {
				t.Errorf("%s from %s: %d %s, want 403 for the device", op.id, who, got, text)
			}
		}
		for _, level := range []policy.TrustLevel{policy.Verified, policy.Trusted} {
			path, body := w.request(op, levels[level], levels[level])
			if got, text := w.call(levels[level], op.method, path, body); got == 401 || got == 403 {
				t.Errorf("%s from a %s device: %d %s", op.id, level, got, text)
			}
		}
	}
	for _, p := range []*person{none, levels[policy.Untrusted]} {
		if got, text := w.call(p, "PUT", "/v1/config/security", `{"document":"enforceTrust: false\n"}`); got != 403 {
			t.Errorf("trust is switched off from a device without: %d %s", got, text)
		}
	}
}
