//! What is measured of the packets received from one party: loss, order and jitter.
//!
//! Sequences follow RFC 3550 §A.1, reported loss §A.3, jitter §A.8. How loss is spread is in
//! `losses.rs`, how it sounded in [`crate::emodel`], what the party says of us in `round_trip.rs`.

use crate::command::Quality;
use crate::emodel::{Conditions, VoiceCodec, mean_opinion_score};
use crate::losses::{LossPattern, Place, Window};
use crate::stream::clock_ticks;
use crate::tick::Tick;

/// RFC 3550 §A.1: a larger gap ahead is a restart, not loss.
const MAX_DROPOUT: u16 = 3_000;
/// RFC 3550 §A.1: what lies further behind is a restart, not reordering.
const MAX_MISORDER: u16 = 100;
/// A step in transit time above this many seconds is a new timeline (a sender that stopped its
/// timestamps while on hold), not jitter.
const TIMELINE_STEP_SECONDS: u32 = 1;

/// What one party sent, as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Reception {
    packets: u64,
    octets: u64,
    reordered: u64,
    duplicates: u64,
    codec: VoiceCodec,
    window: Window,
    source: Option<Source>,
    /// Of sources and restarts before the current one.
    earlier_expected: u64,
    jitter: Jitter,
}

/// The per-source state of RFC 3550 §A.1, without probation: the packets come from an address that
/// signalling named.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    base: u16,
    highest: u16,
    cycles: u32,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// The sequence number that would confirm a restart.
    restart_at: Option<u16>,
}

/// The interarrival jitter of RFC 3550 §A.8, and its mean over the call.
#[derive(Clone, Copy, Debug, Default)]
struct Jitter {
    transit: Option<(u32, u32)>,
    clock_rate: u32,
    ticks: f64,
    sum_ms: f64,
    max_ms: f64,
    samples: u64,
}

/// Everything that was measured of what one party sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Received {
    /// RTP packets.
    pub packets: u64,
    /// Their payload bytes.
    pub octets: u64,
    /// The voice codec of the last of them.
    pub codec: VoiceCodec,
    /// The fraction of the expected packets that never came, 0.0-1.0.
    pub loss: f64,
    /// How that loss is spread.
    pub pattern: LossPattern,
    /// Packets that came after one that was sent later.
    pub reordered: u64,
    /// Packets that came once more.
    pub duplicates: u64,
    /// Interarrival jitter (RFC 3550 §A.8) in milliseconds, averaged over the packets.
    pub jitter_mean_ms: f64,
    /// The highest that it was.
    pub jitter_max_ms: f64,
}

/// What a report block says of the source, without the times of sender reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptionReport {
    /// The source.
    pub ssrc: u32,
    /// The fraction lost since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost of this source so far; negative with duplicates.
    pub cumulative_lost: i32,
    /// The highest sequence number received, below the count of its cycles.
    pub extended_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
}

/// The fields of an RTP packet that reception is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it came.
    pub at: Tick,
    /// Its source.
    pub ssrc: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// Its timestamp, unless it does not tell when the packet was made (telephone-event repeats
    /// the one of the press's start).
    pub timestamp: Option<u32>,
    /// The clock rate of its payload type in Hz.
    pub clock_rate: u32,
    /// The bytes of its payload.
    pub octets: usize,
    /// Its codec, unless it is no voice.
    pub codec: Option<VoiceCodec>,
}

/// What a sequence number is to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequenced {
    /// So far ahead of the highest one before.
    Ahead(u16),
    /// So far behind it.
    Behind(u16),
    /// Far off: the first sign of a restart, or nothing.
    Stray,
    /// A restart.
    Restart,
}

impl Reception {
    /// Counts a packet.
    pub fn on_packet(&mut self, arrival: Arrival) {
        self.packets += 1;
        self.octets += arrival.octets as u64;
        self.codec = arrival.codec.unwrap_or(self.codec);
        let sequenced = match &mut self.source {
            Some(source) if source.ssrc == arrival.ssrc => source.on_sequence(arrival.sequence),
            Some(_) | None => Sequenced::Restart,
        };
        match sequenced {
            Sequenced::Ahead(0) => self.look_back(0),
            Sequenced::Ahead(steps) => self.window.advance(u32::from(steps)),
            Sequenced::Behind(steps) => self.look_back(steps),
            Sequenced::Stray => {}
            Sequenced::Restart => self.start(arrival),
        }
        if let Some(timestamp) = arrival.timestamp {
            self.jitter.on_packet(arrival, timestamp);
        }
    }

