package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
)

// authenticate is the action of a request with a credential that is none.
const authenticate = "request.authenticate"

const (
	// floodWindow is the time in which an address may fail floodLimit times
	// before its failures share an entry.
	floodWindow = time.Minute
	floodLimit  = 10
	// maxFlooders bounds how many addresses are told apart; all others share.
	maxFlooders = 4096
)

// floods holds back what would let anyone who can reach the server fill the
// log. The zero value is ready for use.
type floods struct {
	mu   sync.Mutex
	from map[netip.Prefix]*flood
}

// flood is what came from one address since a time.
type flood struct {
	since time.Time
	count int
	first Entry // that was held back
	last  time.Time
}

// admit reports whether the entry is to be written by itself. Otherwise it has
// been counted.
func (f *floods) admit(e Entry, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.from == nil {
		f.from = map[netip.Prefix]*flood{}
	}
	origin := network(e.Address)
	o := f.from[origin]
	if o == nil {
		if len(f.from) >= maxFlooders {
			f.forget(now)
		}
		if len(f.from) >= maxFlooders {
			origin = netip.Prefix{}
			o = f.from[origin]
		}
	}
	if o == nil || o.count <= floodLimit && now.Sub(o.since) >= floodWindow {
		o = &flood{since: now}
		f.from[origin] = o
	}
	if o.count++; o.count <= floodLimit {
		return true
	}
	if o.count == floodLimit+1 {
		o.first = e
	}
	o.last = now
	return false
}

// forget drops those whose time is over and that hold nothing back.
func (f *floods) forget(now time.Time) {
	for origin, o := range f.from {
		if o.count <= floodLimit && now.Sub(o.since) >= floodWindow {
			delete(f.from, origin)
		}
	}
}

// pending reports whether something is held back that is not due yet.
func (f *floods) pending(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.from {
		if o.count > floodLimit && now.Sub(o.since) < floodWindow {
			return true
		}
	}
	return false
}

// release returns an entry for each flood whose time is over, or for all if
// now is zero.
func (f *floods) release(now time.Time) []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	var entries []Entry
	for origin, o := range f.from {
		if !now.IsZero() && now.Sub(o.since) < floodWindow {
			continue
		}
		delete(f.from, origin)
		if o.count <= floodLimit {
			continue
		}
		e := o.first
		e.ID, e.CreatedAt = uuid.Must(uuid.NewV7()), time.Now().UTC().Truncate(time.Microsecond)
		e.RequestID = ""
		from := "many addresses"
		if origin.IsValid() {
			from = origin.String()
		}
		e.Reason = fmt.Sprintf("%d more failed authentications from %s; the first: %s", o.count-floodLimit, from, e.Reason)
		details, err := json.Marshal(struct {
			Count int       `json:"count"`
			From  string    `json:"from"`
			Since time.Time `json:"since"`
			Until time.Time `json:"until"`
		}{o.count - floodLimit, from, o.first.CreatedAt, o.last.UTC()})
		if err == nil {
			e.Details = details
		}
		entries = append(entries, e)
	}
	return entries
}

// network is what one attacker has at least: an IPv4 address, or a /64 of
// IPv6. The zero Prefix stands for what is no address.
func network(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // bits fit
	return p
}
