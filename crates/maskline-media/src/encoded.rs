//! A sound in each codec that is made here, so that a packet of it costs a copy.

use std::fmt;
use std::time::Duration;

use crate::codec::Voice;
use crate::codec::g711::{encode_alaw, encode_ulaw};
use crate::codec::g722::Encoder;
use crate::codec::half_band::{Downsampler, Upsampler};
use crate::tones::FRAME_OCTETS;

/// A sound of whole octets of 125 µs, as many in each codec.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedSound {
    pcmu: Box<[u8]>,
    pcma: Box<[u8]>,
    g722: Box<[u8]>,
}

impl fmt::Debug for EncodedSound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedSound({:?})", self.length())
    }
}

impl EncodedSound {
    /// A sound sampled at 16 kHz, to be heard once, with silence up to a whole packet at its end.
    #[must_use]
    pub fn once(samples: &[i16]) -> Self {
        let mut encoding = Wide::default();
        let packets = samples.len().div_ceil(2 * FRAME_OCTETS);
        let samples = samples.iter().copied().chain(std::iter::repeat(0));
        let mut samples = samples.take(packets * 2 * FRAME_OCTETS);
        let pairs = std::iter::from_fn(|| Some([samples.next()?, samples.next()?]));
        Self::of(pairs.map(|pair| encoding.encode(pair)))
    }

    /// A sound sampled at 8 kHz, to be heard over and over. An empty one is nothing.
    pub(crate) fn endless_at_8_khz(samples: &[i16]) -> Self {
        let (mut upsampler, mut encoder) = (Upsampler::default(), Encoder::default());
        Self::endless(samples, |sample| {
            let wide = upsampler.push(*sample);
            (*sample, encoder.encode(wide))
        })
    }

    /// The same sampled at 16 kHz.
    pub(crate) fn endless_at_16_khz(samples: &[i16]) -> Self {
        let mut encoding = Wide::default();
        let (pairs, _) = samples.as_chunks::<2>();
        Self::endless(pairs, |pair| encoding.encode(*pair))
    }

    /// Goes through the sound twice: filters and predictors are at its beginning as its end leaves
    /// them, so that its repetition does not click.
    fn endless<T>(sound: &[T], mut encode: impl FnMut(&T) -> (i16, u8)) -> Self {
        for part in sound {
            encode(part);
        }
        Self::of(sound.iter().map(encode))
    }

    /// Of 125 µs each: a sample for G.711, and an octet of G.722.
    fn of(parts: impl Iterator<Item = (i16, u8)>) -> Self {
        let (mut pcmu, mut pcma, mut g722) = (Vec::new(), Vec::new(), Vec::new());
        for (sample, wide) in parts {
            pcmu.push(encode_ulaw(sample));
            pcma.push(encode_alaw(sample));
            g722.push(wide);
        }
        Self {
            pcmu: pcmu.into(),
            pcma: pcma.into(),
            g722: g722.into(),
        }
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_micros(125 * self.pcmu.len() as u64)
    }

    /// What is sent of it.
    #[must_use]
    pub const fn octets(&self, voice: Voice) -> &[u8] {
        match voice {
            Voice::Pcmu => &self.pcmu,
            Voice::Pcma => &self.pcma,
            Voice::G722 => &self.g722,
        }
    }
}

/// From 16 kHz.
#[derive(Default)]
struct Wide {
    downsampler: Downsampler,
    encoder: Encoder,
}

impl Wide {
    fn encode(&mut self, pair: [i16; 2]) -> (i16, u8) {
        (self.downsampler.push(pair), self.encoder.encode(pair))
    }
}
