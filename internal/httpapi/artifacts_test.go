package httpapi_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/coderclaw/runtime/api"
)

// pattern is n bytes of which no two pieces are alike.
func pattern(n int, seed string) []byte {
	b := make([]byte, 0, n+len(seed)+24)
	for i := 0; len(b) < n; i++ {
		b = append(strconv.AppendInt(append(append(b, seed...), ' '), int64(i), 10), '\n')
	}
	return b[:n]
}

func (r *rig) anybody() *api.Client {
	r.t.Helper()
	c, err := api.NewClient(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestAnArtifactComesOutAsItWentIn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx, id := r.anybody(), t.Context(), r.manual().ID
	for name, content := range map[string]io.Reader{
		"report.html":         bytes.NewReader([]byte("<script>alert(1)</script>")),
		"größe & 100% +1.txt": iotest.OneByteReader(bytes.NewReader(pattern(5000, "x"))), // no seeker, of unknown length
		"%2e%2e":              strings.NewReader(""),
		"big":                 bytes.NewReader(pattern(3<<20+7, "big")),
	} {
		var sent bytes.Buffer
		if seeker, ok := content.(io.Seeker); ok {
			if _, err := sent.ReadFrom(content); err != nil {
				t.Fatal(err)
			}
			if _, err := seeker.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
		} else {
			sent.Write(pattern(5000, "x"))
		}
		sum := sha256.Sum256(sent.Bytes())
		put, err := c.PutArtifact(ctx, id, name, content, api.WithContentType("text/html"), api.WithSHA256(sum))
		if err != nil {
			t.Fatal(name, err)
		}
		if put.Name != name || put.Size != int64(sent.Len()) || put.SHA256 != hex.EncodeToString(sum[:]) || put.ContentType != "text/html" || put.CreatedBy != "local" || put.TaskID != id {
			t.Errorf("%s: %+v", name, put)
		}
		var got bytes.Buffer
		if err := c.GetArtifact(ctx, id, name, &got); err != nil || !bytes.Equal(got.Bytes(), sent.Bytes()) {
			t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
		}
		resp, _ := r.do("GET", "/v1/tasks/"+id+"/artifacts/"+url.PathEscape(name), "")
		kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
		if err != nil || kind != "attachment" || params["filename"] != name {
			t.Errorf("%s: %q, %v", name, resp.Header.Get("Content-Disposition"), err)
		}
		for header, want := range map[string]string{
			"Content-Type": "text/html", "X-Content-Type-Options": "nosniff", "ETag": `"` + put.SHA256 + `"`,
			"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store",
			"Repr-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":", "Content-Length": fmt.Sprint(put.Size),
		} {
			if got := resp.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
	list, err := c.Artifacts(ctx, id)
	if err != nil || len(list) != 4 || list[0].Name != "%2e%2e" {
		t.Errorf("listed %+v, %v", list, err)
	}
	told := 0
	for e, err := range c.TaskEvents(ctx, id) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == api.EventArtifact {
			told++
		}
	}
	if told != 4 {
		t.Errorf("%d events tell of them", told)
	}
	if err := c.DeleteArtifact(ctx, id, "big", api.IfArtifact(list[0].SHA256)); err == nil {
		t.Error("deleted in spite of a condition")
	}
	if err := c.DeleteArtifact(ctx, id, "big"); err != nil {
		t.Error(err)
	}
	r.problem(404, "not-found", "GET", "/v1/tasks/"+id+"/artifacts/big", "")
	r.problem(404, "not-found", "DELETE", "/v1/tasks/"+id+"/artifacts/big", "")
}

func TestPartsOfAnArtifactAndConditionsOnItAreHonoured(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	path, content := "/v1/tasks/"+id+"/artifacts/a", pattern(1<<20, "x")
	put, err := r.anybody().PutArtifact(t.Context(), id, "a", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	etag := `"` + put.SHA256 + `"`
	for asked, want := range map[string][]byte{
		"bytes=0-0": content[:1], "bytes=262140-262150": content[262140:262151], "bytes=1048570-": content[1048570:], "bytes=-5": content[1<<20-5:],
	} {
		resp, text := r.do("GET", path, "", "Range", asked, "If-Range", etag)
		if resp.StatusCode != 206 || text != string(want) {
			t.Errorf("%s: %d, %d bytes", asked, resp.StatusCode, len(text))
		}
	}
	resp, text := r.do("GET", path, "", "Range", "bytes=10-19, 524288-524297")
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != 206 || err != nil {
		t.Fatal(resp.StatusCode, resp.Header, err)
	}
	parts := multipart.NewReader(strings.NewReader(text), params["boundary"])
	for _, from := range []int{10, 524288} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(part); err != nil || !bytes.Equal(got, content[from:from+10]) {
			t.Errorf("from %d: %q, %v", from, got, err)
		}
	}
	for headers, want := range map[[2]string]int{
		{"Range", "bytes=1048576-"}: 416,
		{"If-None-Match", etag}:     304,
		{"If-None-Match", `"0"`}:    200,
		{"If-Match", `"0"`}:         412,
		{"If-Match", etag}:          200,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, text := r.do(method, path, "", headers[0], headers[1])
			if resp.StatusCode != want || method == "HEAD" && text != "" || want == 200 && resp.Header.Get("Content-Length") != "1048576" {
				t.Errorf("%s with %v: %d, %d bytes, %v", method, headers, resp.StatusCode, len(text), resp.Header)
			}
		}
	}
	if resp, _ := r.do("GET", path, "", "Range", "bytes=0-0", "If-Range", `"0"`); resp.StatusCode != 200 {
		t.Errorf("a part of another one: %d", resp.StatusCode)
	}
	if resp, _ := r.do("POST", path, ""); resp.StatusCode != 405 || !strings.Contains(strings.Join(resp.Header.Values("Allow"), ","), "HEAD") {
		t.Errorf("POST: %d, Allow %q", resp.StatusCode, resp.Header.Values("Allow"))
	}
}

func TestAnUploadIsRefusedForWhatIsWrongWithIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, id := r.anybody(), r.manual().ID
	at := "/v1/tasks/" + id + "/artifacts/"
	digest := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	}
	if resp, text := r.do("PUT", at+"a", `"x"`, "If-None-Match", "*", "Content-Digest", "md5=:AAAA:, "+digest(`"x"`)); resp.StatusCode != 201 || resp.Header.Get("Location") != at+"a" {
		t.Fatal(resp.StatusCode, text)
	}
	for _, c := range []struct {
		status     int
		slug, name string
		headers    []string
	}{
		{409, "conflict", "a", []string{"If-None-Match", "*"}},
		{409, "conflict", "a", []string{"If-Match", `"00"`}},
		{422, "invalid", "a", []string{"If-Match", `"00"`, "If-None-Match", "*"}},
		{422, "invalid", "a", []string{"If-Match", "00"}},
		{422, "invalid", "a", []string{"If-Match", `""`}},
		{422, "invalid", "a", []string{"If-None-Match", "x"}},
		{422, "invalid", "a", []string{"Content-Digest", digest("y")}},
		{422, "invalid", "a", []string{"Content-Digest", "sha-256=:AAAA:"}},
		{422, "invalid", "a", []string{"Content-Digest", "sha-256=x"}},
		{422, "invalid", "a", []string{"Content-Type", "nothing"}},
		{422, "invalid", "a", []string{"Lease-Token", "x"}},
		{415, "unsupported-media-type", "a", []string{"Content-Encoding", "gzip"}},
		{400, "bad-request", "a", []string{"Content-Range", "bytes 0-2/3"}},
		{409, "lease-lost", "a", []string{"Lease-Token", "0190b8a1-0000-7000-8000-000000000000"}},
		{422, "invalid", "a%2Fb", nil}, {422, "invalid", "..%2f..%2fpasswd", nil}, {422, "invalid", "%2e%2e", nil}, {422, "invalid", "a%5Cb", nil},
		{422, "invalid", "a%0Ab", nil}, {422, "invalid", "%E2%80%AEgpj.exe", nil}, {400, "bad-request", "a%00", nil}, {400, "bad-request", "a%FF", nil},
		{422, "invalid", strings.Repeat("x", 201), nil}, {404, "not-found", "a/b", nil},
	} {
		r.problem(c.status, c.slug, "PUT", at+c.name, `"x"`, c.headers...)
	}
	r.problem(404, "not-found", "PUT", "/v1/tasks/0190b8a1-0000-7000-8000-000000000000/artifacts/a", `"x"`)
	r.problem(422, "invalid", "PUT", "/v1/tasks/x/artifacts/a", `"x"`)
	r.problem(422, "invalid", "GET", "/v1/tasks/x/artifacts/a", "")

	big := pattern(maxArtifact+1, "x")
	var answer *api.Error
	for what, content := range map[string]io.Reader{"of known length": bytes.NewReader(big), "of unknown length": iotest.DataErrReader(bytes.NewBuffer(big))} {
		if _, err := c.PutArtifact(t.Context(), id, "big", content); !errors.As(err, &answer) || answer.Status != 413 {
			t.Errorf("too much %s: %v", what, err)
		}
	}
	if list, err := c.Artifacts(t.Context(), id); err != nil || len(list) != 1 || list[0].Size != 3 {
		t.Errorf("left %+v, %v", list, err)
	}
	for _, status := range []string{"planning", "running", "completed"} {
		want[api.Task](r, 200, "PATCH", "/v1/tasks/"+id, `{"status":"`+status+`"}`)
	}
	r.problem(409, "invalid-transition", "PUT", at+"late", `"x"`)
}

