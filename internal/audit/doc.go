// Package audit keeps the log of decisions: who asked to do what, from where,
// and why it was allowed or denied. Entries are written in the transaction of
// what they allow and never changed after.
package audit
