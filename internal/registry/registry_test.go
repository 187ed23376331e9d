package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
	"github.com/coderclaw/runtime/internal/registry"
	"github.com/coderclaw/runtime/internal/stream"
)

func put(t *testing.T, r *registry.Registry, a registry.Agent) (created bool) {
	t.Helper()
	_, created, err := r.PutAgent(t.Context(), admin, a)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func get(t *testing.T, r *registry.Registry, id string) registry.Agent {
	t.Helper()
	a, err := r.Agent(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// agent returns a valid definition that can be told by its description.
func agent(id, description string) registry.Agent {
	return registry.Agent{ID: id, Description: description, Executor: registry.ExecutorOpenAI}
}

func TestLaterSourcesHideEarlierOnesAndDeletingRevealsThem(t *testing.T) {
	t.Parallel()
	fromFile := agent("code-creator", "from the file")
	fromFile.Source = registry.SourceFile
	r := newRegistry(t, fromFile)

	for _, id := range []string{"code-creator", "code-reviewer"} {
		before := get(t, r, id)
		if put(t, r, agent(id, "from the API")) {
			t.Errorf("%s counts as created, and was there", id)
		}
		if a := get(t, r, id); a.Source != registry.SourceAPI || a.Description != "from the API" || a.SystemPrompt != "" {
			t.Errorf("%s is not replaced: %+v", id, a)
		}
		if err := r.DeleteAgent(t.Context(), admin, id); err != nil {
			t.Fatal(err)
		}
		if a := get(t, r, id); a.Source != before.Source || a.Description != before.Description {
			t.Errorf("%s is %+v after the delete, was %+v", id, a, before)
		}
	}
	if get(t, r, "code-creator").Source != registry.SourceFile {
		t.Error("the file does not hide the built-in agent")
	}
}

func TestAgentsOfTheAPIComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	a := registry.Agent{
		ID: "aider", Description: "A command-line agent.", Capabilities: []string{"code"}, Skills: []string{"file-read"},
		SystemPrompt: "Be brief.", Model: "m", Thinking: registry.ThinkingHigh, Executor: registry.ExecutorProcess,
		Process: &registry.Process{Command: []string{"aider", "{{input}}"}, Directory: "sub", Environment: []string{"API_KEY"}},
	}
	if !put(t, r, a) {
		t.Error("a new agent does not count as created")
	}
	got := get(t, r, "aider")
	if got.Name != "aider" || got.Process.Input != registry.InputStdin || !got.Available || got.Source != registry.SourceAPI {
		t.Errorf("defaults are not filled in: %+v, %+v", got, got.Process)
	}
	if got.SystemPrompt != a.SystemPrompt || got.Model != "m" || got.Thinking != a.Thinking || got.Process.Directory != "sub" ||
		!slices.Equal(got.Skills, a.Skills) || !slices.Equal(got.Capabilities, a.Capabilities) ||
		!slices.Equal(got.Process.Command, a.Process.Command) || !slices.Equal(got.Process.Environment, a.Process.Environment) {
		t.Errorf("stored %+v, got %+v", a, got)
	}
	a.Description = "Another."
	if put(t, r, a) {
		t.Error("a replaced agent counts as created")
	}
	all, err := r.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(all, func(a, b registry.Agent) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("agents are not sorted by id")
	}
	if i := slices.IndexFunc(all, func(a registry.Agent) bool { return a.ID == "aider" }); i < 0 || all[i].Description != "Another." {
		t.Errorf("the list does not show what was put: %+v", all)
	}
	if err := r.DeleteAgent(t.Context(), admin, "aider"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Agent(t.Context(), "aider"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("after the delete: %v", err)
	}
}

func TestDeleteRefusesWhatTheAPIDidNotDefine(t *testing.T) {
	t.Parallel()
	fromFile := agent("house-agent", "from the file")
	fromFile.Source = registry.SourceFile
	r := newRegistry(t, fromFile)
	for _, c := range []struct {
		id   string
		code fault.Code
		says string
	}{
		{"code-creator", fault.Conflict, "built in"},
		{"house-agent", fault.Conflict, "agents.yaml"},
		{"nobody", fault.NotFound, `no agent "nobody"`},
		{"a\x00b", fault.NotFound, "no agent"},
		{"\xff", fault.NotFound, "no agent"},
	} {
		err := r.DeleteAgent(t.Context(), admin, c.id)
		if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("delete %q: %v", c.id, err)
		}
	}
}

func TestOnlyHoldersOfConfigWriteChangeAgents(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for _, caller := range []policy.Caller{{}, {UserID: "dev", Roles: []policy.Role{policy.Developer, policy.ReadOnly, policy.CI}}} {
		if _, _, err := r.PutAgent(t.Context(), caller, agent("a", "x")); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("put by %+v: %v", caller, err)
		}
		if err := r.DeleteAgent(t.Context(), caller, "a"); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("delete by %+v: %v", caller, err)
		}
	}
	if _, err := r.Agent(t.Context(), "a"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a refused agent is there: %v", err)
	}
}

