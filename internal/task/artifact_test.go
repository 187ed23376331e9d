package task_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"

	"github.com/coderclaw/runtime/internal/fault"
	"github.com/coderclaw/runtime/internal/policy"
	"github.com/coderclaw/runtime/internal/task"
)

// filled is n bytes of which no two pieces are alike.
func filled(n int, seed string) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%s %d\n", seed, i)
	}
	return b.Bytes()[:n]
}

func (r rig) put(t *testing.T, id uuid.UUID, name string, content []byte) task.Artifact {
	t.Helper()
	a, _, err := r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: name, Size: -1}, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// artifact returns the bytes of an artifact, nil if there is none.
func (r rig) artifact(t *testing.T, id uuid.UUID, name string) []byte {
	t.Helper()
	a, err := r.Artifact(t.Context(), ann, id, name)
	if fault.CodeOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	content, err := r.ReadArtifact(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	got, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(got); int64(len(got)) != a.Size || !bytes.Equal(sum[:], a.SHA256) {
		t.Errorf("%d bytes with the hash %x, of %+v", len(got), sum, a)
	}
	return append([]byte{}, got...)
}

// contents is how many contents and pieces of them there are.
func (r rig) contents(t *testing.T) (contents, chunks int) {
	t.Helper()
	err := r.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM artifact_contents), (SELECT count(*) FROM artifact_chunks)`).Scan(&contents, &chunks)
	if err != nil {
		t.Fatal(err)
	}
	return contents, chunks
}

// afterTransfers lets as much time pass as transfers may take.
func (r rig) afterTransfers(t *testing.T) {
	t.Helper()
	_, err := r.pool.Exec(t.Context(), `UPDATE artifact_contents SET collect_after = collect_after - $1::interval`, 2*task.TransferTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAnArtifactIsReadAsItWasPut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	for _, n := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 3*256<<10 + 17, maxArtifact - 256<<10} {
		name := fmt.Sprintf("%d bytes – größer.bin", n)
		want := filled(n, name)
		a, created, err := r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: name, ContentType: "text/plain; charset=utf-8", Size: -1}, iotest.HalfReader(bytes.NewReader(want)))
		if err != nil || !created || a.Size != int64(n) || a.CreatedBy != "ann" {
			t.Fatalf("%+v, %v, %v", a, created, err)
		}
		if got := r.artifact(t, id, name); !bytes.Equal(got, want) {
			t.Errorf("%s: read %d bytes", name, len(got))
		}
		events := r.history(t, id)
		last := events[len(events)-1]
		var data struct {
			Name, SHA256, ContentType string
			Size                      int64
		}
		if err := json.Unmarshal(last.Data, &data); err != nil {
			t.Fatal(err)
		}
		if last.Type != task.ArtifactEvent || last.Message != name || data.Name != name || data.Size != a.Size ||
			data.SHA256 != fmt.Sprintf("%x", a.SHA256) || data.ContentType != "text/plain; charset=utf-8" {
			t.Errorf("told of as %+v %s", last, last.Data)
		}
	}
	all, err := r.Artifacts(t.Context(), ann, id)
	if err != nil || len(all) != 7 || all[0].Name != "0 bytes – größer.bin" {
		t.Errorf("listed %+v, %v", all, err)
	}
	var audited int
	err = r.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_entries WHERE action = 'artifact.put' AND resource_id = $1 AND details ->> 'sha256' <> ''`, id.String()).Scan(&audited)
	if err != nil || audited != 7 {
		t.Errorf("%d audit entries, %v", audited, err)
	}
}

func TestAnArtifactCanBeReadFromAnyPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	want := filled(600<<10, "x")
	content, err := r.ReadArtifact(t.Context(), r.put(t, id, "a", want))
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	for _, from := range []int64{599 << 10, 0, 256<<10 - 3, 256 << 10, 511<<10 + 7, 600 << 10} {
		if at, err := content.Seek(from, io.SeekStart); at != from || err != nil {
			t.Fatal(at, err)
		}
		got := make([]byte, min(1<<10, len(want)-int(from)))
		if _, err := io.ReadFull(content, got); err != nil || !bytes.Equal(got, want[from:from+int64(len(got))]) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if end, err := content.Seek(0, io.SeekEnd); end != int64(len(want)) || err != nil {
		t.Error(end, err)
	}
	if n, err := content.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	if _, err := content.Seek(-1, io.SeekStart); err == nil {
		t.Error("a place before the beginning")
	}
}

