//! From one voice codec to another, in place: each of them has an octet for 125 µs, so that a
//! packet keeps its length, its duration and its timestamp.
//!
//! A packet that was lost is not made up for: it is missing behind the transcoder as before it, and
//! the far end conceals it as it always would. One that comes late or twice goes through the
//! filters and predictors where it comes; they forget it within milliseconds.
//!
//! What lives elsewhere: which codecs two parties speak (`maskline-switch`), when a packet is
//! passed on ([`crate::relay`]).

use crate::codec::Voice;
use crate::codec::g711::{decode_alaw, decode_ulaw, encode_alaw, encode_ulaw};
use crate::codec::g722::{Decoder, Encoder};
use crate::codec::half_band::{Downsampler, Upsampler};

/// The longest packet that is transcoded: 200 ms.
pub const MAX_OCTETS: usize = 1_600;

/// What of one codec's past the next packet needs. About a kilobyte where G.722 is one of the two.
#[derive(Clone, Debug)]
pub struct Transcoder {
    from: Voice,
    to: Voice,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// Sample by sample, without a past.
    G711,
    Widen(Upsampler, Encoder),
    Narrow(Decoder, Downsampler),
    /// Both are the same.
    Nothing,
}

/// Whether a payload of this length can be transcoded: neither empty nor of an odd length, which
/// no packet of whole milliseconds has, nor longer than 200 ms.
#[must_use]
pub const fn is_transcodable(octets: usize) -> bool {
    octets > 0 && octets.is_multiple_of(2) && octets <= MAX_OCTETS
}

impl Transcoder {
    /// One that has heard nothing yet.
    #[must_use]
    pub fn new(from: Voice, to: Voice) -> Self {
        let way = match (from, to) {
            (Voice::Pcmu, Voice::Pcmu)
            | (Voice::Pcma, Voice::Pcma)
            | (Voice::G722, Voice::G722) => Way::Nothing,
            (Voice::Pcmu, Voice::Pcma) | (Voice::Pcma, Voice::Pcmu) => Way::G711,
            (Voice::Pcmu | Voice::Pcma, Voice::G722) => {
                Way::Widen(Upsampler::default(), Encoder::default())
            }
            (Voice::G722, Voice::Pcmu | Voice::Pcma) => {
                Way::Narrow(Decoder::default(), Downsampler::default())
            }
        };
        Self { from, to, way }
    }

    /// Whether it turns `from` into `to`.
    #[must_use]
    pub fn is_between(&self, from: Voice, to: Voice) -> bool {
        (self.from, self.to) == (from, to)
    }

    /// Replaces each octet by that of the other codec.
    pub fn run(&mut self, octets: &mut [u8]) {
        match &mut self.way {
            Way::Nothing => {}
            Way::G711 => {
                for octet in octets {
                    *octet = compress(self.to, expand(self.from, *octet));
                }
            }
            Way::Widen(upsampler, encoder) => {
                for octet in octets {
                    *octet = encoder.encode(upsampler.push(expand(self.from, *octet)));
                }
            }
            Way::Narrow(decoder, downsampler) => {
                for octet in octets {
                    *octet = compress(self.to, downsampler.push(decoder.decode(*octet)));
                }
            }
        }
    }
}

/// A sample of G.711; of G.722, whose octets are no samples, silence.
const fn expand(voice: Voice, octet: u8) -> i16 {
    match voice {
        Voice::Pcmu => decode_ulaw(octet),
        Voice::Pcma => decode_alaw(octet),
        Voice::G722 => 0,
    }
}