func TestPutNamesEveryFaultyField(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	many := func(n int, s string) []string { return slices.Repeat([]string{s}, n) }
	for name, c := range map[string]struct {
		change func(*registry.Agent)
		want   []string
	}{
		"an id in another form": {func(a *registry.Agent) { a.ID = "-a" }, []string{"path.id"}},
		"an id too long":        {func(a *registry.Agent) { a.ID = strings.Repeat("a", 129) }, []string{"path.id"}},
		"an id of no ASCII":     {func(a *registry.Agent) { a.ID = "agënt" }, []string{"path.id"}},
		"a name too long":       {func(a *registry.Agent) { a.Name = strings.Repeat("é", 201) }, []string{"body.name"}},
		"a name of two lines":   {func(a *registry.Agent) { a.Name = "a\nb" }, []string{"body.name"}},
		"no description":        {func(a *registry.Agent) { a.Description = "" }, []string{"body.description"}},
		"a long description":    {func(a *registry.Agent) { a.Description = strings.Repeat("é", 2001) }, []string{"body.description"}},
		"U+0000":                {func(a *registry.Agent) { a.SystemPrompt = "a\x00b" }, []string{"body.systemPrompt"}},
		"broken UTF-8":          {func(a *registry.Agent) { a.SystemPrompt = "a\xffb" }, []string{"body.systemPrompt"}},
		"a long prompt":         {func(a *registry.Agent) { a.SystemPrompt = strings.Repeat("a", 65_537) }, []string{"body.systemPrompt"}},
		"many capabilities":     {func(a *registry.Agent) { a.Capabilities = many(65, "x") }, []string{"body.capabilities"}},
		"an empty capability":   {func(a *registry.Agent) { a.Capabilities = []string{"x", ""} }, []string{"body.capabilities[1]"}},
		"many skills":           {func(a *registry.Agent) { a.Skills = many(65, "file-read") }, []string{"body.skills"}},
		"an unknown skill":      {func(a *registry.Agent) { a.Skills = []string{"file-read", "teleport"} }, []string{"body.skills[1]"}},
		"an unknown thinking":   {func(a *registry.Agent) { a.Thinking = "maximal" }, []string{"body.thinking"}},
		"an unknown executor":   {func(a *registry.Agent) { a.Executor = "magic" }, []string{"body.executor"}},
		"no process":            {func(a *registry.Agent) { a.Executor = registry.ExecutorProcess }, []string{"body.process"}},
		"a process too many":    {func(a *registry.Agent) { a.Process = &registry.Process{Command: []string{"cat"}} }, []string{"body.process"}},
		"no service":            {func(a *registry.Agent) { a.Executor = registry.ExecutorHTTP }, []string{"body.http"}},
		"a service too many":    {func(a *registry.Agent) { a.HTTP = &registry.HTTP{URL: "https://a"} }, []string{"body.http"}},
		"a service's password": {func(a *registry.Agent) {
			a.Executor, a.HTTP = registry.ExecutorHTTP, &registry.HTTP{URL: "https://me:x@a"}
		}, []string{"body.http.url"}},
		"a service elsewhere": {func(a *registry.Agent) {
			a.Executor, a.HTTP = registry.ExecutorHTTP, &registry.HTTP{URL: "file:///etc"}
		}, []string{"body.http.url"}},
		"a file of a worker's": {func(a *registry.Agent) {
			a.Executor, a.HTTP = registry.ExecutorHTTP, &registry.HTTP{URL: "https://a", SecretFile: "/etc/passwd"}
		}, []string{"body.http.secretFile"}},
		"a faulty process": {func(a *registry.Agent) {
			a.Executor = registry.ExecutorProcess
			a.Process = &registry.Process{
				Command: []string{"", "a\x00"}, Input: "pipe", Directory: "/etc", Environment: []string{"PATH", "A B"},
			}
		}, []string{"body.process.command", "body.process.command[1]", "body.process.input", "body.process.directory", "body.process.environment[1]"}},
		"long lists of a process": {func(a *registry.Agent) {
			a.Executor = registry.ExecutorProcess
			a.Process = &registry.Process{Command: many(257, "x"), Environment: many(257, "X")}
		}, []string{"body.process.command", "body.process.environment"}},
	} {
		a := agent("a", "x")
		c.change(&a)
		_, _, err := r.PutAgent(t.Context(), admin, a)
		var paths []string
		var f *fault.Error
		if errors.As(err, &f) && f.Code == fault.Invalid {
			for _, field := range f.Fields {
				paths = append(paths, field.Path)
			}
		}
		if !slices.Equal(paths, c.want) {
			t.Errorf("%s: refused %v, want %v (%v)", name, paths, c.want, err)
		}
	}
	full := agent(strings.Repeat("a", 128), strings.Repeat("é", 2000))
	full.Name, full.SystemPrompt = strings.Repeat("é", 200), strings.Repeat("é", 65_536)
	full.Capabilities, full.Skills = many(64, "x"), many(64, "file-read")
	put(t, r, full)
}