func TestAnUploadThatIsCutOffIsNoArtifact(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual().ID
	for what, request := range map[string]string{
		"of known length":   "Content-Length: 1000000\r\n\r\n" + string(pattern(600<<10, "x")),
		"of unknown length": "Transfer-Encoding: chunked\r\n\r\n96000\r\n" + string(pattern(600<<10, "x")),
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "PUT /v1/tasks/"+id+"/artifacts/a HTTP/1.1\r\nHost: localhost\r\n"+request); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s: %d", what, resp.StatusCode)
		}
	}
	if list, err := r.anybody().Artifacts(t.Context(), id); err != nil || len(list) != 0 {
		t.Errorf("left %+v, %v", list, err)
	}
}

// download begins to get an artifact that is larger than what the connection
// holds, and returns the answer with most of it to come.
func (r *rig) download(path string, headers ...string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		r.t.Fatal(resp.StatusCode)
	}
	return resp
}

func TestADownloadGoesOnWithWhatItBeganWith(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, id, before := r.anybody(), r.manual().ID, pattern(maxArtifact, "before")
	if _, err := c.PutArtifact(t.Context(), id, "a", bytes.NewReader(before)); err != nil {
		t.Fatal(err)
	}
	resp := r.download("/v1/tasks/" + id + "/artifacts/a")
	if _, err := c.PutArtifact(t.Context(), id, "a", strings.NewReader("after")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, before) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var after bytes.Buffer
	if err := c.GetArtifact(t.Context(), id, "a", &after); err != nil || after.String() != "after" {
		t.Errorf("then %q, %v", after.String(), err)
	}
}

