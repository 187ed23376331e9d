package clawctl

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

func TestArtifactsGoToAndComeFromFiles(t *testing.T) {
	t.Parallel()
	var put []string
	in := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			put = append(put, r.URL.Path, r.Header.Get("Content-Type"), string(body))
			writeJSON(w, http.StatusCreated, api.Artifact{Name: "n"})
		case strings.HasSuffix(r.URL.Path, "/cut"):
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "half")
		default:
			w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256([]byte("content")))))
			fmt.Fprint(w, "content")
		}
	}))
	dir := t.TempDir()
	file := filepath.Join(dir, "größe.html")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := in.run(t, "artifacts", "put", "t1", file); got.code != exitOK || strings.Join(put, " ") != "/v1/tasks/t1/artifacts/größe.html text/html; charset=utf-8 mine" {
		t.Errorf("%+v, put %q", got, put)
	}
	if got := in.run(t, "artifacts", "get", "t1", "a"); got != (result{exitOK, "content", ""}) {
		t.Errorf("%+v", got)
	}
	into := filepath.Join(dir, "into")
	if got := in.run(t, "artifacts", "get", "t1", "a", "--file", into); got != (result{exitOK, "", ""}) {
		t.Errorf("%+v", got)
	}
	if got := in.run(t, "artifacts", "get", "t1", "cut", "--file", into); got.code != exitFailed {
		t.Errorf("half of it: %+v", got)
	}
	if text, err := os.ReadFile(into); err != nil || string(text) != "content" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("left %v, %v", files, err)
	}
	for _, args := range []string{"artifacts get t1", "artifacts put t1 -", "artifacts list", "artifacts delete t1"} {
		if got := in.run(t, strings.Fields(args)...); got.code != exitUsage {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
