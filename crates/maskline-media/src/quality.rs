//! What is measured of the packets received from one party: loss, jitter and an estimate of how
//! it sounded.
//!
//! Loss follows RFC 3550 §A.1 and §A.3, jitter §A.8, the mean opinion score ITU-T G.107.

use crate::command::Quality;
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
    source: Option<Source>,
    /// Of sources and restarts before the current one.
    earlier_expected: u64,
    earlier_received: u64,
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
    samples: u64,
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
}

impl Reception {
    /// Counts a packet.
    pub fn on_packet(&mut self, arrival: Arrival) {
        self.packets += 1;
        let same = match &mut self.source {
            Some(source) if source.ssrc == arrival.ssrc => source.on_sequence(arrival.sequence),
            Some(_) | None => false,
        };
        if !same {
            self.start(arrival);
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

    /// The figures of the whole call, `None` if nothing came.
    #[must_use]
    pub fn quality(&self) -> Option<Quality> {
        let source = self.source?;
        let expected = self.earlier_expected + source.expected();
        let received = self.earlier_received + source.received;
        let loss = if expected == 0 {
            0.0
        } else {
            expected.saturating_sub(received) as f64 / expected as f64
        };
        let jitter_ms = self.jitter.mean_ms();
        Some(Quality {
            packets: self.packets,
            loss,
            jitter_ms,
            mos: mean_opinion_score(loss, jitter_ms),
        })
    }

    fn start(&mut self, arrival: Arrival) {
        if let Some(source) = self.source {
            self.earlier_expected += source.expected();
            self.earlier_received += source.received;
        }
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
    /// Whether the packet belongs to the sequence so far; `false` asks for a restart at it.
    fn on_sequence(&mut self, sequence: u16) -> bool {
        let ahead = sequence.wrapping_sub(self.highest);
        if ahead < MAX_DROPOUT {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest = sequence;
        } else if ahead.wrapping_neg() > MAX_MISORDER {
            // Two in a row after a jump: the sender restarted without changing its SSRC.
            if self.restart_at == Some(sequence) {
                return false;
            }
            self.restart_at = Some(sequence.wrapping_add(1));
            return true;
        }
        self.received += 1;
        true
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
        self.sum_ms += self.ticks * 1_000.0 / f64::from(arrival.clock_rate.max(1));
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

/// R of a connection without delay and loss: ITU-T G.107 with all its default values.
const BEST_R: f64 = 93.2;
/// ITU-T G.113 Appendix I: equipment impairment of G.711.
const IE_G711: f64 = 0.0;
/// ITU-T G.113 Appendix I: robustness of G.711 with packet loss concealment (4.3 without), which
/// phones have.
const BPL_G711: f64 = 25.1;
/// Loss is taken as random: bursts are not measured.
const BURST_R: f64 = 1.0;
/// One-way delay that cannot be measured at one point: the network to both phones, packetisation,
/// and a jitter buffer's least depth.
const ASSUMED_DELAY_MS: f64 = 100.0;
/// A jitter buffer holds about twice the jitter, and never more than this.
const MAX_JITTER_BUFFER_MS: f64 = 300.0;

/// The mean opinion score, 1.0-4.5, by the E-model of ITU-T G.107.
///
/// `loss` is a fraction, `jitter_ms` the mean jitter. Of the model's inputs only loss and delay
/// vary, the latter with the jitter buffer that the jitter asks for; the codec is taken as G.711
/// with concealment, echo as cancelled. Never rises with `loss` or `jitter_ms`.
#[must_use]
pub fn mean_opinion_score(loss: f64, jitter_ms: f64) -> f64 {
    let buffer_ms = (2.0 * jitter_ms.max(0.0)).min(MAX_JITTER_BUFFER_MS);
    let r = BEST_R
        - delay_impairment(ASSUMED_DELAY_MS + buffer_ms)
        - loss_impairment(loss.clamp(0.0, 1.0) * 100.0);
    score_of_rating(r)
}

/// Ie,eff of ITU-T G.107.
fn loss_impairment(loss_percent: f64) -> f64 {
    IE_G711 + (95.0 - IE_G711) * loss_percent / (loss_percent / BURST_R + BPL_G711)
}

/// Idd of ITU-T G.107.
fn delay_impairment(delay_ms: f64) -> f64 {
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    let sixth_root = |base: f64| (1.0 + base.powi(6)).powf(1.0 / 6.0);
    25.0 * (sixth_root(x) - 3.0 * sixth_root(x / 3.0) + 2.0)
}

/// ITU-T G.107 Annex B. Below R = 6.5 the polynomial dips under 1, hence the clamp.
fn score_of_rating(r: f64) -> f64 {
    if r >= 100.0 {
        return 4.5;
    }
    let r = r.max(0.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
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
        }
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
        assert!(reception.quality().is_none());
        assert!(reception.report().is_none());
        (65_000..66_000).for_each(|n| reception.on_packet(nth(n, 1)));
        let quality = reception.quality().unwrap();
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
        close(reception.quality().unwrap().loss, 0.1, 0.001);
    }

    #[test]
    fn reordering_is_no_loss_and_duplicates_make_none_negative() {
        let mut reception = Reception::default();
        for n in [0, 2, 1, 3, 3, 3] {
            reception.on_packet(nth(n, 1));
        }
        assert_eq!(reception.report().unwrap().cumulative_lost, -2);
        close(reception.quality().unwrap().loss, 0.0, 0.0);
    }

    #[test]
    fn a_restart_with_the_same_source_is_no_loss_but_a_stray_packet_is_ignored() {
        let mut reception = Reception::default();
        (0..100).for_each(|n| reception.on_packet(nth(n, 1)));
        reception.on_packet(nth(30_000, 1));
        (100..200).for_each(|n| reception.on_packet(nth(n, 1)));
        close(reception.quality().unwrap().loss, 0.0, 0.0);
        (20_000..20_100).for_each(|n| reception.on_packet(nth(n, 1)));
        let quality = reception.quality().unwrap();
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
        close(reception.quality().unwrap().jitter_ms, 8.0, 0.1);
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
        close(reception.quality().unwrap().jitter_ms, 0.0, 1e-9);
    }

    #[test]
    fn the_score_follows_the_e_model() {
        // R = 93.2 - 95 * P / (P + 25.1), no delay impairment at 100 ms.
        close(mean_opinion_score(0.0, 0.0), 4.41, 0.005);
        close(mean_opinion_score(0.01, 0.0), 4.33, 0.005);
        close(mean_opinion_score(0.05, 0.0), 3.92, 0.005);
        close(mean_opinion_score(0.10, 0.0), 3.41, 0.005);
        close(mean_opinion_score(1.0, 0.0), 1.0, 0.3);
        // Idd at 400 ms (x = 2) is about 24.
        close(delay_impairment(400.0), 24.0, 1.0);
        close(delay_impairment(100.0), 0.0, 0.0);
    }

    proptest! {
        #[test]
        fn the_score_stays_in_its_range_and_never_rises_with_loss_or_jitter(
            loss in 0.0f64..=1.0, more_loss in 0.0f64..=1.0,
            jitter in 0.0f64..500.0, more_jitter in 0.0f64..500.0,
        ) {
            let score = mean_opinion_score(loss, jitter);
            prop_assert!((1.0..=4.5).contains(&score));
            prop_assert!(mean_opinion_score((loss + more_loss).min(1.0), jitter) <= score);
            prop_assert!(mean_opinion_score(loss, jitter + more_jitter) <= score);
        }

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
                let quality = reception.quality().unwrap();
                prop_assert!((0.0..=1.0).contains(&quality.loss));
                prop_assert!((0.0..=1_000.0).contains(&quality.jitter_ms));
                prop_assert!((1.0..=4.5).contains(&quality.mos));
            }
        }
    }
}
