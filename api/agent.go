package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// AgentTokenPrefix begins the tokens of agents.
const AgentTokenPrefix = "cca_"

// agentTokenEncoding refuses what it would not have written itself.
var agentTokenEncoding = base64.RawURLEncoding.Strict()

// AgentToken returns the bearer token that a worker gives to an agent which is
// to report on its task by itself. It is good for as long as the lease, for
// reports on that task, for reading it and for asking people; the lease cannot
// be found from it. The ids are those of an [Lease]; a taskID that is no UUID
// gives a token that is good for nothing.
func AgentToken(taskID, leaseToken string) string {
	id, _ := hex.DecodeString(strings.ReplaceAll(taskID, "-", ""))
	mac := hmac.New(sha256.New, []byte(strings.ToLower(leaseToken)))
	mac.Write([]byte("coderclaw agent token\n"))
	mac.Write(id)
	return AgentTokenPrefix + agentTokenEncoding.EncodeToString(mac.Sum(id))
}

// TaskOfAgentToken returns the id of the task that the token of an agent is for,
// whether or not it is any good. ok is false if it has not the form of one.
func TaskOfAgentToken(token string) (taskID string, ok bool) {
	text, ok := strings.CutPrefix(token, AgentTokenPrefix)
	raw, err := agentTokenEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != 16+sha256.Size {
		return "", false
	}
	h := hex.EncodeToString(raw[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], true
}

// LeaseState returns how a leased task stands, waiting up to waitSeconds for an
// event after the one with the number after, or for the lease to be lost.
func (c *Client) LeaseState(ctx context.Context, taskID, leaseToken string, after int64, waitSeconds int) (LeaseState, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "waitSeconds": {strconv.Itoa(waitSeconds)}}
	var out LeaseState
	return out, c.leased(ctx, taskID, leaseToken, call{
		method: http.MethodGet, path: "/lease", query: q, out: &out, wait: time.Duration(waitSeconds) * time.Second,
	})
}