func TestTheAPICannotDefineAgentsWithoutEnd(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	if _, err := pool.Exec(t.Context(), `INSERT INTO agents (id, definition)
		SELECT 'a' || n, '{"name":"n","description":"d","executor":"openai"}' FROM generate_series(1, $1) n`, registry.MaxStored); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.PutAgent(t.Context(), admin, agent("one-more", "x")); fault.CodeOf(err) != fault.TooMany {
		t.Errorf("one more: %v", err)
	}
	if _, err := r.Agent(t.Context(), "one-more"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("one more is there: %v", err)
	}
	put(t, r, agent("a1", "replaced"))
}

func TestAvailabilityIsWhatRunnableSays(t *testing.T) {
	t.Parallel()
	r := registry.New(pgtest.DB(t), registry.Options{Runnable: func(a registry.Agent) error {
		if a.Executor == registry.ExecutorOpenAI {
			return errors.New("set CODERCLAW_LLM_BASE_URL")
		}
		return nil
	}})
	if a := get(t, r, "code-creator"); a.Available || a.Unavailable != "set CODERCLAW_LLM_BASE_URL" {
		t.Errorf("without a model: %+v", a)
	}
	if a := get(t, r, "codebase-survey"); !a.Available || a.Unavailable != "" {
		t.Errorf("needs no model: %+v", a)
	}
	if a, _, err := r.PutAgent(t.Context(), admin, agent("mine", "x")); err != nil || a.Available || a.Unavailable == "" {
		t.Errorf("put: %+v, %v", a, err)
	}
}

func TestAStoredDefinitionThatCannotBeReadHarmsNoOther(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	if _, err := pool.Exec(t.Context(), `INSERT INTO agents (id, definition) VALUES ('odd', '{"name": 3}')`); err != nil {
		t.Fatal(err)
	}
	if a := get(t, r, "odd"); a.Available || !strings.Contains(a.Unavailable, "cannot be read") || a.Source != registry.SourceAPI {
		t.Errorf("got %+v", a)
	}
	if a := get(t, r, "code-creator"); !a.Available {
		t.Errorf("another suffers: %+v", a)
	}
}

