package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is how far the runtime reaches.
type Mode string

// The modes.
const (
	LocalOnly          Mode = "local-only"
	RemoteEnabled      Mode = "remote-enabled"
	DistributedCluster Mode = "distributed-cluster"
)

// UnmarshalText accepts the name of a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	return choose(m, text, LocalOnly, RemoteEnabled, DistributedCluster)
}

// Cleanup is when the checkout of a task is removed.
type Cleanup string

// The ways of cleaning up.
const (
	CleanupAlways    Cleanup = "always"
	CleanupOnSuccess Cleanup = "onSuccess" // what failed is kept
	CleanupNever     Cleanup = "never"
)

// UnmarshalText accepts the name of a way of cleaning up.
func (c *Cleanup) UnmarshalText(text []byte) error {
	return choose(c, text, CleanupAlways, CleanupOnSuccess, CleanupNever)
}

// TransportType is how clients of the runtime are expected to reach it.
type TransportType string

// The transports.
const (
	TransportLocal     TransportType = "local"
	TransportHTTP      TransportType = "http"
	TransportWebSocket TransportType = "websocket"
	TransportGRPC      TransportType = "grpc"
)

// UnmarshalText accepts the name of a transport.
func (t *TransportType) UnmarshalText(text []byte) error {
	return choose(t, text, TransportLocal, TransportHTTP, TransportWebSocket, TransportGRPC)
}

// LogFormat is how log lines are written.
type LogFormat string

// The log formats.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText accepts the name of a format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return choose(f, text, LogAuto, LogText, LogJSON)
}

// LogLevel is the least severe level that is logged. It is a slog.Leveler.
type LogLevel slog.Level

// Level returns the level in slog's terms.
func (l LogLevel) Level() slog.Level { return slog.Level(l) }

// UnmarshalText accepts debug, info, warn and error.
func (l *LogLevel) UnmarshalText(text []byte) error {
	var name string
	if err := choose(&name, text, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return (*slog.Level)(l).UnmarshalText(text)
}

func choose[T ~string](into *T, text []byte, allowed ...T) error {
	if !slices.Contains(allowed, T(text)) {
		names := make([]string, len(allowed))
		for i, a := range allowed {
			names[i] = string(a)
		}
		return fmt.Errorf("%.40q is not one of %s", text, strings.Join(names, ", "))
	}
	*into = T(text)
	return nil
}

// Age is a time that has passed, in the environment in days, as 30d, or as a
// duration such as 12h.
type Age time.Duration

// UnmarshalText accepts a number of days and durations.
func (a *Age) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > maxRetention {
			return fmt.Errorf("%.40q is not a number of days from 0d to %dd", text, maxRetention)
		}
		*a = Age(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is not a number of days such as 30d, nor a duration such as 12h", text)
	}
	*a = Age(d)
	return nil
}

// List is a list of texts, in the environment with commas between them.
type List []string

// UnmarshalText splits text at commas, and drops spaces and what is empty.
func (l *List) UnmarshalText(text []byte) error {
	*l = nil
	for item := range strings.SplitSeq(string(text), ",") {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// Labels are names with values, in the environment as name=value with commas
// between them.
type Labels map[string]string

// UnmarshalText accepts labels.
func (l *Labels) UnmarshalText(text []byte) error {
	var items List
	_ = items.UnmarshalText(text) // accepts all
	*l = nil
	for _, item := range items {
		if err := l.Add(item); err != nil {
			return err
		}
	}
	return nil
}

// Add adds one label, name=value.
func (l *Labels) Add(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return fmt.Errorf("%q is not name=value", text)
	}
	if *l == nil {
		*l = Labels{}
	}
	(*l)[name] = strings.TrimSpace(value)
	return nil
}

// Prefixes is a list of networks, in the environment with commas between them.
type Prefixes []netip.Prefix

// UnmarshalText accepts networks in CIDR form, and addresses, which are networks
// of one.
func (p *Prefixes) UnmarshalText(text []byte) error {
	var items List
	_ = items.UnmarshalText(text) // accepts all
	*p = nil
	for _, item := range items {
		prefix, err := parsePrefix(item)
		if err != nil {
			return err
		}
		*p = append(*p, prefix)
	}
	return nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil || prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%.60q is not an address or network such as 10.0.0.0/8", text)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length; the network is %s", prefix, prefix.Masked())
	}
	return prefix, nil
}