    /// What to report of the current source, `None` if nothing came from it since the last call.
    pub fn report(&mut self) -> Option<ReceptionReport> {
        let jitter = self.jitter.ticks as u32;
        let source = self.source.as_mut()?;
        let expected = source.expected();
        let expected_interval = expected - source.expected_prior;
        let received_interval = source.received - source.received_prior;
        if received_interval == 0 {
            return None;
        }
        source.expected_prior = expected;
        source.received_prior = source.received;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8).checked_div(expected_interval);
        let lost = expected.cast_signed() - source.received.cast_signed();
        Some(ReceptionReport {
            ssrc: source.ssrc,
            fraction_lost: fraction.map_or(0, |f| u8::try_from(f).unwrap_or(u8::MAX)),
            cumulative_lost: i32::try_from(lost.clamp(-0x80_0000, 0x7f_ffff)).unwrap_or(0),
            extended_sequence: source.cycles | u32::from(source.highest),
            jitter,
        })
    }

    /// Everything measured so far, `None` if nothing came.
    #[must_use]
    pub fn received(&self) -> Option<Received> {
        let source = self.source?;
        let expected = self.earlier_expected + source.expected();
        let pattern = self.window.pattern();
        let loss = if expected == 0 {
            0.0
        } else {
            (pattern.lost as f64 / expected as f64).min(1.0)
        };
        Some(Received {
            packets: self.packets,
            octets: self.octets,
            codec: self.codec,
            loss,
            pattern,
            reordered: self.reordered,
            duplicates: self.duplicates,
            jitter_mean_ms: self.jitter.mean_ms(),
            jitter_max_ms: self.jitter.max_ms,
        })
    }

    fn look_back(&mut self, behind: u16) {
        match self.window.look_back(u32::from(behind)) {
            Place::Late => self.reordered += 1,
            Place::Again => self.duplicates += 1,
        }
    }

    fn start(&mut self, arrival: Arrival) {
        if let Some(source) = self.source {
            self.earlier_expected += source.expected();
        }
        self.window.settle();
        self.window.advance(1);
        self.source = Some(Source {
            ssrc: arrival.ssrc,
            base: arrival.sequence,
            highest: arrival.sequence,
            cycles: 0,
            received: 1,
            expected_prior: 0,
            received_prior: 0,
            restart_at: None,
        });
        self.jitter.transit = None;
    }
}

impl Source {
    /// Where a packet stands in the sequence so far.
    fn on_sequence(&mut self, sequence: u16) -> Sequenced {
        let ahead = sequence.wrapping_sub(self.highest);
        let behind = ahead.wrapping_neg();
        if ahead < MAX_DROPOUT {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest = sequence;
            self.received += 1;
            return Sequenced::Ahead(ahead);
        }
        if behind <= MAX_MISORDER {
            self.received += 1;
            return Sequenced::Behind(behind);
        }
        // Two in a row after a jump: the sender restarted without changing its SSRC.
        if self.restart_at == Some(sequence) {
            return Sequenced::Restart;
        }
        self.restart_at = Some(sequence.wrapping_add(1));
        Sequenced::Stray
    }

    fn expected(&self) -> u64 {
        let span = u64::from(self.cycles) + u64::from(self.highest);
        (span + 1).saturating_sub(u64::from(self.base))
    }
}

impl Jitter {
    fn on_packet(&mut self, arrival: Arrival, timestamp: u32) {
        let ticks = clock_ticks(arrival.at.since_start(), arrival.clock_rate);
        let transit = ticks.wrapping_sub(timestamp);
        let previous = self.transit.replace((transit, arrival.clock_rate));
        if self.clock_rate != arrival.clock_rate {
            let scale = f64::from(arrival.clock_rate) / f64::from(self.clock_rate.max(1));
            self.ticks *= if self.clock_rate == 0 { 0.0 } else { scale };
            self.clock_rate = arrival.clock_rate;
        }
        let Some((before, rate)) = previous else {
            return;
        };
        let step = transit.wrapping_sub(before).cast_signed().unsigned_abs();
        let timeline_step = arrival.clock_rate.saturating_mul(TIMELINE_STEP_SECONDS);
        if rate != arrival.clock_rate || step > timeline_step {
            return;
        }
        self.ticks += (f64::from(step) - self.ticks) / 16.0;
        let now_ms = self.ticks * 1_000.0 / f64::from(arrival.clock_rate.max(1));
        self.sum_ms += now_ms;
        self.max_ms = self.max_ms.max(now_ms);
        self.samples += 1;
    }

