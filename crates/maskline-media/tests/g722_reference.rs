//! Our G.722 against others': four seconds of tones and noise at eight levels, octet by octet and
//! sample by sample.
//!
//! The octets were made by SpanDSP 0.0.6 (Debian 12's libspandsp2). Its decoder and that of FFmpeg
//! 5.1.9 (libavcodec59), which is written independently of it, both made the same samples of them.
//! Written down of either are the FNV-1a hash of the whole, and the beginning.
#![allow(clippy::unwrap_used)]

use maskline_media::codec::g722::{Decoder, Encoder};

const SAMPLES: i32 = 64_000;
const OCTETS_HASH: u64 = 0x1386_f17d_2bda_7da9;
const FIRST_OCTETS: [u8; 24] = [
    0x2a, 0x84, 0x20, 0x84, 0x20, 0x84, 0x04, 0x89, 0x0b, 0x8b, 0x8b, 0x0f, 0x91, 0x95, 0x12, 0x91,
    0x0e, 0x91, 0x9a, 0x94, 0x1f, 0x15, 0x9d, 0xd7,
];
const DECODED_HASH: u64 = 0x7574_f80e_8816_739e;
const DECODED_FROM_100: [i16; 8] = [2_820, 2_440, 924, 999, 529, -2_456, -682, 1_797];

/// A gliding triangle and noise, ever fainter for 0.8 s and loud again; in whole numbers, so that it is
/// the same everywhere.
fn signal() -> Vec<i16> {
    let mut noise = 1_u32;
    let mut phase = 0;
    (0..SAMPLES)
        .map(|n| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            phase = (phase + 200 + (n / 8) % 7_000) & 0xffff;
            let slope = if phase < 0x8000 {
                phase
            } else {
                0xffff - phase
            };
            let triangle = slope * 2 - 0x7fff;
            let noise = i32::from((noise >> 16) as u16) - 0x8000;
            i16::try_from(((triangle * 3 + noise) >> 3) >> ((n / 1_600) % 8)).unwrap()
        })
        .collect()
}

fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}

#[test]
fn octets_and_samples_are_those_of_other_implementations() {
    let signal = signal();
    let mut encoder = Encoder::default();
    let (pairs, _) = signal.as_chunks::<2>();
    let octets: Vec<u8> = pairs.iter().map(|pair| encoder.encode(*pair)).collect();
    assert_eq!(octets[..24], FIRST_OCTETS);
    assert_eq!(hash(octets.iter().copied()), OCTETS_HASH);

    let mut decoder = Decoder::default();
    let decoded: Vec<i16> = octets.iter().flat_map(|it| decoder.decode(*it)).collect();
    assert_eq!(decoded[100..108], DECODED_FROM_100);
    assert_eq!(
        hash(decoded.iter().flat_map(|it| it.to_le_bytes())),
        DECODED_HASH
    );
}
