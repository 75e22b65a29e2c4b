//! When a certificate ends: the one thing of its DER that no library here tells.

use std::time::Duration;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (RFC 5280 §4.1.2.5), since 1970; `None`: it is no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<Duration> {
    let (tag, certificate, _) = element(certificate)?;
    let (tbs_tag, mut fields, _) = element(certificate)?;
    if tag != SEQUENCE || tbs_tag != SEQUENCE {
        return None;
    }
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (tag, validity, _) = element(fields)?;
    if tag != SEQUENCE {
        return None;
    }
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let digits = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut parts = [0_i64; 5];
    let mut rest = rest;
    for part in &mut parts {
        let (two, left) = rest.split_at_checked(2)?;
        *part = two.parse().ok()?;
        rest = left;
    }
    let [month, day, hour, minute, second] = parts;
    let seconds = days(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second;
    // What ended before 1970 has ended.
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Tag, contents, and what follows the first element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = if first < 0x80 {
        (usize::from(first), bytes)
    } else {
        let (long, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
        if long.len() > 4 {
            return None;
        }
        let length = long
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        (length, bytes)
    };
    let (contents, rest) = bytes.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970_through_leap_years() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2026, 1, 6), Some(20_459));
        assert_eq!(days(2026, 13, 6), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_and_noise_has_none() {
        let certificate = |time: &[u8]| {
            let sequence = |contents: &[u8]| {
                let mut bytes = vec![SEQUENCE, u8::try_from(contents.len()).unwrap()];
                bytes.extend(contents);
                bytes
            };
            let mut validity = vec![UTC_TIME, 1, b'x'];
            validity.extend(time);
            let mut fields = vec![VERSION, 3, 2, 1, 2, 2, 1, 5, SEQUENCE, 0, SEQUENCE, 0];
            fields.extend(sequence(&validity));
            sequence(&sequence(&fields))
        };
        let mut utc = vec![UTC_TIME, 13];
        utc.extend(b"260106110000Z");
        let mut long = vec![GENERALIZED_TIME, 15];
        long.extend(b"20260106110000Z");
        for time in [utc, long] {
            let expected = Duration::from_secs(20_459 * 86_400 + 11 * 3_600);
            assert_eq!(not_after(&certificate(&time)), Some(expected));
        }
        let whole = certificate(b"\x17\x0d260106110000Z");
        for cut in 0..whole.len() {
            assert_eq!(not_after(&whole[..cut]), None);
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
