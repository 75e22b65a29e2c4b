//! How a stream sounded, estimated from what was measured of it: the E-model of ITU-T G.107 for
//! narrowband codecs, and of G.107.1 for wideband ones.
//!
//! What lives elsewhere: the measuring ([`crate::quality`]).

/// A voice codec, as far as its impairment goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoiceCodec {
    /// G.711 µ-law.
    #[default]
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// G.729.
    G729,
    /// Opus.
    Opus,
}

impl VoiceCodec {
    /// The encoding name of RFC 3551 or RFC 7587.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::G729 => "G729",
            Self::Opus => "opus",
        }
    }

    const fn impairment(self) -> Impairment {
        match self {
            // G.113 Appendix I: G.711 without concealment, which no packet promises.
            Self::Pcmu | Self::Pcma => Impairment {
                scale: Scale::Narrowband,
                ie: 0.0,
                bpl: 4.3,
            },
            // G.113 Appendix IV: Ie,wb of 64 kbit/s. It has no robustness for G.722 without
            // concealment: that of G.711, which codes sample by sample too.
            Self::G722 => Impairment {
                scale: Scale::Wideband,
                ie: 13.0,
                bpl: 4.3,
            },
            // G.113 Appendix I: G.729A.
            Self::G729 => Impairment {
                scale: Scale::Narrowband,
                ie: 11.0,
                bpl: 19.0,
            },
            // G.113 knows no Opus. It is taken as G.711 with concealment (G.113 Appendix I: 25.1),
            // since every Opus decoder conceals (RFC 6716 §4.4).
            Self::Opus => Impairment {
                scale: Scale::Narrowband,
                ie: 0.0,
                bpl: 25.1,
            },
        }
    }
}

/// What the score depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// The codec of the stream.
    pub codec: VoiceCodec,
    /// Lost fraction of the packets, 0.0-1.0.
    pub loss: f64,
    /// BurstR of G.107: the mean length of a run of lost packets over what random loss would make
    /// of it; 1.0 or less is random.
    pub burst_ratio: f64,
    /// Mean interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// Mean round trip to the party in milliseconds, if it is known.
    pub round_trip_ms: Option<f64>,
}

#[derive(Clone, Copy)]
enum Scale {
    Narrowband,
    Wideband,
}

#[derive(Clone, Copy)]
struct Impairment {
    scale: Scale,
    /// The codec without loss.
    ie: f64,
    /// Its robustness against loss.
    bpl: f64,
}

/// R of a connection without delay and loss: G.107 with all its default values.
const BEST_R: f64 = 93.2;
/// The same of G.107.1.
const BEST_WIDEBAND_R: f64 = 129.0;
/// G.107.1 Annex A: how much longer its scale is than that of the score.
const WIDEBAND_STRETCH: f64 = 1.29;
/// The one-way delay to the party where it is not measured.
const ASSUMED_NETWORK_MS: f64 = 50.0;
/// One-way delay that is never measured: a packet's 20 ms, a jitter buffer's least depth of 20 ms
/// (G.107 counts from mouth to ear), and a decoder.
const DEVICES_MS: f64 = 50.0;
/// A jitter buffer holds about twice the jitter, and never more than this.
const MAX_JITTER_BUFFER_MS: f64 = 300.0;
/// Beyond it the model is no estimate of anything.
const MAX_ROUND_TRIP_MS: f64 = 10_000.0;
/// The burstiest loss that G.107 was tried with.
const MAX_BURST_RATIO: f64 = 8.0;

/// The mean opinion score, 1.0-4.5 (G.107 Annex B). Echo is taken as cancelled. Never rises with
/// loss, its burstiness, jitter or round trip.
#[must_use]
pub fn mean_opinion_score(conditions: &Conditions) -> f64 {
    let codec = conditions.codec.impairment();
    let buffer_ms = (2.0 * conditions.jitter_ms.max(0.0)).min(MAX_JITTER_BUFFER_MS);
    let network_ms = conditions.round_trip_ms.map_or(ASSUMED_NETWORK_MS, |ms| {
        ms.clamp(0.0, MAX_ROUND_TRIP_MS) / 2.0
    });
    let delay = delay_impairment(DEVICES_MS + network_ms + buffer_ms);
    let loss_percent = conditions.loss.clamp(0.0, 1.0) * 100.0;
    let burst_ratio = conditions.burst_ratio.clamp(1.0, MAX_BURST_RATIO);
    let loss = loss_impairment(codec, loss_percent, burst_ratio);
    score_of_rating(match codec.scale {
        Scale::Narrowband => BEST_R - delay - loss,
        Scale::Wideband => (BEST_WIDEBAND_R - delay - loss) / WIDEBAND_STRETCH,
    })
}

