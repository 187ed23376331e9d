package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coderclaw/runtime/api"
)

func TestContentThatCanBeReadAgainIsSentAgainWithANewToken(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 100_000)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("head"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if _, err := opened.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]io.Reader{"text": strings.NewReader(text), "from the middle of a file": opened, "a pipe": bytes.NewBufferString(text)} {
		var got []byte
		var length int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if r.Header.Get("Authorization") == "Bearer old" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			got, length = body, r.ContentLength
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"name":"n"}`)
		}))
		t.Cleanup(server.Close)
		c, err := api.NewClient(server.URL, api.WithTokenSource(func(_ context.Context, refused string) (api.Token, error) {
			if refused == "old" {
				return api.Token{Value: "new"}, nil
			}
			return api.Token{Value: "old"}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.PutArtifact(t.Context(), "t", "n", content)
		if name == "a pipe" {
			if err == nil || got != nil {
				t.Errorf("%s: sent %d bytes, %v", name, len(got), err)
			}
			continue
		}
		if err != nil || string(got) != text || length != int64(len(text)) {
			t.Errorf("%s: sent %d bytes, announced as %d, %v", name, len(got), length, err)
		}
	}
}
