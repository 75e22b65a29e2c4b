//! Tones: making one, and recognising it in whole recordings, for built-in phones and tests.
//!
//! What lives elsewhere: the pairs of tones of keys ([`crate::tones`]), hearing them as they come
//! ([`crate::tone_listener`]).

/// An endless sine tone, sample by sample.
#[derive(Clone, Debug)]
pub struct Tone {
    phase: f64,
    step: f64,
    amplitude: f64,
}

impl Tone {
    /// A tone of `frequency_hz` at `rate_hz` samples a second; `amplitude` is its peak.
    #[must_use]
    pub fn new(frequency_hz: f64, rate_hz: u32, amplitude: i16) -> Self {
        Self {
            phase: 0.0,
            step: std::f64::consts::TAU * frequency_hz / f64::from(rate_hz.max(1)),
            amplitude: f64::from(amplitude),
        }
    }
}

impl Iterator for Tone {
    type Item = i16;

    fn next(&mut self) -> Option<i16> {
        let sample = (self.phase.sin() * self.amplitude).round() as i16;
        self.phase = (self.phase + self.step) % std::f64::consts::TAU;
        Some(sample)
    }
}

/// How much of the energy of `samples` lies at `frequency_hz`, 0.0-1.0, by Goertzel's algorithm.
///
/// The resolution is `rate_hz / samples.len()`. Silence and no samples give 0.
#[must_use]
pub fn tone_share(samples: &[i16], frequency_hz: f64, rate_hz: u32) -> f64 {
    let omega = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz.max(1));
    let coefficient = 2.0 * omega.cos();
    let (mut before, mut last, mut energy) = (0.0_f64, 0.0_f64, 0.0_f64);
    for sample in samples {
        let sample = f64::from(*sample);
        (before, last) = (last, sample + coefficient * last - before);
        energy += sample * sample;
    }
    if energy == 0.0 {
        return 0.0;
    }
    let power = before * before + last * last - coefficient * before * last;
    (2.0 * power / (samples.len() as f64 * energy)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::g711::{decode_ulaw, encode_ulaw};

    #[test]
    fn a_tone_is_heard_at_its_frequency_only_also_through_ulaw() {
        let heard: Vec<i16> = Tone::new(440.0, 8_000, 8_000)
            .take(1_600)
            .map(|sample| decode_ulaw(encode_ulaw(sample)))
            .collect();
        assert!(tone_share(&heard, 440.0, 8_000) > 0.95);
        assert!(tone_share(&heard, 880.0, 8_000) < 0.01);
        assert!(tone_share(&heard, 660.0, 8_000) < 0.01);
        assert!(tone_share(&[0; 160], 440.0, 8_000) < 0.01);
        assert!(tone_share(&[], 440.0, 8_000) < 0.01);
    }
}
