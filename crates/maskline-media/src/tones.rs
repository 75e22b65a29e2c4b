//! The two tones of a key (ITU-T Q.23), in a voice codec.
//!
//! What lives elsewhere: when and how long they play ([`crate::press_player`]), recognising them
//! ([`crate::tone_listener`]).

use crate::codec::Voice;
use crate::codec::g711::{encode_alaw, encode_ulaw};
use crate::codec::g722::Encoder;
use crate::codec::half_band::Upsampler;
use crate::tone::Tone;

/// What a packet of 20 ms holds: each codec has an octet for 125 µs.
pub const FRAME_OCTETS: usize = 160;
/// The peak of a sine of 0 dBm0: the largest µ-law sample has 3.17 dBm0.
const PEAK_0_DBM0: f64 = 22_300.0;
/// The least level of a press that counts, -36 dBm0 (RFC 4733 §2.3).
const LEAST_LEVEL: u8 = 36;

/// The lower frequency of a row of keys, and the higher one of a column, in Hz.
pub const ROWS_HZ: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
/// See [`ROWS_HZ`].
pub const COLUMNS_HZ: [f64; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
/// The keys, row by row.
pub const KEYS: [[char; 4]; 4] = [
    ['1', '2', '3', 'A'],
    ['4', '5', '6', 'B'],
    ['7', '8', '9', 'C'],
    ['*', '0', '#', 'D'],
];

/// The tones of a key for as long as they are asked for.
#[derive(Debug)]
pub struct KeyTones {
    low: Tone,
    high: Tone,
    wide: Upsampler,
    encoder: Encoder,
}

/// The two frequencies of a key in Hz, `None` for what is no key.
#[must_use]
pub fn frequencies(digit: char) -> Option<(f64, f64)> {
    KEYS.iter().zip(ROWS_HZ).find_map(|(keys, row)| {
        let mut columns = keys.iter().zip(COLUMNS_HZ);
        let (_, column) = columns.find(|(key, _)| **key == digit)?;
        Some((row, column))
    })
}

impl KeyTones {
    /// Both tones together have this level in -dBm0; below -36 dBm0 nothing would be heard, and they
    /// have that. `None` for what is no key.
    #[must_use]
    pub fn new(digit: char, volume: u8) -> Option<Self> {
        let (low, high) = frequencies(digit)?;
        let level = f64::from(volume.min(LEAST_LEVEL)) + 3.01;
        let peak = (PEAK_0_DBM0 * 10.0_f64.powf(-level / 20.0)) as i16;
        Some(Self {
            low: Tone::new(low, 8_000, peak),
            high: Tone::new(high, 8_000, peak),
            wide: Upsampler::default(),
            encoder: Encoder::default(),
        })
    }

    /// Replaces what `payload` holds by the next 20 ms.
    pub fn frame(&mut self, voice: Voice, payload: &mut Vec<u8>) {
        payload.clear();
        for (low, high) in self.low.by_ref().zip(&mut self.high).take(FRAME_OCTETS) {
            let sample = low.saturating_add(high);
            payload.push(match voice {
                Voice::Pcmu => encode_ulaw(sample),
                Voice::Pcma => encode_alaw(sample),
                Voice::G722 => self.encoder.encode(self.wide.push(sample)),
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::g711::{decode_alaw, decode_ulaw};
    use crate::codec::g722::Decoder;
    use crate::codec::half_band::Downsampler;
    use crate::tone::tone_share;

    fn played(digit: char, volume: u8, voice: Voice) -> Vec<i16> {
        let mut tones = KeyTones::new(digit, volume).unwrap();
        let (mut decoder, mut down) = (Decoder::default(), Downsampler::default());
        let mut payload = Vec::new();
        let mut samples = Vec::new();
        for _ in 0..10 {
            tones.frame(voice, &mut payload);
            assert_eq!(payload.len(), FRAME_OCTETS);
            samples.extend(payload.iter().map(|octet| match voice {
                Voice::Pcmu => decode_ulaw(*octet),
                Voice::Pcma => decode_alaw(*octet),
                Voice::G722 => down.push(decoder.decode(*octet)),
            }));
        }
        samples
    }

    #[test]
    fn each_key_has_the_two_frequencies_of_q23_in_each_codec() {
        assert_eq!(frequencies('5'), Some((770.0, 1_336.0)));
        assert_eq!(frequencies('#'), Some((941.0, 1_477.0)));
        assert!(KeyTones::new('x', 10).is_none());
        for digit in KEYS.into_iter().flatten() {
            for voice in Voice::ALL {
                let samples = played(digit, 10, voice);
                let (low, high) = frequencies(digit).unwrap();
                for frequency in [low, high] {
                    let share = tone_share(&samples[400..1_600], frequency, 8_000);
                    assert!((0.45..0.55).contains(&share), "{digit} {voice:?}: {share}");
                }
            }
        }
    }

    #[test]
    fn the_level_is_that_of_the_press_and_stays_within_what_a_codec_can_say() {
        for (volume, expected) in [(0, 0.0), (10, -10.0), (36, -36.0), (63, -36.0)] {
            let samples = played('5', volume, Voice::Pcmu);
            let squares: f64 = samples.iter().map(|it| f64::from(*it).powi(2)).sum();
            let power = squares / samples.len() as f64;
            let level = 20.0 * (power.sqrt() * std::f64::consts::SQRT_2 / PEAK_0_DBM0).log10();
            assert!((level - expected).abs() < 0.5, "{volume}: {level}");
        }
    }
}