const fn compress(voice: Voice, sample: i16) -> u8 {
    match voice {
        Voice::Pcmu => encode_ulaw(sample),
        Voice::Pcma | Voice::G722 => encode_alaw(sample),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A second of something like speech: a pitch that glides, with harmonics up to 3.2 kHz, in
    /// syllables.
    fn speech() -> Vec<i16> {
        let mut phase = 0.0_f64;
        (0..8_000)
            .map(|n| {
                let t = f64::from(n) / 8_000.0;
                let pitch = 140.0 + 40.0 * (t * 5.0).sin();
                phase += std::f64::consts::TAU * pitch / 8_000.0;
                let harmonics: f64 = (1..18)
                    .map(|k| {
                        let formant = (f64::from(k) * pitch - 700.0) / 600.0;
                        (f64::from(k) * phase).sin() * (0.1 + (-formant * formant).exp())
                    })
                    .sum();
                let syllable = 0.3 + 0.7 * (t * 12.0).sin().powi(2);
                (harmonics * syllable * 3_000.0) as i16
            })
            .collect()
    }

    fn encode(voice: Voice, samples: &[i16]) -> Vec<u8> {
        let mut octets: Vec<u8> = samples.iter().map(|it| encode_alaw(*it)).collect();
        match voice {
            Voice::Pcma => {}
            Voice::Pcmu => octets = samples.iter().map(|it| encode_ulaw(*it)).collect(),
            Voice::G722 => {
                let (mut up, mut encoder) = (Upsampler::default(), Encoder::default());
                let wide = samples.iter().map(|it| encoder.encode(up.push(*it)));
                octets = wide.collect();
            }
        }
        octets
    }

    fn decode(voice: Voice, octets: &[u8]) -> Vec<i16> {
        let (mut decoder, mut down) = (Decoder::default(), Downsampler::default());
        let narrow = octets.iter().map(|it| match voice {
            Voice::Pcmu => decode_ulaw(*it),
            Voice::Pcma => decode_alaw(*it),
            Voice::G722 => down.push(decoder.decode(*it)),
        });
        narrow.collect()
    }

    /// The ratio of the source to what differs from it, in dB, at the delay where it is best.
    fn snr(source: &[i16], heard: &[i16]) -> f64 {
        let at = |delay: usize| {
            let pairs = source.iter().zip(&heard[delay..]).skip(400);
            let (mut signal, mut noise) = (0.0, 1.0);
            for (source, heard) in pairs {
                signal += f64::from(*source).powi(2);
                noise += (f64::from(*source) - f64::from(*heard)).powi(2);
            }
            10.0 * f64::log10(signal / noise)
        };
        (0..120).map(at).fold(f64::MIN, f64::max)
    }

    #[test]
    fn speech_survives_each_pair_of_codecs() {
        let source = speech();
        for (from, to, least_db) in [
            (Voice::Pcmu, Voice::Pcma, 30.0),
            (Voice::Pcma, Voice::Pcmu, 30.0),
            (Voice::Pcmu, Voice::G722, 20.0),
            (Voice::Pcma, Voice::G722, 20.0),
            (Voice::G722, Voice::Pcmu, 20.0),
            (Voice::G722, Voice::Pcma, 20.0),
        ] {
            let mut octets = encode(from, &source);
            let mut transcoder = Transcoder::new(from, to);
            for packet in octets.chunks_mut(160) {
                transcoder.run(packet);
            }
            let db = snr(&source, &decode(to, &octets));
            println!("{from:?} to {to:?}: {db:.1} dB");
            assert!(db > least_db, "{from:?} to {to:?}: {db:.1} dB");
        }
    }

    #[test]
    fn the_same_codec_is_left_alone() {
        for voice in Voice::ALL {
            let mut octets: Vec<u8> = (0..=u8::MAX).collect();
            Transcoder::new(voice, voice).run(&mut octets);
            assert!(octets.iter().copied().eq(0..=u8::MAX));
        }
    }

    #[test]
    fn a_packet_has_between_a_quarter_of_a_millisecond_and_200_of_them() {
        for (octets, may) in [(0, false), (1, false), (2, true), (159, false)] {
            assert_eq!(is_transcodable(octets), may, "{octets}");
        }
        assert!(is_transcodable(MAX_OCTETS) && !is_transcodable(MAX_OCTETS + 2));
    }

    proptest! {
        /// However a stream is cut into packets, the far end hears the same.
        #[test]
        fn the_cut_into_packets_is_not_heard(
            octets in proptest::collection::vec(any::<u8>(), 400), cut in 1usize..400,
        ) {
            for (from, to) in [(Voice::Pcma, Voice::G722), (Voice::G722, Voice::Pcmu)] {
                let mut whole = octets.clone();
                Transcoder::new(from, to).run(&mut whole);
                let mut parts = octets.clone();
                let mut transcoder = Transcoder::new(from, to);
                for part in parts.chunks_mut(cut) {
                    transcoder.run(part);
                }
                prop_assert_eq!(whole, parts);
            }
        }
    }
}
