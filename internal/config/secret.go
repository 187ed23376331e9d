package config

// Secret is a text that does not show when it is printed, logged or encoded,
// alone or within a struct. The zero Secret is an empty text.
type Secret struct {
	// A pointer, because fmt calls no method of a value in an unexported
	// field; it then prints an address.
	text *string
}

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "[secret]", or "" for an empty secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return "[secret]"
}

// GoString returns what String does.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText returns what String does; JSON, YAML and slog go by it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
