package app

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/coderclaw/runtime/internal/task"
)

type metrics struct {
	registry *prometheus.Registry
	claims   prometheus.Histogram
}

func newMetrics(pool *pgxpool.Pool, tasks *task.Service) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		claims: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "coderclaw_claim_latency_seconds",
			Help:    "Time between a task becoming claimable and a worker claiming it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 120, 600},
		}),
	}
	m.registry.MustRegister(m.claims, taskCounts{tasks},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for name, g := range map[string]struct {
		help string
		read func(*pgxpool.Stat) float64
	}{
		"acquired":    {"Connections in use.", func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) }},
		"idle":        {"Connections that are idle.", func(s *pgxpool.Stat) float64 { return float64(s.IdleConns()) }},
		"max":         {"The most connections that there can be.", func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) }},
		"waits_total": {"How often somebody had to wait for a connection.", func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) }},
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "coderclaw_database_connections_" + name, Help: g.help,
		}, func() float64 { return g.read(pool.Stat()) }))
	}
	return m
}

func (m *metrics) claimed(waited time.Duration) { m.claims.Observe(waited.Seconds()) }

// taskCounts shows how many tasks there are, by status, when it is asked.
type taskCounts struct{ tasks *task.Service }

var taskCountsDesc = prometheus.NewDesc("coderclaw_tasks", "Tasks by status.", []string{"status"}, nil)

func (c taskCounts) Describe(ch chan<- *prometheus.Desc) { ch <- taskCountsDesc }

func (c taskCounts) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	counts, err := c.tasks.Count(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(taskCountsDesc, err)
		return
	}
	for _, st := range task.Statuses {
		ch <- prometheus.MustNewConstMetric(taskCountsDesc, prometheus.GaugeValue, float64(counts[st]), string(st))
	}
}
