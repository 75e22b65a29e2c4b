//! What a party's reports tell: how long the way to it is, and how well it hears us (RFC 3550
//! §6.4.1).
//!
//! What lives elsewhere: reading the reports ([`crate::rtcp`]).

use std::collections::VecDeque;
use std::time::Duration;

use crate::rtcp::ReportBlock;
use crate::tick::Tick;

/// How many of our last sender reports a party's report may answer.
const REMEMBERED: usize = 4;
/// A longer round trip is a report that does not fit.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(30);

/// What one party says of what we send it.
#[derive(Debug, Default)]
pub(crate) struct FarEnd {
    /// Our sender reports: the middle of their NTP timestamp, and when they left.
    sent: VecDeque<(u32, Tick)>,
    round_trip: Option<RoundTrip>,
    report: Option<FarReport>,
}

/// Round trips to one party, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrip {
    /// How many were measured.
    pub samples: u64,
    /// The shortest.
    pub min_ms: f64,
    /// Their mean.
    pub mean_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// The party's last report about what we sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FarReport {
    /// The fraction that it lost of all that we sent, 0.0-1.0.
    pub loss: f64,
    /// Its interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// The mean opinion score of that, 1.0-4.5, where an engine tells it.
    pub mos: Option<f64>,
}

impl FarEnd {
    /// A sender report of ours leaves, with this in the middle of its NTP timestamp.
    pub(crate) fn reported(&mut self, now: Tick, middle: u32) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((middle, now));
    }

    /// The party reports about our stream, of which so many packets were sent at this clock rate.
    /// What it says of a report that we did not send is not believed.
    pub(crate) fn on_block(&mut self, now: Tick, block: &ReportBlock, sent: u32, clock_rate: u32) {
        let lost = f64::from(block.cumulative_lost.max(0));
        self.report = Some(FarReport {
            loss: (lost / f64::from(sent.max(1))).min(1.0),
            jitter_ms: f64::from(block.jitter) * 1_000.0 / f64::from(clock_rate.max(1)),
            mos: None,
        });
        if block.last_report == 0 {
            return;
        }
        let ours = self
            .sent
            .iter()
            .find(|(middle, _)| *middle == block.last_report);
        let Some((_, left)) = ours else {
            return;
        };
        let held = Duration::from_secs_f64(f64::from(block.delay_since_last_report) / 65_536.0);
        let passed = now.since(*left);
        // Clocks are coarse: a report that claims to be held a little longer than possible is 0 away.
        if held > passed + Duration::from_millis(10) || passed > MAX_ROUND_TRIP + held {
            return;
        }
        let ms = passed.saturating_sub(held).as_secs_f64() * 1_000.0;
        let seen = self.round_trip.get_or_insert(RoundTrip {
            samples: 0,
            min_ms: ms,
            mean_ms: ms,
            max_ms: ms,
        });
        seen.samples += 1;
        seen.min_ms = seen.min_ms.min(ms);
        seen.max_ms = seen.max_ms.max(ms);
        seen.mean_ms += (ms - seen.mean_ms) / seen.samples as f64;
    }

    pub(crate) const fn round_trip(&self) -> Option<RoundTrip> {
        self.round_trip
    }

    pub(crate) const fn report(&self) -> Option<FarReport> {
        self.report
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    fn block(last_report: u32, held_ms: u32) -> ReportBlock {
        ReportBlock {
            ssrc: 1,
            fraction_lost: 0,
            cumulative_lost: 25,
            extended_sequence: 1_000,
            jitter: 80,
            last_report,
            delay_since_last_report: held_ms * 65_536 / 1_000,
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 0.1, "{a} is not {b}");
    }

    #[test]
    fn the_round_trip_is_what_is_left_of_the_time_when_the_far_side_took_its_share() {
        let mut far = FarEnd::default();
        far.reported(at(1_000), 77);
        far.on_block(at(4_040), &block(77, 3_000), 1_000, 8_000);
        far.reported(at(6_000), 78);
        far.on_block(at(8_120), &block(78, 2_000), 1_000, 8_000);
        let seen = far.round_trip().unwrap();
        assert_eq!(seen.samples, 2);
        close(seen.min_ms, 40.0);
        close(seen.mean_ms, 80.0);
        close(seen.max_ms, 120.0);
        let report = far.report().unwrap();
        close(report.loss, 0.025);
        close(report.jitter_ms, 10.0);
    }

    #[test]
    fn a_report_that_fits_none_of_ours_gives_no_round_trip() {
        let mut far = FarEnd::default();
        far.on_block(at(4_000), &block(0, 0), 0, 0);
        far.on_block(at(4_000), &block(99, 0), 1, 8_000);
        far.reported(at(5_000), 77);
        far.on_block(at(5_100), &block(77, 60_000), 1, 8_000);
        far.on_block(at(65_000), &block(77, 0), 1, 8_000);
        assert_eq!(far.round_trip(), None);
        close(far.report().unwrap().loss, 1.0);
        (0..9).for_each(|n| far.reported(at(70_000), n));
        assert_eq!(far.sent.len(), REMEMBERED);
    }
}