func TestATransferEndsWithTheSessionOfItsCaller(t *testing.T) {
	t.Parallel()
	r, admin := locked(t)
	dev := r.login(admin, "dev", "developer", "shop")
	c := r.client(dev)
	task, err := c.SubmitTask(t.Context(), api.NewTask{Description: "d", Dispatch: api.DispatchManual})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutArtifact(t.Context(), task.ID, "a", bytes.NewReader(pattern(maxArtifact, "x"))); err != nil {
		t.Fatal(err)
	}
	resp := r.download("/v1/tasks/"+task.ID+"/artifacts/a", bearer(dev)...)
	_, err = c.PutArtifact(t.Context(), task.ID, "b", io.MultiReader(bytes.NewReader(pattern(1<<20, "x")), revoking(func() error {
		return r.client(admin).RevokeSession(t.Context(), dev.Session.ID)
	})))
	var answer *api.Error
	if !errors.As(err, &answer) || answer.Status != 403 {
		t.Errorf("the upload went on: %v", err)
	}
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the download went on for %d bytes", len(got))
	}
	list, err := r.client(admin).Artifacts(t.Context(), task.ID)
	if err != nil || len(list) != 1 {
		t.Errorf("left %+v, %v", list, err)
	}
}

// revoking is the end of a content, which something happens before.
type revoking func() error

func (f revoking) Read([]byte) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func TestADownloadThatFailsIsNotTakenForWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, id := r.anybody(), r.manual().ID
	if _, err := c.PutArtifact(t.Context(), id, "a", bytes.NewReader(pattern(1<<20, "x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pool.Exec(t.Context(), `DELETE FROM artifact_chunks WHERE number = 2`); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := c.GetArtifact(t.Context(), id, "a", &got); err == nil {
		t.Errorf("%d bytes, as if that were all", got.Len())
	}
	if _, err := r.pool.Exec(t.Context(), `UPDATE artifact_chunks SET bytes = decode(repeat('00', 262144), 'hex') WHERE number = 0;
		UPDATE artifacts SET size = 262144`); err != nil {
		t.Fatal(err)
	}
	if err := c.GetArtifact(t.Context(), id, "a", io.Discard); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("something else came, and %v", err)
	}
}
