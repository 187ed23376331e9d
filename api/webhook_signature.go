package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of what a webhook is sent, by Standard Webhooks.
const (
	WebhookIDHeader        = "Webhook-Id"
	WebhookTimestampHeader = "Webhook-Timestamp"
	WebhookSignatureHeader = "Webhook-Signature"
)

const (
	// WebhookSecretPrefix is what secrets of webhooks begin with.
	WebhookSecretPrefix = "whsec_"
	// webhookTolerance is how far the clocks of sender and receiver may differ,
	// so that what was overheard cannot be sent again later.
	webhookTolerance = 5 * time.Minute
	signatureVersion = "v1,"
)

// SignWebhook returns the signature of a body that is sent at a time with an
// id, by the scheme v1 of Standard Webhooks: v1,<base64 of HMAC-SHA256>. The
// secret is whsec_ and base64.
func SignWebhook(secret, id string, at time.Time, body []byte) (string, error) {
	sum, err := webhookSum(secret, id, strconv.FormatInt(at.Unix(), 10), body)
	if err != nil {
		return "", err
	}
	return signatureVersion + base64.StdEncoding.EncodeToString(sum), nil
}

// VerifyWebhook returns nil if the body and the headers that it came with were
// signed with the secret, no longer than five minutes ago. Receivers should keep
// the id for as long, and take each once.
func VerifyWebhook(secret string, header http.Header, body []byte) error {
	id, at := header.Get(WebhookIDHeader), header.Get(WebhookTimestampHeader)
	if id == "" || at == "" {
		return errors.New("the webhook has no id or no timestamp")
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return errors.New("the webhook's timestamp is no number of seconds")
	}
	if age := time.Since(time.Unix(seconds, 0)); age > webhookTolerance || age < -webhookTolerance {
		return fmt.Errorf("the webhook was sent at %s, too far from now", time.Unix(seconds, 0).UTC().Format(time.RFC3339))
	}
	sum, err := webhookSum(secret, id, at, body)
	if err != nil {
		return err
	}
	for signature := range strings.FieldsSeq(header.Get(WebhookSignatureHeader)) {
		text, ok := strings.CutPrefix(signature, signatureVersion)
		if got, err := base64.StdEncoding.DecodeString(text); ok && err == nil && hmac.Equal(got, sum) {
			return nil
		}
	}
	return errors.New("no signature of the webhook is by this secret")
}

func webhookSum(secret, id, at string, body []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, WebhookSecretPrefix))
	if err != nil || len(key) == 0 {
		return nil, errors.New("the secret of a webhook is whsec_ and base64")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return mac.Sum(nil), nil
}
