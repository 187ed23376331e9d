package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	streams  prometheus.Gauge
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coderclaw_http_requests_total", Help: "Requests answered.",
		}, []string{"method", "route", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coderclaw_http_request_duration_seconds", Help: "Time to answer a request, streams excepted.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "coderclaw_open_streams", Help: "Event streams that are open.",
		}),
	}
	registry.MustRegister(m.requests, m.latency, m.streams)
	return m
}

// request counts an answer. Labels come from a bounded set: what matched no
// route shares one label, whatever path it asked for.
func (m *metrics) request(method, route string, status int, took time.Duration, contentType string) {
	if route == "" {
		method, route = "", "none"
	}
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	if !strings.HasPrefix(contentType, "text/event-stream") {
		m.latency.WithLabelValues(method, route).Observe(took.Seconds())
	}
}

// MetricsHandler serves the metrics in the Prometheus text format.
func (s *Server) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{
		Registry: s.metrics.registry, ErrorHandling: promhttp.ContinueOnError, // without a database there is still the rest
	})
}
