//! What `/metrics` answers: the recorder's counters, and the levels that crates keep themselves.

mod delivery;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maskline_media::Engine;
use maskline_net::SipNode;
use maskline_rtpengine::{InstanceStatus, Rtpengine};
use maskline_store::{Journal, SqliteStore};
use maskline_webhook::{DeliveryCounters, EgressClient};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::reports::ReportCounters;

/// Everything that is rendered.
pub(crate) struct Sources {
    pub(crate) recorder: PrometheusHandle,
    pub(crate) media: Arc<dyn Engine>,
    /// The daemons, if they carry the audio.
    pub(crate) rtpengine: Option<Arc<Rtpengine>>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) delivery: Arc<DeliveryCounters>,
    /// What goes to customers' servers.
    pub(crate) egress: EgressClient,
    pub(crate) reports: Arc<ReportCounters>,
    /// Events that were deleted for their age; `None`: they are kept for ever.
    pub(crate) forgotten: Option<Arc<AtomicU64>>,
    pub(crate) sip: SipNode,
}

impl Sources {
    /// Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let mut text = self.recorder.render();
        self.media(&mut text);
        self.rtpengine(&mut text);
        self.journal(&mut text);
        self.delivery(&mut text);
        self.reports(&mut text);
        self.targets(&mut text);
        text
    }

    /// Which addresses of trunks answer.
    fn targets(&self, text: &mut String) {
        head(text, "gauge", "maskline_trunk_target_up");
        for target in self.sip.targets() {
            let trunk = target.trunk.replace(['\\', '"', '\n'], "_");
            let transport = target.transport.as_str().to_ascii_lowercase();
            let _ = writeln!(
                text,
                "maskline_trunk_target_up{{trunk=\"{trunk}\",target=\"{transport}:{}\"}} {}",
                target.addr,
                u8::from(target.up),
            );
        }
    }

    fn media(&self, text: &mut String) {
        let counters = self.media.counters();
        line(text, "gauge", "maskline_media_sessions", counters.sessions);
        line(
            text,
            "gauge",
            "maskline_media_ports_in_use",
            counters.ports_in_use,
        );
        line(
            text,
            "counter",
            "maskline_media_ports_passed_over_total",
            counters.ports_passed_over,
        );
        line(
            text,
            "counter",
            "maskline_media_send_failures_total",
            counters.send_failures,
        );
        line(
            text,
            "counter",
            "maskline_media_rtp_received_total",
            counters.relay.rtp_received,
        );
        line(
            text,
            "counter",
            "maskline_media_rtp_forwarded_total",
            counters.relay.rtp_forwarded,
        );
        line(
            text,
            "counter",
            "maskline_media_rtp_made_total",
            counters.relay.rtp_made,
        );
        line(
            text,
            "counter",
            "maskline_media_rtcp_received_total",
            counters.relay.rtcp_received,
        );
        line(
            text,
            "counter",
            "maskline_media_rtcp_sent_total",
            counters.relay.rtcp_sent,
        );
        line(
            text,
            "counter",
            "maskline_media_one_way_total",
            counters.relay.one_way,
        );
        line(
            text,
            "counter",
            "maskline_media_presses_total",
            counters.relay.presses,
        );
        line(
            text,
            "counter",
            "maskline_media_presses_suppressed_total",
            counters.relay.presses_suppressed,
        );
        line(
            text,
            "counter",
            "maskline_media_presses_discarded_total",
            counters.presses_discarded,
        );
        head(text, "counter", "maskline_media_dropped_total");
        for (reason, packets) in counters.relay.drops.iter() {
            let reason = reason.label();
            let _ = writeln!(
                text,
                "maskline_media_dropped_total{{reason=\"{reason}\"}} {packets}"
            );
        }
    }

    fn rtpengine(&self, text: &mut String) {
        let Some(engine) = &self.rtpengine else {
            return;
        };
        let instances = engine.instances();
        for (kind, name, value) in [
            (
                "gauge",
                "maskline_rtpengine_up",
                (|it| u64::from(it.up)) as fn(&InstanceStatus) -> u64,
            ),
            ("gauge", "maskline_rtpengine_sessions", |it| it.sessions),
            ("counter", "maskline_rtpengine_requests_total", |it| {
                it.requests
            }),
            ("counter", "maskline_rtpengine_failures_total", |it| {
                it.failures
            }),
            ("counter", "maskline_rtpengine_leftovers_total", |it| {
                it.leftovers
            }),
        ] {
            head(text, kind, name);
            for instance in &instances {
                let (address, value) = (instance.address, value(instance));
                let _ = writeln!(text, "{name}{{instance=\"{address}\"}} {value}");
            }
        }
    }

    fn journal(&self, text: &mut String) {
        let counters = self.journal.counters();
        for (kind, name, value) in [
            (
                "counter",
                "maskline_journal_commits_total",
                &counters.commits,
            ),
            (
                "counter",
                "maskline_journal_entries_total",
                &counters.entries,
            ),
            ("counter", "maskline_journal_events_total", &counters.events),
            (
                "counter",
                "maskline_journal_commit_microseconds_total",
                &counters.commit_us,
            ),
            (
                "counter",
                "maskline_journal_failures_total",
                &counters.failures,
            ),
            (
                "counter",
                "maskline_journal_rejected_total",
                &counters.rejected,
            ),
            (
                "counter",
                "maskline_journal_refused_total",
                &counters.refused,
            ),
            (
                "gauge",
                "maskline_journal_tail_entries",
                &counters.tail_entries,
            ),
            ("gauge", "maskline_journal_tail_bytes", &counters.tail_bytes),
            ("gauge", "maskline_journal_down", &counters.down),
        ] {
            line(text, kind, name, read(value));
        }
        let bounds = (0..counters.group_sizes.len() - 1).map(|place| 1_u64 << place);
        let name = "maskline_journal_group_entries";
        let sum = read(&counters.entries).to_string();
        histogram(
            text,
            name,
            "",
            bounds.map(|it| it.to_string()),
            &counters.group_sizes,
            &sum,
        );
        let writer = self.store.counters();
        for (name, value) in [
            ("maskline_store_transactions_total", &writer.transactions),
            ("maskline_store_writes_total", &writer.writes),
            ("maskline_store_failures_total", &writer.failures),
        ] {
            line(text, "counter", name, read(value));
        }
    }
}

