package identity

// Parts of Run, for tests that cannot wait for their time.
var (
	NoteUse = (*Service).noteUse
	Tidy    = (*Service).tidy
)
