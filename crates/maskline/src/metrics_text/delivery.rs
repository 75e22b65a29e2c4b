//! Deliveries in `/metrics`: by type of webhook, never by sub-account, so that their number is bounded.

use std::fmt::Write as _;

use maskline_events::WebhookType;
use maskline_webhook::{LAG_BOUNDS_MS, TypeCounters};

use super::{Sources, head, histogram, line, read};
use crate::node::wall;

type Value<'a> = dyn Fn(&TypeCounters) -> u64 + 'a;

/// A VCA is asked, not delivered.
fn delivered_types() -> impl Iterator<Item = WebhookType> {
    let all = WebhookType::ALL.into_iter();
    all.filter(|it| *it != WebhookType::Vca)
}

impl Sources {
    pub(super) fn delivery(&self, text: &mut String) {
        if let Some(forgotten) = &self.forgotten {
            let name = "maskline_delivery_events_deleted_total";
            line(text, "counter", name, read(forgotten));
        }
        let counters = &self.delivery;
        for (kind, name, value) in [
            ("counter", "parked_total", &counters.parked),
            ("counter", "disabled_total", &counters.disabled),
            ("counter", "postponed_total", &counters.postponed),
            ("counter", "broken_rows_total", &counters.broken_rows),
            ("counter", "batches_missed_total", &counters.missed),
            ("gauge", "events", &counters.events),
            ("gauge", "lanes", &counters.lanes),
            ("gauge", "parked", &counters.parked_now),
            ("gauge", "in_flight", &counters.in_flight),
            ("gauge", "slow", &counters.slow),
            ("gauge", "outcomes_unrecorded", &counters.unrecorded),
            ("gauge", "behind", &counters.behind),
        ] {
            line(
                text,
                kind,
                &format!("maskline_delivery_{name}"),
                read(value),
            );
        }
        let name = "maskline_delivery_breakers";
        head(text, "gauge", name);
        for (state, level) in [
            ("open", &counters.breakers_open),
            ("half_open", &counters.breakers_half_open),
        ] {
            let _ = writeln!(text, "{name}{{state=\"{state}\"}} {}", read(level));
        }
        self.by_type(text);
        let name = "maskline_egress_connections";
        head(text, "gauge", name);
        let levels = self.egress.connections();
        for (state, level) in [("used", levels.used), ("kept", levels.kept)] {
            let _ = writeln!(text, "{name}{{state=\"{state}\"}} {level}");
        }
        let name = "maskline_egress_lookups";
        head(text, "gauge", name);
        let _ = writeln!(text, "{name} {}", self.egress.lookups());
    }

    fn by_type(&self, text: &mut String) {
        let of = |kind| self.delivery.of(kind);
        let name = "maskline_delivery_attempts_total";
        head(text, "counter", name);
        for kind in delivered_types() {
            for (result, value) in [
                ("delivered", &of(kind).delivered),
                ("refused", &of(kind).refused),
                ("unanswered", &of(kind).unanswered),
            ] {
                let (kind, value) = (kind.as_str(), read(value));
                let _ = writeln!(
                    text,
                    "{name}{{type=\"{kind}\",result=\"{result}\"}} {value}"
                );
            }
        }
        let now = wall();
        let values: [(&str, &str, &Value<'_>); 4] = [
            ("counter", "retries_total", &|it| read(&it.retries)),
            ("counter", "no_endpoint_total", &|it| read(&it.no_endpoint)),
            ("counter", "dead_total", &|it| read(&it.dead)),
            ("gauge", "oldest_pending_milliseconds", &|it| {
                it.oldest_pending_ms(now)
            }),
        ];
        for (metric, name, value) in values {
            let name = format!("maskline_delivery_{name}");
            head(text, metric, &name);
            for kind in delivered_types() {
                let value = value(of(kind));
                let _ = writeln!(text, "{name}{{type=\"{}\"}} {value}", kind.as_str());
            }
        }
        let name = "maskline_delivery_lag_seconds";
        head(text, "histogram", name);
        for kind in delivered_types() {
            let labels = format!("type=\"{}\",", kind.as_str());
            let bounds = LAG_BOUNDS_MS.iter().map(|bound| seconds((*bound).into()));
            let sum = seconds(read(&of(kind).lag_ms));
            histogram(text, name, &labels, bounds, &of(kind).lags, &sum);
        }
    }
}

/// Milliseconds in seconds, without what is not needed of the fraction.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_histogram_s_counts_add_up_from_bound_to_bound() {
        let counts: Vec<AtomicU64> = [3, 0, 4].into_iter().map(AtomicU64::new).collect();
        let bounds = [2, 1_500].into_iter().map(seconds);
        let mut text = String::new();
        histogram(
            &mut text,
            "lag",
            "type=\"VCS\",",
            bounds,
            &counts,
            &seconds(12_340),
        );
        let expected = "lag_bucket{type=\"VCS\",le=\"0.002\"} 3\n\
            lag_bucket{type=\"VCS\",le=\"1.5\"} 3\n\
            lag_bucket{type=\"VCS\",le=\"+Inf\"} 7\n\
            lag_sum{type=\"VCS\"} 12.34\nlag_count{type=\"VCS\"} 7\n";
        assert_eq!(text, expected);
        assert_eq!(seconds(86_400_000), "86400");
        assert_eq!(seconds(0), "0");
    }
}