impl Sources {
    /// Other switches' calls.
    fn reports(&self, text: &mut String) {
        let counters = &self.reports;
        for (kind, name, value) in [
            (
                "counter",
                "maskline_reports_accepted_total",
                &counters.accepted,
            ),
            (
                "counter",
                "maskline_reports_repeated_total",
                &counters.repeated,
            ),
            ("counter", "maskline_reports_busy_total", &counters.busy),
            ("counter", "maskline_reports_failed_total", &counters.failed),
            ("counter", "maskline_reports_groups_total", &counters.groups),
            (
                "counter",
                "maskline_reports_closed_idle_total",
                &counters.closed,
            ),
            ("gauge", "maskline_reports_waiting", &counters.waiting),
        ] {
            line(text, kind, name, read(value));
        }
    }
}

fn read(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn line(text: &mut String, kind: &str, name: &str, value: u64) {
    head(text, kind, name);
    // Writing to a String can't fail.
    let _ = writeln!(text, "{name} {value}");
}

fn head(text: &mut String, kind: &str, name: &str) {
    let _ = writeln!(text, "# TYPE {name} {kind}");
}

/// A histogram's samples under one set of labels, each `name="value"` with a comma at its end. The
/// last of `counts` is above all bounds.
fn histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    bounds: impl Iterator<Item = String>,
    counts: &[AtomicU64],
    sum: &str,
) {
    if labels.is_empty() {
        head(text, "histogram", name);
    }
    let mut all = 0;
    for (bound, count) in bounds.chain(std::iter::once("+Inf".to_owned())).zip(counts) {
        all += read(count);
        let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {all}");
    }
    let labels = match labels.trim_end_matches(',') {
        "" => String::new(),
        labels => format!("{{{labels}}}"),
    };
    let _ = writeln!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {all}");
}
