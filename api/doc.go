// Package api is the wire contract of the CoderClaw runtime: the JSON types of
// requests, responses and stream events, and a small client that speaks it.
//
// It depends on the standard library only, so that other programs can import
// it without a dependency of ours. The struct tags that encoding/json does not
// know (doc, minLength, enum, …) are read by the server when it writes
// openapi.yaml.
package api
