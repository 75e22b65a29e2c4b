//! Tones for built-in phones and tests: making one, carrying it as G.711 µ-law, recognising it.
//!
//! The relay never looks into audio and uses nothing of this.

/// What is added before a sample is cut into segments (ITU-T G.711).
const BIAS: i32 = 0x84;
/// The largest magnitude that µ-law expresses, in 16-bit samples.
const CLIP: i32 = 32_635;

/// A 16-bit sample as G.711 µ-law.
#[must_use]
pub const fn encode_ulaw(sample: i16) -> u8 {
    let wide = sample as i32;
    let sign: u8 = if wide < 0 { 0x80 } else { 0 };
    let magnitude = wide.abs();
    let biased = (if magnitude > CLIP { CLIP } else { magnitude }) + BIAS;
    // The bias makes bit 7 the lowest leading one, of segment 0.
    let segment = 24 - biased.leading_zeros() as i32;
    let step = (biased >> (segment + 3)) & 0x0f;
    !(sign | ((segment << 4) | step) as u8)
}

/// A G.711 µ-law byte as a 16-bit sample.
#[must_use]
pub const fn decode_ulaw(byte: u8) -> i16 {
    let bits = !byte;
    let segment = ((bits >> 4) & 0x07) as i32;
    let step = (bits & 0x0f) as i32;
    let magnitude = (((step << 3) + BIAS) << segment) - BIAS;
    (if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }) as i16
}

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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corners_of_the_code_are_those_of_g711() {
        assert_eq!(encode_ulaw(0), 0xff);
        assert_eq!(encode_ulaw(i16::MAX), 0x80);
        assert_eq!(encode_ulaw(i16::MIN), 0x00);
        assert_eq!(decode_ulaw(0xff), 0);
        assert_eq!(decode_ulaw(0x80), 32_124);
        assert_eq!(decode_ulaw(0x00), -32_124);
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for byte in (0..=u8::MAX).filter(|byte| *byte != 0x7f) {
            assert_eq!(encode_ulaw(decode_ulaw(byte)), byte);
        }
        assert_eq!(decode_ulaw(0x7f), 0, "the negative zero");
    }

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

    proptest! {
        #[test]
        fn a_decoded_sample_is_within_its_quantisation_step(sample in -32_000i16..32_000) {
            let error = i32::from(decode_ulaw(encode_ulaw(sample))) - i32::from(sample);
            prop_assert!(error.abs() <= 4 + i32::from(sample).abs() / 16);
        }
    }
}