func TestReadersShareOneQueryUntilItIsOld(t *testing.T) {
	t.Parallel()
	pool, asked := counted(t)
	r := over(pool, registry.Options{})
	var clock atomic.Int64
	r.SetNow(func() time.Time { return time.Unix(0, clock.Load()) })

	before := asked.Load()
	for _, c := range []struct {
		at   time.Duration
		want int64
	}{
		{0, 1},
		{2*time.Second - 1, 1},
		{2 * time.Second, 2},
	} {
		clock.Store(int64(c.at))
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() {
				if _, err := r.Agent(t.Context(), "code-creator"); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
		if got := asked.Load() - before; got != c.want {
			t.Errorf("%s after the first read: %d queries, want %d", c.at, got, c.want)
		}
	}
}

func TestAnotherReplicasWriteIsSeenWhenTheSnapshotIsOld(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	here := over(pool, registry.Options{})
	there := over(pool, registry.Options{})
	now := time.Unix(0, 0)
	here.SetNow(func() time.Time { return now })

	get(t, here, "code-creator")
	put(t, there, agent("new", "x"))
	now = now.Add(2 * time.Second)
	get(t, here, "new")
}

// A reader that comes after a write, of this server or of one that was heard,
// must not be served by a query from before it.
func TestAWriteIsSeenByWhoeverReadsAfterIt(t *testing.T) {
	t.Parallel()
	pool, bus := pgtest.DB(t), &stream.Memory{}
	loading, release := make(chan struct{}), make(chan struct{})
	var begun atomic.Bool
	// Its first query, once the tables have been read, waits.
	r := registry.New(pool, registry.Options{Bus: bus, Runnable: func(registry.Agent) error {
		if begun.CompareAndSwap(false, true) {
			close(loading)
			<-release
		}
		return nil
	}})
	var early sync.WaitGroup
	early.Go(func() {
		if _, err := r.Agent(t.Context(), "mine"); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("a reader from before the write: %v", err)
		}
	})
	<-loading
	put(t, over(pool, registry.Options{Bus: bus}), agent("mine", "x"))
	impatient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := r.Agent(impatient, "mine"); err != nil {
		t.Errorf("a reader from after the write: %v", err)
	}
	close(release)
	early.Wait()
	get(t, r, "mine") // the late snapshot was not kept
}

func TestAReaderThatLeavesDoesNotTakeTheOthersAlong(t *testing.T) {
	t.Parallel()
	pool, asked := counted(t)
	r := over(pool, registry.Options{})

	lock := lockAgents(t, pool)
	before := asked.Load()
	leaving, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	if _, err := r.Agent(leaving, "code-creator"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("while the table is locked: %v", err)
	}
	var staying sync.WaitGroup
	staying.Go(func() {
		if _, err := r.Agent(t.Context(), "code-creator"); err != nil {
			t.Errorf("the one that stayed: %v", err)
		}
	})
	// One query is the lock's rollback.
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	staying.Wait()
	if got := asked.Load() - before; got != 2 {
		t.Errorf("%d queries: the first reader's was given up with it", got)
	}
}

func TestADatabaseThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	r := over(pool, registry.Options{})
	r.SetPatience(50 * time.Millisecond)
	lockAgents(t, pool)
	if _, err := r.Agent(t.Context(), "code-creator"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("while the table is locked: %v", err)
	}
}

// lockAgents makes queries wait until the returned transaction or the test
// ends.
func lockAgents(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tx.Rollback(context.Background()); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
			t.Error(err)
		}
	})
	if _, err := tx.Exec(t.Context(), `LOCK TABLE agents IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestConcurrentWritersAndReadersAgree(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	var writers sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "d"} {
		writers.Go(func() {
			for range 10 {
				if _, _, err := r.PutAgent(t.Context(), admin, agent(id, "x")); err != nil {
					t.Error(err)
				}
				if _, err := r.Agent(t.Context(), id); err != nil {
					t.Errorf("%s after its put: %v", id, err)
				}
				if err := r.DeleteAgent(t.Context(), admin, id); err != nil {
					t.Errorf("delete %s: %v", id, err)
				}
				if _, err := r.Agent(t.Context(), id); fault.CodeOf(err) != fault.NotFound {
					t.Errorf("%s after its delete: %v", id, err)
				}
			}
		})
	}
	writers.Wait()
}
