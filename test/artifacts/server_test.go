package artifacts_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/coderclaw/runtime/api"
	"github.com/coderclaw/runtime/test/server"
)

// signed reports whether a request bears the signature that the secret key makes
// (AWS Signature Version 4).
func signed(r *http.Request, secret string) bool {
	parts := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[name] = value
	}
	_, scope, _ := strings.Cut(parts["Credential"], "/")
	var headers strings.Builder
	for name := range strings.SplitSeq(parts["SignedHeaders"], ";") {
		value := strings.TrimSpace(r.Header.Get(name))
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, value)
	}
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	request := strings.Join([]string{r.Method, r.URL.EscapedPath(), query, headers.String(), parts["SignedHeaders"], r.Header.Get("X-Amz-Content-Sha256")}, "\n")
	sum := sha256.Sum256([]byte(request))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range append(strings.Split(scope, "/"), text) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hmac.Equal([]byte(hex.EncodeToString(key)), []byte(parts["Signature"]))
}

func TestAServerKeepsArtifactsInItsBucket(t *testing.T) {
	t.Parallel()
	const secret = "the key of the bucket, in a file"
	s := service{Backend: s3mem.New()}
	if err := s.CreateBucket("files"); err != nil {
		t.Fatal(err)
	}
	storage := gofakes3.New(s.Backend).Server()
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !signed(r, secret) {
			t.Errorf("%s %s is not signed with the key", r.Method, r.URL)
			http.Error(w, "", http.StatusForbidden)
			return
		}
		storage.ServeHTTP(w, r)
	}))
	defer guarded.Close()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const lines = 12_500
	url := server.StartWith(t, server.Settings{
		Environment: []string{
			"CODERCLAW_ARTIFACTS_S3_ENDPOINT=" + guarded.URL, "CODERCLAW_ARTIFACTS_S3_BUCKET=files", "CODERCLAW_ARTIFACTS_S3_REGION=us-east-1",
			"CODERCLAW_ARTIFACTS_S3_ACCESS_KEY=id", "CODERCLAW_ARTIFACTS_S3_SECRET_KEY_FILE=" + keyFile, "CODERCLAW_ARTIFACTS_S3_PREFIX=claw/",
		},
		Files: map[string]string{"agents.yaml": "agents:\n  - {id: counter, description: counts, executor: process, process: {command: [seq, \"1\", \"" + strconv.Itoa(lines) + "\"]}}\n"},
	})
	client, err := api.NewClient(url)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	read := func(task, name string) string {
		t.Helper()
		var text strings.Builder
		if err := client.GetArtifact(ctx, task, name, &text); err != nil {
			t.Fatal(name, err)
		}
		return text.String()
	}

	mine, err := client.SubmitTask(ctx, api.NewTask{Description: "d", Input: "i", Dispatch: api.DispatchManual})
	if err != nil {
		t.Fatal(err)
	}
	want := string(pattern(6<<20 + 5)) // in more than one part
	if _, err := client.PutArtifact(ctx, mine.ID, "big", strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if got := read(mine.ID, "big"); got != want {
		t.Errorf("%d bytes of %d come back", len(got), len(want))
	}
	if keys := s.keys(t); len(keys) != 1 || !strings.HasPrefix(keys[0], "claw/") {
		t.Errorf("the objects are %q", keys)
	}

	// What an agent says beyond what a history holds.
	counted, err := client.SubmitTask(ctx, api.NewTask{Description: "d", Input: "i", AgentID: "counter"})
	if err != nil {
		t.Fatal(err)
	}
	told, from := 0, int64(0)
	for e, err := range client.WatchTask(ctx, counted.ID, api.WatchOptions{After: &from}) {
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(e.Message); e.Type == api.EventLog && err == nil {
			if told++; n != told {
				t.Fatalf("line %d comes as number %d", n, told)
			}
		}
	}
	rest := strings.Fields(read(counted.ID, "log.txt"))
	if told != 10_000 || len(rest) != lines-told {
		t.Errorf("%d lines are in the history and %d in the artifact, of %d", told, len(rest), lines)
	}
	for i, line := range rest {
		if line != strconv.Itoa(told+1+i) {
			t.Fatalf("line %d of the artifact is %s", i, line)
		}
	}
	if done, err := client.Task(ctx, counted.ID); err != nil || done.Status != api.TaskCompleted || !strings.HasSuffix(done.Output, strconv.Itoa(lines)+"\n") {
		t.Errorf("the task has %s: %v", done.Status, err)
	}
	if keys := s.keys(t); len(keys) != 2 {
		t.Errorf("the objects are %q", keys)
	}
}
