//! G.711 A-law, for a far end that takes no µ-law.

/// A 16-bit sample as A-law (ITU-T G.711).
#[must_use]
pub const fn encode(sample: i16) -> u8 {
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
pub const fn decode(byte: u8) -> i16 {
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
    use super::*;

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for byte in 0..=u8::MAX {
            assert_eq!(encode(decode(byte)), byte, "{byte:#x}");
        }
    }

    #[test]
    fn a_decoded_sample_is_within_its_quantisation_step() {
        for sample in (-32_000i32..32_000).step_by(7) {
            let sample = sample as i16;
            let error = i32::from(decode(encode(sample))) - i32::from(sample);
            assert!(
                error.abs() <= 16 + i32::from(sample).abs() / 16,
                "{sample}: {error}"
            );
        }
    }
}
