//! G.711 µ-law and A-law (ITU-T G.711), sample by sample.

/// What is added before a sample is cut into segments.
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

/// A 16-bit sample as A-law (ITU-T G.711).
#[must_use]
pub const fn encode_alaw(sample: i16) -> u8 {
    let wide = sample as i32;
    let (sign, magnitude) = if wide >= 0 {
        (0x80, wide >> 3)
    } else {
        (0, (-wide - 1) >> 3)
    };
    let magnitude = if magnitude > 0x0fff {
        0x0fff
    } else {
        magnitude
    };
    let code = if magnitude < 32 {
        magnitude >> 1
    } else {
        // The segment is where the leading one stands, above the linear part.
        let segment = 27 - (magnitude as u32).leading_zeros() as i32;
        ((segment) << 4) | ((magnitude >> segment) & 0x0f)
    };
    ((code | sign) as u8) ^ 0x55
}

/// An A-law byte as a 16-bit sample.
#[must_use]
pub const fn decode_alaw(byte: u8) -> i16 {
    let bits = byte ^ 0x55;
    let segment = ((bits >> 4) & 0x07) as i32;
    let step = (bits & 0x0f) as i32;
    let magnitude = if segment == 0 {
        (step << 4) + 8
    } else {
        ((step << 4) + 0x108) << (segment - 1)
    };
    (if bits & 0x80 != 0 {
        magnitude
    } else {
        -magnitude
    }) as i16
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
        assert_eq!((encode_alaw(0), encode_alaw(-1)), (0xd5, 0x55));
        assert_eq!((decode_alaw(0xaa), decode_alaw(0x2a)), (32_256, -32_256));
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for byte in 0..=u8::MAX {
            assert_eq!(encode_alaw(decode_alaw(byte)), byte, "{byte:#x}");
        }
        for byte in (0..=u8::MAX).filter(|byte| *byte != 0x7f) {
            assert_eq!(encode_ulaw(decode_ulaw(byte)), byte);
        }
        assert_eq!(decode_ulaw(0x7f), 0, "the negative zero");
    }

    proptest! {
        #[test]
        fn a_decoded_sample_is_within_its_quantisation_step(sample in -32_000i16..32_000) {
            let wide = i32::from(sample);
            let ulaw = i32::from(decode_ulaw(encode_ulaw(sample))) - wide;
            prop_assert!(ulaw.abs() <= 4 + wide.abs() / 16);
            let alaw = i32::from(decode_alaw(encode_alaw(sample))) - wide;
            prop_assert!(alaw.abs() <= 16 + wide.abs() / 16);
        }
    }
}
