package app

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/coderclaw/runtime/internal/audit"
	"github.com/coderclaw/runtime/internal/task"
	"github.com/coderclaw/runtime/internal/webhook"
)

// newClaimLatency measures how long tasks wait for a worker.
func newClaimLatency() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "coderclaw_claim_latency_seconds",
		Help:    "Time between a task becoming claimable and a worker claiming it.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 120, 600},
	})
}

func newMetrics(pool *pgxpool.Pool, claims prometheus.Histogram, tasks *task.Service, webhooks *webhook.Service, log *audit.Log) *prometheus.Registry {
	m := prometheus.NewRegistry()
	m.MustRegister(claims, taskCounts{tasks}, webhookNumbers{webhooks}, auditNumbers{log},
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
		m.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "coderclaw_database_connections_" + name, Help: g.help,
		}, func() float64 { return g.read(pool.Stat()) }))
	}
	return m
}

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

// webhookNumbers shows how webhooks do.
type webhookNumbers struct{ webhooks *webhook.Service }

var (
	webhookAttemptsDesc = prometheus.NewDesc("coderclaw_webhook_attempts_total",
		"Attempts of this server to send an event, by outcome: delivered, retried (another one follows), dead (given up).", []string{"outcome"}, nil)
	webhookOldestDesc = prometheus.NewDesc("coderclaw_webhook_oldest_due_seconds", "For how long the delivery that has waited longest could have been sent.", nil, nil)
)

func (n webhookNumbers) Describe(ch chan<- *prometheus.Desc) {
	ch <- webhookAttemptsDesc
	ch <- webhookOldestDesc
}

func (n webhookNumbers) Collect(ch chan<- prometheus.Metric) {
	stats := n.webhooks.Stats()
	for outcome, count := range map[string]int64{"delivered": stats.Delivered, "retried": stats.Retried, "dead": stats.Dead} {
		ch <- prometheus.MustNewConstMetric(webhookAttemptsDesc, prometheus.CounterValue, float64(count), outcome)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	oldest, err := n.webhooks.OldestDue(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(webhookOldestDesc, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(webhookOldestDesc, prometheus.GaugeValue, oldest.Seconds())
}

// auditNumbers shows how the audit log is.
type auditNumbers struct{ log *audit.Log }

// auditMetrics are what of it is shown; of those that count, the name ends in
// _total.
var auditMetrics = []auditMetric{
	ofAudit("recorded_total", "Entries written by themselves: denials, errors, and who looked.", func(s audit.Stats) float64 { return float64(s.Recorded) }),
	ofAudit("lost_total", "Denials that could not be written, and are in the server's own log instead.", func(s audit.Stats) float64 { return float64(s.Lost) }),
	ofAudit("held_back_total", "Failed authentications that stand in an entry with others.", func(s audit.Stats) float64 { return float64(s.HeldBack) }),
	ofAudit("sealed_total", "Entries that this server has sealed.", func(s audit.Stats) float64 { return float64(s.Sealed) }),
	ofAudit("entries", "Sealed entries of the log, as this server saw it last.", func(s audit.Stats) float64 { return float64(s.Size) }),
	ofAudit("unsealed_age_seconds", "For how long there have been entries that are not sealed.", func(s audit.Stats) float64 { return s.UnsealedAge.Seconds() }),
	ofAudit("seal_failures_total", "Attempts to seal that failed.", func(s audit.Stats) float64 { return float64(s.SealFailures) }),
	ofAudit("checkpoint_file_entries", "Size of the log in the newest checkpoint of the file.", func(s audit.Stats) float64 { return float64(s.FileSize) }),
	ofAudit("checkpoint_file_failures_total", "Checkpoints that could not be written to the file.", func(s audit.Stats) float64 { return float64(s.FileFailures) }),
	ofAudit("witness_entries", "Size of the log in the newest checkpoint that the witness has.", func(s audit.Stats) float64 { return float64(s.PostedSize) }),
	ofAudit("witness_failures_total", "Checkpoints that the witness did not take.", func(s audit.Stats) float64 { return float64(s.PostFailures) }),
	ofAudit("tampered", "1 if the database contradicts what was sealed.", func(s audit.Stats) float64 {
		if s.Tampered {
			return 1
		}
		return 0
	}),
}

type auditMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(audit.Stats) float64
}

func ofAudit(name, help string, read func(audit.Stats) float64) auditMetric {
	m := auditMetric{prometheus.NewDesc("coderclaw_audit_"+name, help, nil, nil), prometheus.GaugeValue, read}
	if strings.HasSuffix(name, "_total") {
		m.kind = prometheus.CounterValue
	}
	return m
}

func (a auditNumbers) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range auditMetrics {
		ch <- m.desc
	}
}

func (a auditNumbers) Collect(ch chan<- prometheus.Metric) {
	stats := a.log.Stats()
	for _, m := range auditMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.read(stats))
	}
}