    fn mean_ms(&self) -> f64 {
        if self.samples == 0 {
            0.0
        } else {
            self.sum_ms / self.samples as f64
        }
    }
}

impl Received {
    /// What the contract shows of it. `round_trip_ms`: to the party, if it is known.
    #[must_use]
    pub fn quality(&self, round_trip_ms: Option<f64>) -> Quality {
        Quality {
            packets: self.packets,
            loss: self.loss,
            jitter_ms: self.jitter_mean_ms,
            mos: mean_opinion_score(&Conditions {
                codec: self.codec,
                loss: self.loss,
                // Of random loss, a run is 1 / (1 - loss) packets long in the mean.
                burst_ratio: self.pattern.mean_run * (1.0 - self.loss),
                jitter_ms: self.jitter_mean_ms,
                round_trip_ms,
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn packet(at_us: u64, ssrc: u32, sequence: u16, timestamp: u32) -> Arrival {
        Arrival {
            at: Tick::from_start(Duration::from_micros(at_us)),
            ssrc,
            sequence,
            timestamp: Some(timestamp),
            clock_rate: 8_000,
            octets: 160,
            codec: Some(VoiceCodec::Pcma),
        }
    }

    fn quality(reception: &Reception) -> Quality {
        reception.received().unwrap().quality(None)
    }

    /// The n-th packet of a G.711 stream of 20 ms packets.
    fn nth(n: u32, ssrc: u32) -> Arrival {
        packet(u64::from(n) * 20_000, ssrc, n as u16, n * 160)
    }

    fn close(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within, "{a} is not {b} within {within}");
    }

    #[test]
    fn an_even_stream_without_loss_is_the_best_there_is() {
        let mut reception = Reception::default();
        assert!(reception.received().is_none());
        assert!(reception.report().is_none());
        (65_000..66_000).for_each(|n| reception.on_packet(nth(n, 1)));
        let quality = quality(&reception);
        assert_eq!(quality.packets, 1_000);
        close(quality.loss, 0.0, 0.0);
        close(quality.jitter_ms, 0.0, 1e-9);
        close(quality.mos, 4.41, 0.005);
        let report = reception.report().unwrap();
        assert_eq!(report.extended_sequence, 65_999);
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 0));
        assert!(
            reception.report().is_none(),
            "nothing since the last report"
        );
    }

    #[test]
    fn one_packet_in_ten_lost_is_ten_percent_also_over_a_wrap_and_a_new_source() {
        let mut reception = Reception::default();
        for n in (65_000..66_001).filter(|n| n % 10 != 5) {
            reception.on_packet(nth(n, 1));
        }
        assert_eq!(reception.report().unwrap().fraction_lost, 25);
        for n in (100..1_101).filter(|n| n % 10 != 5) {
            reception.on_packet(nth(n, 2));
        }
        let report = reception.report().unwrap();
        assert_eq!((report.ssrc, report.cumulative_lost), (2, 100));
        close(quality(&reception).loss, 0.1, 0.001);
    }

    #[test]
    fn reordering_is_no_loss_and_duplicates_make_none_negative() {
        let mut reception = Reception::default();
        for n in [0, 2, 1, 3, 3, 3] {
            reception.on_packet(nth(n, 1));
        }
        assert_eq!(reception.report().unwrap().cumulative_lost, -2);
        close(quality(&reception).loss, 0.0, 0.0);
    }

    #[test]
    fn a_restart_with_the_same_source_is_no_loss_but_a_stray_packet_is_ignored() {
        let mut reception = Reception::default();
        (0..100).for_each(|n| reception.on_packet(nth(n, 1)));
        reception.on_packet(nth(30_000, 1));
        (100..200).for_each(|n| reception.on_packet(nth(n, 1)));
        close(quality(&reception).loss, 0.0, 0.0);
        (20_000..20_100).for_each(|n| reception.on_packet(nth(n, 1)));
        let quality = quality(&reception);
        assert_eq!(quality.packets, 301);
        close(quality.loss, 0.0, 0.0);
    }

    #[test]
    fn jitter_is_the_running_mean_of_the_rfc_in_milliseconds() {
        // Every second packet 8 ms late: |D| is 64 ticks each time, so J nears 64 ticks = 8 ms.
        let mut reception = Reception::default();
        for n in 0..2_000 {
            let mut arrival = nth(n, 1);
            if n % 2 == 1 {
                arrival.at = arrival.at + Duration::from_millis(8);
            }
            reception.on_packet(arrival);
            if n == 2 {
                // J = 64/16, then + (64 - 4)/16.
                close(reception.jitter.ticks, 4.0 + 60.0 / 16.0, 1e-9);
            }
        }
        assert_eq!(reception.report().unwrap().jitter, 63);
        close(quality(&reception).jitter_ms, 8.0, 0.1);
    }

    #[test]
    fn a_sender_that_stopped_its_clock_makes_no_jitter_and_neither_do_key_presses() {
        let mut reception = Reception::default();
        (0..50).for_each(|n| reception.on_packet(nth(n, 1)));
        (50..60).for_each(|n| {
            reception.on_packet(Arrival {
                timestamp: None,
                ..nth(n, 1)
            });
        });
        for n in 60..100 {
            let mut arrival = nth(n, 1);
            arrival.at = arrival.at + Duration::from_secs(30);
            reception.on_packet(arrival);
        }
        close(quality(&reception).jitter_ms, 0.0, 1e-9);
    }

    #[test]
    fn late_packets_and_copies_are_told_apart_and_neither_is_loss() {
        let mut reception = Reception::default();
        for n in [0, 2, 1, 3, 3, 3, 6, 4, 5, 5] {
            reception.on_packet(nth(n, 1));
        }
        let received = reception.received().unwrap();
        assert_eq!((received.reordered, received.duplicates), (3, 3));
        assert_eq!((received.packets, received.octets), (10, 1_600));
        assert_eq!(received.pattern, LossPattern::default());
    }

    #[test]
    fn copies_of_some_packets_do_not_hide_that_others_never_came() {
        let mut reception = Reception::default();
        for n in (0..1_001).filter(|n| n % 10 != 5) {
            reception.on_packet(nth(n, 1));
            reception.on_packet(nth(n, 1));
        }
        assert!(
            reception.report().unwrap().cumulative_lost < 0,
            "as RFC 3550 counts"
        );
        close(quality(&reception).loss, 0.1, 0.001);
    }

    #[test]
    fn jitter_has_a_peak_beside_its_mean() {
        let mut reception = Reception::default();
        for n in 0..1_000 {
            let mut arrival = nth(n, 1);
            if (500..510).contains(&n) && n % 2 == 0 {
                arrival.at = arrival.at + Duration::from_millis(60);
            }
            reception.on_packet(arrival);
        }
        let received = reception.received().unwrap();
        assert!(received.jitter_max_ms > 20.0, "{received:?}");
        assert!(received.jitter_mean_ms < 2.0, "{received:?}");
    }

    proptest! {
        #[test]
        fn whatever_arrives_the_figures_stay_in_range(
            arrivals in proptest::collection::vec(
                (0u64..10_000_000, 0u32..3, any::<u16>(), any::<u32>(), any::<bool>(), 0u32..100_000),
                0..200),
        ) {
            let mut reception = Reception::default();
            for (at_us, ssrc, sequence, timestamp, timed, clock_rate) in arrivals {
                reception.on_packet(Arrival {
                    timestamp: timed.then_some(timestamp),
                    clock_rate,
                    ..packet(at_us, ssrc, sequence, timestamp)
                });
                reception.report();
                let quality = quality(&reception);
                prop_assert!((0.0..=1.0).contains(&quality.loss));
                prop_assert!((0.0..=1_000.0).contains(&quality.jitter_ms));
                prop_assert!((1.0..=4.5).contains(&quality.mos));
            }
        }
    }
}
