package app_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/internal/postgres/pgtest"
)

// chaosVariable says for how long processes are killed and paused. Default: 8s.
const chaosVariable = "CODERCLAW_TEST_CHAOS"

// victim is a process that is killed and started again, or paused.
type victim struct {
	t       *testing.T
	name    string
	command func() *exec.Cmd

	mu     sync.Mutex
	cmd    *exec.Cmd
	paused bool
	log    bytes.Buffer
}

func (v *victim) start() {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cmd = v.command()
	v.cmd.Stdout, v.cmd.Stderr = &v.log, &v.log
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) signal(sig os.Signal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.cmd.Process.Signal(sig)
}

// kill kills the process and starts it again.
func (v *victim) kill() {
	v.signal(syscall.SIGKILL)
	_ = v.cmd.Wait()
	v.start()
}

// stop ends the process gracefully.
func (v *victim) stop() {
	v.signal(syscall.SIGCONT)
	v.signal(syscall.SIGTERM)
	patience := time.AfterFunc(patience, func() { v.signal(syscall.SIGKILL); v.t.Errorf("%s did not stop", v.name) })
	defer patience.Stop()
	_ = v.cmd.Wait()
	if v.t.Failed() {
		v.t.Logf("%s wrote:\n%s", v.name, &v.log)
	}
}