func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	before := r.put(t, id, "a", []byte("before"))
	seq := r.get(t, id).LastSeq
	for what, broken := range map[string]error{"the client goes": io.ErrUnexpectedEOF, "its disk fails": errors.New("no such sector")} {
		content := io.MultiReader(bytes.NewReader(filled(700<<10, "x")), iotest.ErrReader(broken))
		_, _, err := r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: "a"}, content)
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := r.artifact(t, id, "a"); string(got) != "before" {
		t.Errorf("there is %d bytes", len(got))
	}
	if now := r.get(t, id).LastSeq; now != seq {
		t.Errorf("%d events more", now-seq)
	}
	if err := r.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if contents, chunks := r.contents(t); contents != 1 || chunks != 1 {
		t.Errorf("%d contents of %d pieces are left, want that of %s alone", contents, chunks, before.Name)
	}
}

func TestWhatAKilledServerWasReceivingIsCollectedOnceItCannotGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	// An upload that never ends, as of a process that is no more.
	begun, over := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() {
		content := io.MultiReader(bytes.NewReader(filled(512<<10, "x")), readerFunc(func([]byte) (int, error) {
			close(begun)
			<-over
			return 0, io.ErrUnexpectedEOF
		}))
		_, _, _ = r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: "a"}, content)
	}()
	<-begun
	if err := r.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if contents, chunks := r.contents(t); contents != 1 || chunks != 2 {
		t.Errorf("while it may go on there are %d contents of %d pieces", contents, chunks)
	}
	if got := r.artifact(t, id, "a"); got != nil {
		t.Errorf("%d bytes can be seen", len(got))
	}
	r.afterTransfers(t)
	if contents, chunks := r.contents(t); contents != 0 || chunks != 0 {
		t.Errorf("%d contents of %d pieces are left", contents, chunks)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAReaderKeepsTheArtifactThatItBeganWith(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(r rig, id uuid.UUID) error{
		"replaced": func(r rig, id uuid.UUID) error {
			r.put(t, id, "a", []byte("after"))
			return nil
		},
		"deleted": func(r rig, id uuid.UUID) error {
			return r.DeleteArtifact(t.Context(), ann, id, "a", task.ArtifactCondition{})
		},
	} {
		r := newRig(t)
		id := r.manual(t).ID
		want := filled(700<<10, "before")
		content, err := r.ReadArtifact(t.Context(), r.put(t, id, "a", want))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { content.Close() })
		got := make([]byte, 1000)
		if _, err := io.ReadFull(content, got); err != nil {
			t.Fatal(err)
		}
		if err := change(r, id); err != nil {
			t.Fatal(what, err)
		}
		if err := r.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(content)
		if err != nil || !bytes.Equal(slices.Concat(got, rest), want) {
			t.Errorf("%s: read %d bytes, %v", what, len(got)+len(rest), err)
		}
		r.afterTransfers(t)
		left := map[string]int{"replaced": 1, "deleted": 0}[what]
		if contents, chunks := r.contents(t); contents != left || chunks != left {
			t.Errorf("%s: %d contents of %d pieces are left in the end", what, contents, chunks)
		}
	}
}

