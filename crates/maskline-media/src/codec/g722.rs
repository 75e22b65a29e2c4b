//! G.722 at 64 kbit/s (ITU-T G.722, mode 1): two samples of 16 kHz in an octet.
//!
//! Sub-band ADPCM: a quadrature mirror filter splits the audio at 4 kHz; the lower band gets six
//! bits, the upper two. Each direction keeps what it predicts from; a lost octet disturbs it for
//! some milliseconds. The names of the blocks are those of the Recommendation.

/// Where the lower band's quantiser goes to the next level, in units of its scale.
const Q6: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1_023,
    1_121, 1_219, 1_339, 1_458, 1_612, 1_765, 1_980, 2_195, 2_557, 2_919,
];
/// The lower band's codes by level, for what is negative.
const ILN: [u8; 30] = [
    63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10,
    9, 8, 7, 6, 5, 4,
];
/// The same for what is not.
const ILP: [u8; 30] = [
    61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38,
    37, 36, 35, 34, 33, 32,
];
const QM4: [i32; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288,
    4_240, 2_584, 1_200, 0,
];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192,
    -10_232, -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008,
    -3_576, -3_168, -2_776, -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008,
    16_704, 14_984, 13_512, 12_280, 11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000,
    5_456, 4_944, 4_464, 4_008, 3_576, 3_168, 2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432,
    136, -432, -136,
];
const QM2: [i32; 4] = [-7_408, -1_616, 7_408, 1_616];
/// `WL` of `RL42`: what a four-bit code of the lower band does to its scale.
const LOW_STEPS: [i32; 16] = [
    -60, 3_042, 1_198, 538, 334, 172, 58, -30, 3_042, 1_198, 538, 334, 172, 58, -30, -60,
];
/// `WH` of `RH2`.
const HIGH_STEPS: [i32; 4] = [798, -214, 798, -214];
const ILB: [i32; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656,
    2_714, 2_774, 2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520,
    3_597, 3_676, 3_756, 3_838, 3_922, 4_008,
];
/// Where the upper band's quantiser goes to its outer level.
const Q2: i32 = 564;
/// Every other coefficient of the mirror filter; the others are these in reverse.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3_876, -805, 362, -156, 53, -11];

/// From audio to octets.
#[derive(Clone, Debug)]
pub struct Encoder {
    qmf: [i32; 24],
    low: Band,
    high: Band,
}

/// From octets to audio.
#[derive(Clone, Debug)]
pub struct Decoder {
    qmf: [i32; 24],
    low: Band,
    high: Band,
}

/// What a band's signal is predicted from, and the scale of its quantiser.
#[derive(Clone, Debug)]
struct Band {
    /// The prediction of the next sample, and the zeros' part of it.
    predicted: i32,
    by_zeros: i32,
    /// The last reconstructed sample.
    reconstructed: i32,
    /// The last two partly reconstructed samples.
    partly: [i32; 2],
    /// The last differences, newest first.
    differences: [i32; 6],
    poles: [i32; 2],
    zeros: [i32; 6],
    log_scale: i32,
    scale: i32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            qmf: [0; 24],
            low: Band::new(32),
            high: Band::new(8),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            qmf: [0; 24],
            low: Band::new(32),
            high: Band::new(8),
        }
    }
}

impl Encoder {
    /// The octet of two samples, the earlier one first.
    pub fn encode(&mut self, [earlier, later]: [i16; 2]) -> u8 {
        let (odd, even) = split(&mut self.qmf, i32::from(earlier), i32::from(later));
        let low = self.encode_low((even + odd) >> 14);
        let high = self.encode_high((even - odd) >> 14);
        high << 6 | low
    }

    /// Blocks 1L to 4L.
    fn encode_low(&mut self, sample: i32) -> u8 {
        let error = saturated(sample - self.low.predicted);
        let size = if error < 0 { -(error + 1) } else { error };
        let scale = self.low.scale;
        let level = Q6.partition_point(|threshold| size >= (threshold * scale) >> 12);
        let codes = if error < 0 { &ILN } else { &ILP };
        let code = codes.get(level).copied().unwrap_or_default();
        self.low.follow_low(code >> 2);
        code
    }

