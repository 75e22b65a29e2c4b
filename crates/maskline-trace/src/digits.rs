//! Runs of digits that may be a phone number, however they are written.

use maskline_events::shown_digits;

/// What looks like a number and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// IPv4 addresses with their ports.
    addresses: bool,
    /// Long hexadecimal words and UUIDs: tags, branches, Call-IDs.
    random: bool,
}

impl Keep {
    pub(crate) const NOTHING: Self = Self {
        addresses: false,
        random: false,
    };
    pub(crate) const ADDRESSES: Self = Self {
        addresses: true,
        random: false,
    };
    pub(crate) const BOTH: Self = Self {
        addresses: true,
        random: true,
    };
}

/// Between the digits of a written number (RFC 3966 §5.1.1 and what people write).
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, '-' | '.' | '(' | ')' | '/' | '_') || c.is_whitespace()
}

/// Most separators between two digits of a number.
const MOST_SEPARATORS: usize = 3;

/// Undoes the percent-encoding of digits and of what stands between them, also when it was done
/// several times.
pub(crate) fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..4 {
        let next = decoded_once(&text);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

fn decoded_once(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let decoded = code.map(char::from).filter(|c| {
            c.is_ascii_digit() || matches!(c, '+' | '%') || (c.is_ascii() && is_separator(*c))
        });
        match decoded {
            Some(c) => {
                out.push(if c.is_whitespace() { ' ' } else { c });
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The redacted form of a number's digits; a short one is hidden whole.
pub(crate) fn mask_run(digits: &[char]) -> String {
    let shown = shown_digits(digits.len()).and_then(|(first, last)| {
        let head = digits.get(..first)?;
        Some((head, digits.get(digits.len().checked_sub(last)?..)?))
    });
    let text = |part: &[char]| part.iter().collect::<String>();
    match shown {
        Some((head, tail)) => format!("{}••••{}", text(head), text(tail)),
        None => "••••".to_owned(),
    }
}

/// Hides every run of at least `least` digits, whatever separates them.
pub(crate) fn mask(text: &str, least: usize, keep: Keep) -> String {
    run_by_run(text, least, keep, true)
}

/// As [`mask`], for digits that nothing separates.
pub(crate) fn mask_plain(text: &str, least: usize, keep: Keep) -> String {
    run_by_run(text, least, keep, false)
}

fn run_by_run(text: &str, least: usize, keep: Keep, separated: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let kept = kept_at(&chars, at, keep);
        if kept > 0 {
            out.extend(chars.get(at..at + kept).unwrap_or_default());
            at += kept;
            continue;
        }
        if !c.is_numeric() {
            out.push(c);
            at += 1;
            continue;
        }
        let (end, digits) = run_at(&chars, at, keep, separated);
        if digits.len() >= least {
            out.push_str(&mask_run(&digits));
        } else {
            out.extend(chars.get(at..end).unwrap_or_default());
        }
        at = end;
    }
    out
}

/// The end of the run that begins here, and its digits.
fn run_at(chars: &[char], start: usize, keep: Keep, separated: bool) -> (usize, Vec<char>) {
    let mut digits = Vec::new();
    let (mut at, mut end) = (start, start);
    while let Some(&c) = chars.get(at) {
        if c.is_numeric() {
            if at > end && kept_at(chars, at, keep) > 0 {
                break;
            }
            digits.push(c);
            at += 1;
            end = at;
        } else if separated && is_separator(c) && at - end < MOST_SEPARATORS {
            at += 1;
        } else {
            break;
        }
    }
    (end, digits)
}

/// How many characters from here are no number for certain.
fn kept_at(chars: &[char], at: usize, keep: Keep) -> usize {
    let before = at.checked_sub(1).and_then(|before| chars.get(before));
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || *c == '•');
    if in_word {
        return 0;
    }
    let address = if keep.addresses && !before.is_some_and(|c| matches!(c, '.' | '-' | '+')) {
        address_at(chars, at)
    } else {
        0
    };
    if address > 0 || !keep.random {
        return address;
    }
    random_at(chars, at)
}

/// The length of an IPv4 address, with its port, that begins here.
fn address_at(chars: &[char], start: usize) -> usize {
    let number = |from: usize, most: usize| {
        let digits: String = chars
            .iter()
            .skip(from)
            .take(most + 1)
            .take_while(|c| c.is_ascii_digit())
            .collect();
        let value = digits.parse::<u32>().ok();
        value
            .filter(|_| digits.len() <= most)
            .map(|it| (digits.len(), it))
    };
    let mut at = start;
    for octet in 0..4 {
        if octet > 0 {
            if chars.get(at) != Some(&'.') {
                return 0;
            }
            at += 1;
        }
        match number(at, 3) {
            Some((length, value)) if value <= 255 => at += length,
            Some(_) | None => return 0,
        }
    }
    // One more group: a version or a number, no address.
    if chars.get(at) == Some(&'.') && chars.get(at + 1).is_some_and(|c| c.is_numeric()) {
        return 0;
    }
    if chars.get(at) == Some(&':')
        && let Some((length, port)) = number(at + 1, 5)
        && port <= 65_535
    {
        at += 1 + length;
    }
    at - start
}

/// The length of a word here that is random for certain: sixteen hexadecimal digits or more with a
/// letter among them, or a UUID.
fn random_at(chars: &[char], start: usize) -> usize {
    let rest = chars.get(start..).unwrap_or_default();
    let hex = |part: &[char]| part.iter().all(char::is_ascii_hexdigit);
    let groups: Vec<&[char]> = rest
        .get(..36)
        .map_or_else(Vec::new, |uuid| uuid.split(|c| *c == '-').collect());
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let after = rest.get(36).is_none_or(|c| !c.is_alphanumeric());
    if lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| hex(group)) && after {
        return 36;
    }
    let word = rest
        .iter()
        .position(|c| !c.is_alphanumeric())
        .unwrap_or(rest.len());
    let word = rest.get(..word).unwrap_or_default();
    let random = word.len() >= 16 && hex(word) && word.iter().any(|c| c.is_alphabetic());
    if random { word.len() } else { 0 }
}

/// Hides numbers that are known, also within a word: by their last seven digits.
pub(crate) fn sweep(text: &str, known: &[String]) -> String {
    let mut text = text.to_owned();
    for number in known {
        let Some(tail) = number.len().checked_sub(7).and_then(|at| number.get(at..)) else {
            continue;
        };
        while let Some(found) = text.find(tail) {
            let begin = text
                .get(..found)
                .map_or(0, |it| it.trim_end_matches(char::is_numeric).len());
            let end = found + tail.len();
            let more = text.get(end..).unwrap_or_default();
            let end = end + more.len() - more.trim_start_matches(char::is_numeric).len();
            let digits: Vec<char> = text.get(begin..end).unwrap_or_default().chars().collect();
            text.replace_range(begin..end, &mask_run(&digits));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hidden_however_they_are_written() {
        for (text, shown) in [
            ("call 6591234567 now", "call 65••••4567 now"),
            ("+65 9123-4567", "+65••••4567"),
            ("(065) 9123.45.67!", "(06••••4567!"),
            ("9123_4567 x12345", "91••••67 x••••"),
            ("1234", "1234"),
            ("٦٥٩١٢٣٤٥٦٧", "٦٥••••٤٥٦٧"),
        ] {
            assert_eq!(mask(text, 5, Keep::NOTHING), shown, "{text}");
        }
        assert_eq!(
            decoded("%2B65%2525391%32x%zz%"),
            "+6591".to_owned() + "2x%zz%"
        );
    }

    #[test]
    fn addresses_and_random_words_stay_where_they_may() {
        for text in [
            "SIP/2.0/UDP 192.0.2.1:50600;branch=z9hG4bK0;received=203.0.113.255;rport=5060",
            "m0.a.a00000000000000f.123456789abcdef0",
            "550e8400-e29b-41d4-a716-446655440000@host",
            "c=IN IP4 192.0.2.10",
        ] {
            assert_eq!(mask(text, 6, Keep::BOTH), text);
        }
        for (text, shown) in [
            ("192.0.2.1.5", "19••••0215"),
            ("192.0.2.300", "19••••2300"),
            ("0591234567123456", "05••••3456"),
        ] {
            assert!(
                !mask(text, 6, Keep::BOTH).contains("234567"),
                "{text} {shown}"
            );
        }
    }

    #[test]
    fn a_known_number_is_hidden_within_a_word() {
        let known = ["6591234567".to_owned()];
        assert_eq!(sweep("abc6591234567def", &known), "abc65••••4567def");
        assert_eq!(sweep("fade1234567", &known), "fade••••");
    }
}
