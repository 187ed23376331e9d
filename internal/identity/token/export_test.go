package token

import "fmt"

// OccupyHashing takes every place for hashing until the returned function is
// called.
func OccupyHashing() (release func()) {
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	return func() {
		for range cap(hashing) {
			<-hashing
		}
	}
}

// RewritePassword parses a stored password and writes it again, with the memory
// in KiB and the time that it asks for.
func RewritePassword(encoded string) (again string, memory, time uint32, err error) {
	c, salt, hash, err := parsePassword(encoded)
	if err != nil {
		return "", 0, 0, err
	}
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", c.memory, c.time, c.threads,
		passwordEncoding.EncodeToString(salt), passwordEncoding.EncodeToString(hash)), c.memory, c.time, nil
}