func TestOfUploadsAtOnceOneWinsWholly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	var puts sync.WaitGroup
	fresh := make(chan bool, 8)
	for i := range 8 {
		puts.Go(func() {
			_, created, err := r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: "a"}, bytes.NewReader(filled(300<<10+i, fmt.Sprint(i))))
			if err != nil {
				t.Error(err)
			}
			fresh <- created
		})
	}
	puts.Wait()
	close(fresh)
	n := 0
	for created := range fresh {
		if created {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of them were the first", n)
	}
	got := r.artifact(t, id, "a")
	if i := len(got) - 300<<10; i < 0 || i > 7 || !bytes.Equal(got, filled(len(got), fmt.Sprint(i))) {
		t.Errorf("%d bytes, of several", len(got))
	}
	if events := r.history(t, id); len(events) != 9 {
		t.Errorf("%d events", len(events))
	}
	var only sync.WaitGroup
	won := make(chan error, 4)
	for range 4 {
		only.Go(func() {
			_, _, err := r.PutArtifact(t.Context(), ann, task.NewArtifact{TaskID: id, Name: "b", If: task.ArtifactCondition{Absent: true}}, strings.NewReader("b"))
			won <- err
		})
	}
	only.Wait()
	close(won)
	n = 0
	for err := range won {
		if err == nil {
			n++
		} else if fault.CodeOf(err) != fault.Conflict {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d uploads found no artifact there", n)
	}
}

func TestConditionsAndHashesOfArtifactsAreHonoured(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	there := r.put(t, id, "a", []byte("one"))
	sum := sha256.Sum256([]byte("two"))
	put := func(n task.NewArtifact) error {
		n.TaskID = id
		_, _, err := r.PutArtifact(t.Context(), ann, n, strings.NewReader("two"))
		return err
	}
	wantFault(t, put(task.NewArtifact{Name: "a", If: task.ArtifactCondition{Absent: true}}), fault.Conflict)
	wantFault(t, put(task.NewArtifact{Name: "a", If: task.ArtifactCondition{SHA256: sum[:]}}), fault.Conflict)
	wantFault(t, put(task.NewArtifact{Name: "b", If: task.ArtifactCondition{SHA256: sum[:]}}), fault.Conflict)
	wantFault(t, put(task.NewArtifact{Name: "a", SHA256: there.SHA256}), fault.Invalid)
	wantFault(t, r.DeleteArtifact(t.Context(), ann, id, "a", task.ArtifactCondition{SHA256: sum[:]}), fault.Conflict)
	if got := r.artifact(t, id, "a"); string(got) != "one" {
		t.Fatalf("it is %q", got)
	}
	if err := put(task.NewArtifact{Name: "a", SHA256: sum[:], If: task.ArtifactCondition{SHA256: there.SHA256}}); err != nil {
		t.Fatal(err)
	}
	if got := r.artifact(t, id, "a"); string(got) != "two" {
		t.Errorf("it is %q", got)
	}
	if err := r.DeleteArtifact(t.Context(), ann, id, "a", task.ArtifactCondition{SHA256: sum[:]}); err != nil {
		t.Error(err)
	}
	wantFault(t, r.DeleteArtifact(t.Context(), ann, id, "a", task.ArtifactCondition{}), fault.NotFound)
	if err := put(task.NewArtifact{Name: "a", If: task.ArtifactCondition{Absent: true}}); err != nil {
		t.Error(err)
	}
}

func TestArtifactsAreBoundedInNameNumberAndSize(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	put := func(n task.NewArtifact, content io.Reader) error {
		n.TaskID = id
		_, _, err := r.PutArtifact(t.Context(), ann, n, content)
		return err
	}
	unread := readerFunc(func([]byte) (int, error) { t.Error("what is refused at once is read"); return 0, io.EOF })
	for _, name := range []string{"", ".", "..", "a/b", `a\b`, "/etc/passwd", "a\x00", "a\nb", "a\x1b[2J", "a\u202eb", "a\u2028", " a", "a ", "a\xff", strings.Repeat("x", 201)} {
		wantFault(t, put(task.NewArtifact{Name: name}, unread), fault.Invalid)
	}
	for _, name := range []string{"a", "...", "größe 1.txt", "%2e%2e", "-", "~", "a:b?*", strings.Repeat("語", 200)} {
		if err := put(task.NewArtifact{Name: name}, strings.NewReader("x")); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, kind := range []string{"text", "text/plain\r\nX: y", "text/" + strings.Repeat("x", 255)} {
		wantFault(t, put(task.NewArtifact{Name: "a", ContentType: kind}, unread), fault.Invalid)
	}
	wantFault(t, put(task.NewArtifact{Name: "a", Size: maxArtifact + 1}, unread), fault.TooLarge)
	wantFault(t, put(task.NewArtifact{Name: "a", Size: -1}, bytes.NewReader(filled(maxArtifact+1, "x"))), fault.TooLarge)
	endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	wantFault(t, put(task.NewArtifact{Name: "a"}, endless), fault.TooLarge)

	for _, name := range []string{"1", "2", "3"} {
		if err := put(task.NewArtifact{Name: name}, bytes.NewReader(filled(maxArtifact, name))); err != nil {
			t.Fatal(err)
		}
	}
	wantFault(t, put(task.NewArtifact{Name: "4"}, bytes.NewReader(filled(maxArtifact, "4"))), fault.TooLarge)
	wantFault(t, put(task.NewArtifact{Name: "4", Size: maxArtifact}, unread), fault.TooLarge)
	if err := put(task.NewArtifact{Name: "3"}, bytes.NewReader(filled(maxArtifact, "4"))); err != nil {
		t.Errorf("in place of another: %v", err)
	}

	_, err := r.pool.Exec(t.Context(), `WITH c AS (INSERT INTO artifact_contents (id, store) SELECT gen_random_uuid(), 'postgres' FROM generate_series(1, $2) RETURNING id)
		INSERT INTO artifacts (task_id, content_id, created_at, size, name, content_type, created_by, store, sha256)
		SELECT $1, id, now(), 0, id::text, 'a/b', 'ann', 'postgres', sha256('') FROM c`, id, task.MaxArtifacts-11)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, put(task.NewArtifact{Name: "one too many"}, unread), fault.TooMany)
	if err := put(task.NewArtifact{Name: "a"}, strings.NewReader("in place of another")); err != nil {
		t.Error(err)
	}
}

func TestArtifactsAreForThoseWhoMay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	submitted, err := r.Submit(ctx, annInShop, task.New{Description: "in the shop", Dispatch: task.Manual}, "")
	if err != nil {
		t.Fatal(err)
	}
	id := submitted.ID
	put := func(c policy.Caller, id uuid.UUID, lease *uuid.UUID) error {
		_, _, err := r.PutArtifact(ctx, c, task.NewArtifact{TaskID: id, Lease: lease, Name: "a"}, strings.NewReader("x"))
		return err
	}
	if err := put(annInShop, id, nil); err != nil {
		t.Fatal(err)
	}
	wantFault(t, put(bobInShop, id, nil), fault.Forbidden)
	wantFault(t, put(root, id, nil), fault.Forbidden)
	for _, c := range []policy.Caller{annInBank, annAlone, bobAlone} {
		wantFault(t, put(c, id, nil), fault.NotFound)
		wantFault(t, second(r.Artifacts(ctx, c, id)), fault.NotFound)
		wantFault(t, second(r.Artifact(ctx, c, id, "a")), fault.NotFound)
		wantFault(t, r.DeleteArtifact(ctx, c, id, "a", task.ArtifactCondition{}), fault.NotFound)
	}
	if all, err := r.Artifacts(ctx, bobInShop, id); err != nil || len(all) != 1 {
		t.Errorf("of the same project: %v, %v", all, err)
	}
	wantFault(t, second(r.Artifact(ctx, bobInShop, id, "b")), fault.NotFound)
	wantFault(t, r.DeleteArtifact(ctx, bobInShop, id, "a", task.ArtifactCondition{}), fault.Forbidden)
	if err := r.DeleteArtifact(ctx, root, id, "a", task.ArtifactCondition{}); err != nil {
		t.Error(err)
	}

	auto := r.submit(t, task.New{}).ID
	wantFault(t, put(ann, auto, nil), fault.Forbidden)
	mine, theirs := keyed("mine", policy.WorkerScope{}), keyed("theirs", policy.WorkerScope{})
	r.serve(t, mine, task.NewWorker{ID: "w"})
	leases, _, err := r.Claim(ctx, mine, "w", 1, 0)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	lease := leases[0].LeaseToken
	wantFault(t, put(theirs, auto, &lease), fault.LeaseLost)
	wantFault(t, put(mine, id, &lease), fault.LeaseLost)
	wantFault(t, put(mine, auto, nil), fault.NotFound)
	if err := put(mine, auto, &lease); err != nil {
		t.Error(err)
	}
	// What was begun under a lease is not kept once it is lost.
	over := readerFunc(func([]byte) (int, error) {
		if _, err := r.Cancel(ctx, ann, auto); err != nil {
			t.Error(err)
		}
		return 0, io.EOF
	})
	_, _, err = r.PutArtifact(ctx, mine, task.NewArtifact{TaskID: auto, Lease: &lease, Name: "late"}, over)
	wantFault(t, err, fault.LeaseLost)
	if all, err := r.Artifacts(ctx, ann, auto); err != nil || len(all) != 1 {
		t.Errorf("left %v, %v", all, err)
	}
	wantFault(t, put(mine, auto, &lease), fault.LeaseLost)

	// The history of a task that has ended is closed.
	done := r.manual(t).ID
	r.put(t, done, "secret", []byte("x"))
	end := r.to(t, done, task.Completed)
	wantFault(t, put(ann, done, nil), fault.InvalidTransition)
	if err := r.DeleteArtifact(ctx, ann, done, "secret", task.ArtifactCondition{}); err != nil {
		t.Error(err)
	}
	if now := r.get(t, done); now.LastSeq != end.LastSeq {
		t.Errorf("%d events follow the last one", now.LastSeq-end.LastSeq)
	}
}

func TestAnArtifactInAStoreThatIsNotConfiguredIsUnavailable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.manual(t).ID
	a := r.put(t, id, "a", []byte("x"))
	a.Store = "elsewhere"
	wantFault(t, second(r.ReadArtifact(t.Context(), a)), fault.Unavailable)
}