/// Ie,eff of G.107 and G.107.1.
fn loss_impairment(codec: Impairment, loss_percent: f64, burst_ratio: f64) -> f64 {
    codec.ie + (95.0 - codec.ie) * loss_percent / (loss_percent / burst_ratio + codec.bpl)
}

/// Idd of G.107.
fn delay_impairment(delay_ms: f64) -> f64 {
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    let sixth_root = |base: f64| (1.0 + base.powi(6)).powf(1.0 / 6.0);
    25.0 * (sixth_root(x) - 3.0 * sixth_root(x / 3.0) + 2.0)
}

/// G.107 Annex B. Below R = 6.5 the polynomial dips under 1, hence the clamp.
fn score_of_rating(r: f64) -> f64 {
    if r >= 100.0 {
        return 4.5;
    }
    let r = r.max(0.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [VoiceCodec; 5] = [
        VoiceCodec::Pcmu,
        VoiceCodec::Pcma,
        VoiceCodec::G722,
        VoiceCodec::G729,
        VoiceCodec::Opus,
    ];

    fn score(codec: VoiceCodec, loss: f64) -> f64 {
        mean_opinion_score(&Conditions {
            codec,
            loss,
            ..Conditions::default()
        })
    }

    fn close(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within, "{a} is not {b} within {within}");
    }

    #[test]
    fn the_score_follows_the_e_model() {
        // R = 93.2 - Ie - (95 - Ie) * P / (P + Bpl), no delay impairment at 100 ms.
        close(score(VoiceCodec::Pcmu, 0.0), 4.41, 0.005);
        close(score(VoiceCodec::Pcma, 0.01), 3.83, 0.01);
        close(score(VoiceCodec::Pcma, 0.05), 2.17, 0.01);
        close(score(VoiceCodec::G729, 0.0), 4.10, 0.01);
        close(score(VoiceCodec::G729, 0.05), 3.34, 0.01);
        // (129 - 13) / 1.29 = 89.9.
        close(score(VoiceCodec::G722, 0.0), 4.34, 0.01);
        close(score(VoiceCodec::Opus, 0.05), 3.92, 0.005);
        close(score(VoiceCodec::Pcmu, 1.0), 1.0, 0.1);
        // Idd at 400 ms (x = 2) is about 24.
        close(delay_impairment(400.0), 24.0, 1.0);
        close(delay_impairment(100.0), 0.0, 0.0);
    }

    #[test]
    fn a_long_way_and_bursts_cost_more_than_a_short_way_and_random_loss() {
        let with = |round_trip_ms, burst_ratio| {
            mean_opinion_score(&Conditions {
                loss: 0.03,
                round_trip_ms: Some(round_trip_ms),
                burst_ratio,
                ..Conditions::default()
            })
        };
        assert!(with(600.0, 1.0) < with(20.0, 1.0) - 0.2);
        assert!(with(20.0, 3.0) < with(20.0, 1.0) - 0.2);
    }

    proptest! {
        #[test]
        fn the_score_stays_in_its_range_and_never_rises_with_what_makes_it_worse(
            codec in 0usize..5,
            loss in 0.0f64..=1.0, more_loss in 0.0f64..=1.0,
            jitter_ms in 0.0f64..500.0, more_jitter in 0.0f64..500.0,
            burst_ratio in 0.0f64..20.0, more_bursts in 0.0f64..20.0,
            round_trip in 0.0f64..20_000.0, more_way in 0.0f64..20_000.0,
        ) {
            let good = Conditions {
                codec: CODECS.get(codec).copied().unwrap_or_default(),
                loss, burst_ratio, jitter_ms, round_trip_ms: Some(round_trip),
            };
            let score = mean_opinion_score(&good);
            prop_assert!((1.0..=4.5).contains(&score));
            for worse in [
                Conditions { loss: (loss + more_loss).min(1.0), ..good },
                Conditions { burst_ratio: burst_ratio + more_bursts, ..good },
                Conditions { jitter_ms: jitter_ms + more_jitter, ..good },
                Conditions { round_trip_ms: Some(round_trip + more_way), ..good },
            ] {
                prop_assert!(mean_opinion_score(&worse) <= score + 1e-9);
            }
        }
    }
}
