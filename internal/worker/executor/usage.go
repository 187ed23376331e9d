package executor

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"regexp"
	"strconv"

	"github.com/coderclaw/runtime/api"
)

const (
	maxCount = 1e15 // of tokens or tool calls
	maxMoney = 1e9  // less than this, in units of currency
	// usualCurrency is that of costs without one.
	usualCurrency = "USD"
)

var currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)

// spent is what an agent says that it has used in all.
type spent struct {
	Cost      json.Number `json:"cost"`
	Currency  string      `json:"currency"`
	Tokens    int64       `json:"tokens"`
	ToolCalls int64       `json:"toolCalls"`
}

// usage returns it as servers take it; not what is negative or too much.
func (s spent) usage() (u api.Usage, ok bool) {
	if s.Tokens < 0 || s.Tokens > maxCount || s.ToolCalls < 0 || s.ToolCalls > maxCount {
		return u, false
	}
	u.Tokens, u.ToolCalls = s.Tokens, s.ToolCalls
	if s.Cost == "" {
		return u, true
	}
	amount, err := s.Cost.Float64()
	if err != nil {
		return u, false
	}
	cost, ok := costOf(amount, s.Currency)
	u.Costs = []api.Cost{cost}
	return u, ok
}

// costOf is an amount of money in decimals, of which a float64 holds as many as
// there are: fifteen.
func costOf(amount float64, currency string) (api.Cost, bool) {
	currency = cmp.Or(currency, usualCurrency)
	if !(amount >= 0 && math.Round(amount*1e6) < maxMoney*1e6) || !currencyForm.MatchString(currency) {
		return api.Cost{}, false
	}
	return api.Cost{Amount: strconv.FormatFloat(amount, 'f', 6, 64), Currency: currency}, true
}

// usageSource names a session of an agent, which several attempts may continue, as
// a source of use.
func usageSource(session string) string {
	sum := sha256.Sum256([]byte(session))
	return "session:" + hex.EncodeToString(sum[:16])
}