    /// Blocks 1H to 4H.
    fn encode_high(&mut self, sample: i32) -> u8 {
        let error = saturated(sample - self.high.predicted);
        let size = if error < 0 { -(error + 1) } else { error };
        let outer = size >= (Q2 * self.high.scale) >> 12;
        let code = match (error < 0, outer) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        };
        self.high.follow_high(code);
        code
    }
}

impl Decoder {
    /// The two samples of an octet, the earlier one first.
    pub fn decode(&mut self, octet: u8) -> [i16; 2] {
        let (code, high_code) = (octet & 0x3f, octet >> 6);
        let fine = (self.low.scale * entry(&QM6, code)) >> 15;
        let low = limited(self.low.predicted + fine);
        self.low.follow_low(code >> 2);
        let high = limited(self.high.predicted + self.high.difference(entry(&QM2, high_code)));
        self.high.follow_high(high_code);
        let (later, earlier) = split(&mut self.qmf, low + high, low - high);
        [
            saturated(earlier >> 11) as i16,
            saturated(later >> 11) as i16,
        ]
    }
}

impl Band {
    const fn new(scale: i32) -> Self {
        Self {
            predicted: 0,
            by_zeros: 0,
            reconstructed: 0,
            partly: [0; 2],
            differences: [0; 6],
            poles: [0; 2],
            zeros: [0; 6],
            log_scale: 0,
            scale,
        }
    }

    const fn difference(&self, quantum: i32) -> i32 {
        (self.scale * quantum) >> 15
    }

    /// Blocks 2L (INVQAL) to 4L: the coarse code is what both ends know.
    fn follow_low(&mut self, coarse: u8) {
        let difference = self.difference(entry(&QM4, coarse));
        self.rescale(entry(&LOW_STEPS, coarse), 18_432, 8);
        self.adapt(difference);
    }

    /// Blocks 2H (INVQAH) to 4H.
    fn follow_high(&mut self, code: u8) {
        let difference = self.difference(entry(&QM2, code));
        self.rescale(entry(&HIGH_STEPS, code), 22_528, 10);
        self.adapt(difference);
    }

    /// Blocks 3L and 3H: LOGSCL, SCALEL.
    fn rescale(&mut self, step: i32, most: i32, exponent: i32) {
        self.log_scale = (((self.log_scale * 127) >> 7) + step).clamp(0, most);
        let mantissa = entry(&ILB, ((self.log_scale >> 6) & 31) as u8);
        let shift = exponent - (self.log_scale >> 11);
        let scale = if shift < 0 {
            mantissa << -shift
        } else {
            mantissa >> shift
        };
        self.scale = scale << 2;
    }

