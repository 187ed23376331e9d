// Package identity knows who asks: users and the roles bound to them, their
// credentials, devices and sessions. It turns what a request carries into a
// [policy.Caller] and says when that is over.
//
// Every caller it vouches for has a session, and a session is valid only while
// everything it rests on is: the user is not disabled, the key not revoked, the
// device not revoked, the time not up. What a caller may do is read from the
// database, never from the caller's token, and kept in memory for as long as
// the table access_generation says that nothing has changed.
//
// It owns the tables of migration 000004_identity; no other package names them.
package identity