func TestEveryTaskEndsOnceWhateverIsKilledOrPaused(t *testing.T) {
	t.Parallel()
	length := 8 * time.Second
	if text := os.Getenv(chaosVariable); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length+3*patience)
	defer cancel()
	const lease = 2 * time.Second
	url := pgtest.EmptyURL(t)
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var servers []*installation
	var victims []*victim
	for i := range 2 {
		in := newInstallation(t, "CODERCLAW_DATABASE_URL="+url, "CODERCLAW_TOKEN="+operatorToken, "CODERCLAW_REQUIRE_AUTH=true",
			"CODERCLAW_MAX_CONCURRENT_TASKS=0", "CODERCLAW_WORKER_LEASE="+lease.String(), "CODERCLAW_RATE_LIMIT=0")
		servers = append(servers, in)
		v := &victim{t: t, name: fmt.Sprint("server ", i), command: func() *exec.Cmd {
			cmd := exec.Command(program, "serve")
			cmd.Env = in.env
			return cmd
		}}
		v.start()
		t.Cleanup(v.stop)
		in.ready(&process{Cmd: v.cmd, log: &v.log, exited: make(chan struct{})})
		victims = append(victims, v)
	}
	admin := servers[0].clientWith(operatorToken)
	marker := "chaos-" + uuid.NewString()
	// It says who it is, works, and says so again.
	script := `echo "begin $$"; for i in 1 2 3; do sleep 0.1; echo "work $$"; done; echo "end $$"`
	if _, err := admin.PutAgent(ctx, "busy", api.AgentDefinition{
		Description: "works", Executor: api.ExecutorProcess, Process: &api.Process{Command: []string{"sh", "-c", script, marker}},
	}); err != nil {
		t.Fatal(err)
	}
	const atOnce = 5
	if _, err := admin.PutLimit(ctx, api.LimitAgent, "busy", api.NewLimit{MaxConcurrentTasks: new(atOnce)}); err != nil {
		t.Fatal(err)
	}
	key, err := admin.CreateAPIKey(ctx, api.NewAPIKey{Name: "workers", Worker: &api.WorkerScope{}, ExpiresSeconds: 3600})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		home := t.TempDir()
		v := &victim{t: t, name: fmt.Sprint("worker ", i), command: func() *exec.Cmd {
			cmd := exec.Command(program, "worker", "--url", "http://"+servers[i%2].address, "--name", fmt.Sprint("w", i), "--capacity", "3")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CODERCLAW_TOKEN=" + key.Key, "CODERCLAW_WORKSPACE_ROOT=" + home, "CODERCLAW_ACP_COMMAND=none", "CODERCLAW_SHUTDOWN_GRACE=1s"}
			return cmd
		}}
		v.start()
		t.Cleanup(v.stop)
		victims = append(victims, v)
	}
	for {
		if agent, err := admin.Agent(ctx, "busy"); err != nil {
			t.Fatal(err)
		} else if agent.Available {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	tasks := min(int(length.Seconds()*8), 1000) // a batch
	batch := make([]api.NewTask, tasks)
	for i := range batch {
		batch[i] = api.NewTask{Description: fmt.Sprint("task ", i), Input: "x", AgentID: "busy", MaxAttempts: 1}
	}
	if _, err := admin.SubmitTasks(ctx, batch); err != nil {
		t.Fatal(err)
	}

	var paused sync.WaitGroup
	kills, pauses := 0, 0
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Duration(200+rand.N(400)) * time.Millisecond) {
		v := victims[rand.N(len(victims))]
		if v.paused || strings.HasPrefix(v.name, "server") && rand.N(3) > 0 {
			continue
		}
		if rand.N(2) == 0 || strings.HasPrefix(v.name, "server") {
			kills++
			v.kill()
			continue
		}
		pauses++
		v.paused = true
		v.signal(syscall.SIGSTOP)
		paused.Go(func() {
			<-time.After(3 * lease)
			v.signal(syscall.SIGCONT)
		})
	}
	paused.Wait()

	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	for open := 1; open > 0; time.Sleep(50 * time.Millisecond) {
		if err := db.QueryRow(ctx, `SELECT count(*) FROM tasks WHERE completed_at IS NULL`).Scan(&open); err != nil {
			t.Fatal(err)
		}
	}
	ended := map[string]int{}
	rows, err := db.Query(ctx, `SELECT status, count(*) FROM tasks GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var status string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&status, &n}, func() error { ended[status] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d pauses; the tasks: %v", kills, pauses, ended)
	if ended["completed"] < tasks*3/4 {
		t.Errorf("of %d tasks only %v", tasks, ended)
	}
	for what, sql := range map[string]string{
		"tasks with another number of ends than one": `SELECT count(*) FROM (
			SELECT t.id FROM tasks t LEFT JOIN task_events e ON e.task_id = t.id AND e.type = 'status' AND e.status IN ('completed', 'failed', 'cancelled')
			GROUP BY t.id HAVING count(e.seq) <> 1) x`,
		"events after the end": `SELECT count(*) FROM task_events e JOIN task_events l ON l.task_id = e.task_id AND l.seq > e.seq
			WHERE e.type = 'status' AND e.status IN ('completed', 'failed', 'cancelled')`,
		"gaps in the numbers of events": `SELECT count(*) FROM (SELECT task_id FROM task_events GROUP BY task_id HAVING max(seq) <> count(*)) x`,
		// Each attempt is one process: none speaks in two attempts, no attempt has two.
		"attempts in which more than one process spoke": `
			WITH said AS (
				SELECT e.task_id, split_part(e.message, ' ', 2) AS pid,
					(SELECT count(*) FROM task_events b WHERE b.task_id = e.task_id AND b.seq < e.seq AND b.data->>'attempt' IS NOT NULL) AS attempt
				FROM task_events e WHERE e.type = 'log' AND e.message ~ '^(begin|work|end) '
			)
			SELECT count(*) FROM (SELECT FROM said GROUP BY task_id, attempt HAVING count(DISTINCT pid) > 1) x`,
		"completed attempts that did not say so": `SELECT count(*) FROM tasks t WHERE t.status = 'completed' AND NOT EXISTS (
			SELECT FROM task_events e WHERE e.task_id = t.id AND e.type = 'log' AND e.message LIKE 'end %')`,
	} {
		var n int
		if err := db.QueryRow(ctx, sql).Scan(&n); err != nil || n > 0 {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	// An attempt takes room from its claim to the next change of status that ends it.
	var most int
	if err := db.QueryRow(ctx, `
		WITH runs AS (
			SELECT b.created_at AS began, (SELECT min(e.created_at) FROM task_events e WHERE e.task_id = b.task_id AND e.seq > b.seq
				AND (e.status IN ('completed', 'failed', 'cancelled') OR e.data->>'reason' IS NOT NULL) AND e.type = 'status') AS ended
			FROM task_events b WHERE b.data->>'attempt' IS NOT NULL
		)
		SELECT max((SELECT count(*) FROM runs b WHERE b.began <= a.began AND b.ended > a.began)) FROM runs a`).Scan(&most); err != nil || most > atOnce {
		t.Errorf("%d ran at once, where %d may: %v", most, atOnce, err)
	}
	for _, v := range victims[2:] {
		v.kill() // its children have a moment to follow
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := running(t, marker)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("agents outlive their workers: %v", left)
		}
	}
}

// running returns the ids of the processes that have an argument.
func running(t *testing.T, argument string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), argument) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}