    /// Block 4: the predictor takes the quantised difference.
    fn adapt(&mut self, difference: i32) {
        // RECONS, PARREC
        let reconstructed = saturated(self.predicted + difference);
        let partly = saturated(self.by_zeros + difference);
        let [before, before_that] = self.partly;
        let [first, second] = self.poles;
        let alike = same_sign(partly, before);
        // UPPOL2
        let tilt = saturated(first << 2);
        let tilt = if alike { -tilt } else { tilt }.min(32_767);
        let pull = if same_sign(partly, before_that) {
            128
        } else {
            -128
        };
        let second = ((tilt >> 7) + pull + ((second * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let pull = if alike { 192 } else { -192 };
        let most = saturated(15_360 - second);
        let first = saturated(pull + ((first * 32_640) >> 15)).clamp(-most, most);
        // UPZERO
        let pull = if difference == 0 { 0 } else { 128 };
        for (zero, old) in self.zeros.iter_mut().zip(self.differences) {
            let pull = if same_sign(old, difference) {
                pull
            } else {
                -pull
            };
            *zero = saturated(pull + ((*zero * 32_640) >> 15));
        }
        // DELAYA
        let [d1, d2, d3, d4, d5, _] = self.differences;
        self.differences = [difference, d1, d2, d3, d4, d5];
        self.partly = [partly, before];
        self.poles = [first, second];
        // FILTEP, FILTEZ, PREDIC
        let by_poles = saturated(
            ((first * saturated(2 * reconstructed)) >> 15)
                + ((second * saturated(2 * self.reconstructed)) >> 15),
        );
        self.reconstructed = reconstructed;
        let terms = self.zeros.iter().zip(self.differences);
        self.by_zeros = saturated(
            terms
                .map(|(zero, difference)| (zero * saturated(2 * difference)) >> 15)
                .sum(),
        );
        self.predicted = saturated(by_poles + self.by_zeros);
    }
}

/// A step of the mirror filter: both of its phases over the last 24 values.
fn split(values: &mut [i32; 24], first: i32, second: i32) -> (i32, i32) {
    values.copy_within(2.., 0);
    let [.., second_last, last] = values;
    (*second_last, *last) = (first, second);
    let (pairs, _) = values.as_chunks::<2>();
    let both = pairs.iter().zip(QMF).zip(QMF.iter().rev());
    both.fold((0, 0), |(odd, even), (([a, b], forth), back)| {
        (odd + a * forth, even + b * back)
    })
}

fn entry<const N: usize>(table: &[i32; N], index: u8) -> i32 {
    table.get(usize::from(index)).copied().unwrap_or_default()
}

const fn same_sign(one: i32, other: i32) -> bool {
    (one < 0) == (other < 0)
}

fn saturated(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// LIMIT.
fn limited(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tone::{Tone, tone_share};

    fn through(samples: &[i16]) -> Vec<i16> {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let (pairs, _) = samples.as_chunks::<2>();
        pairs
            .iter()
            .flat_map(|pair| decoder.decode(encoder.encode(*pair)))
            .collect()
    }

    #[test]
    fn the_octets_of_a_ramp_stay_what_they_were() {
        // Written down when two million octets of tones and noise were those of libg722, which
        // derives from SpanDSP.
        let mut encoder = Encoder::default();
        let octets: Vec<u8> = (0..16i16)
            .map(|n| encoder.encode([n * 400, n * 400 + 200]))
            .collect();
        assert_eq!(octets, RAMP);
    }

    const RAMP: [u8; 16] = [
        250, 222, 119, 180, 46, 156, 160, 160, 160, 160, 228, 231, 234, 235, 236, 236,
    ];

    #[test]
    fn a_tone_of_either_band_comes_out_at_its_level() {
        for frequency in [300.0, 1_000.0, 3_000.0, 5_000.0, 6_500.0] {
            let before: Vec<i16> = Tone::new(frequency, 16_000, 8_000).take(3_200).collect();
            let after = through(&before);
            let level = |samples: &[i16]| -> f64 {
                let energy: f64 = samples.iter().map(|it| f64::from(*it).powi(2)).sum();
                energy.sqrt()
            };
            let ratio = level(&after[800..]) / level(&before[800..]);
            assert!((ratio - 1.0).abs() < 0.05, "{frequency} Hz: {ratio}");
            let share = tone_share(&after[800..], frequency, 16_000);
            assert!(share > 0.97, "{frequency} Hz: {share}");
        }
    }

    #[test]
    fn silence_stays_silent() {
        assert!(through(&[0; 1_600]).iter().all(|sample| sample.abs() <= 8));
    }

    #[test]
    fn a_decoder_that_begins_in_the_middle_finds_in() {
        let before: Vec<i16> = Tone::new(700.0, 16_000, 8_000).take(6_400).collect();
        let mut encoder = Encoder::default();
        let (pairs, _) = before.as_chunks::<2>();
        let octets: Vec<u8> = pairs.iter().map(|pair| encoder.encode(*pair)).collect();
        let mut decoder = Decoder::default();
        let late: Vec<i16> = octets[1_600..]
            .iter()
            .flat_map(|octet| decoder.decode(*octet))
            .collect();
        assert!(tone_share(&late[1_600..], 700.0, 16_000) > 0.97);
    }

    proptest! {
        #[test]
        fn any_octets_and_any_samples_are_taken(
            octets in proptest::collection::vec(any::<u8>(), 0..2_000),
            samples in proptest::collection::vec(any::<[i16; 2]>(), 0..2_000),
        ) {
            let mut decoder = Decoder::default();
            for octet in octets {
                decoder.decode(octet);
            }
            let mut encoder = Encoder::default();
            for pair in samples {
                encoder.encode(pair);
            }
        }
    }
}
