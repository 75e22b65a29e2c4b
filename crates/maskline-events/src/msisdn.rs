//! Phone numbers as E.164 with a leading `+`, redacted wherever a person might read them by accident.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A phone number: E.164 with a leading `+` and 3 to 15 digits (ITU-T E.164 §6).
///
/// `Debug` and `Display` print it redacted (`+65••••3033`); [`Msisdn::as_str`] and the serde form
/// give it in full and are meant for the places where a wire format asks for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msisdn(Box<str>);

/// Why a text is no [`Msisdn`]. Does not repeat the text: it may be personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MsisdnError {
    /// Fewer than 3 or more than 15 digits.
    #[error("an MSISDN has 3 to 15 digits, this one has {0}")]
    Length(usize),
    /// A character that is no digit, at this byte offset.
    #[error("an MSISDN is digits with an optional leading +; offset {0} holds something else")]
    Character(usize),
    /// The first digit is 0: a national or international prefix instead of a country calling code.
    #[error("an MSISDN starts with a country calling code, never with 0")]
    LeadingZero,
}

impl Msisdn {
    /// The most digits that a number has (E.164 §6.1).
    pub const MAX_DIGITS: usize = 15;

    /// Reads `+6568330330` or `6568330330`.
    ///
    /// # Errors
    /// See [`MsisdnError`]; nothing is trimmed or guessed.
    pub fn parse(text: &str) -> Result<Self, MsisdnError> {
        let (digits, skipped) = match text.strip_prefix('+') {
            Some(rest) => (rest, 1),
            None => (text, 0),
        };
        if let Some(offset) = digits.bytes().position(|b| !b.is_ascii_digit()) {
            return Err(MsisdnError::Character(offset + skipped));
        }
        if !(3..=Self::MAX_DIGITS).contains(&digits.len()) {
            return Err(MsisdnError::Length(digits.len()));
        }
        if digits.starts_with('0') {
            return Err(MsisdnError::LeadingZero);
        }
        Ok(Self(format!("+{digits}").into_boxed_str()))
    }

    /// The number in full, with its `+`. For wire formats only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number in full without the `+`. For wire formats only.
    #[must_use]
    pub fn digits(&self) -> &str {
        self.0.strip_prefix('+').unwrap_or(&self.0)
    }
}

/// How many of the first and of the last digits of a number are shown where it is redacted: the first two
/// and up to four of the last, so that four at least are hidden. `None`: of fewer than 8 digits nothing is
/// shown; two of five would give a number away.
#[must_use]
pub fn shown_digits(count: usize) -> Option<(usize, usize)> {
    let more = count.checked_sub(8)?;
    Some((2, more.saturating_add(2).min(4)))
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        let shown = shown_digits(digits.len()).and_then(|(first, last)| {
            let head = digits.get(..first)?;
            Some((head, digits.get(digits.len().checked_sub(last)?..)?))
        });
        match shown {
            Some((head, tail)) => write!(f, "+{head}••••{tail}"),
            None => f.write_str("+••••"),
        }
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Msisdn {
    type Err = MsisdnError;

    fn from_str(text: &str) -> Result<Self, MsisdnError> {
        Self::parse(text)
    }
}

impl Serialize for Msisdn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Msisdn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The source or destination of a leg as an event shows it (contract §2, *departure*: a withheld
/// or non-numeric caller is `anonymous`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// A number that may be shown.
    Number(Msisdn),
    /// Withheld, or not a number.
    Anonymous,
    /// A number of which the receiver sees a part: `+65••••3033`. In no event as it is kept.
    Masked(Box<str>),
    /// What stands for a number. In no event as it is kept.
    Token(Box<str>),
}

/// What a token of a number begins with.
pub(crate) const TOKEN_PREFIX: &str = "tok_";
/// And how many characters of base64url follow.
pub(crate) const TOKEN_CHARACTERS: usize = 22;

/// How a [`Party`] is written: `sourceFormat` and `destinationFormat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PartyFormat {
    /// E.164 with `+`.
    Msisdn,
    /// The text `anonymous`.
    Anonymous,
    /// A part of a number.
    Masked,
    /// A token in place of a number.
    Token,
}

impl PartyFormat {
    /// As events write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Msisdn => "MSISDN",
            Self::Anonymous => "ANONYMOUS",
            Self::Masked => "MASKED",
            Self::Token => "TOKEN",
        }
    }
}

impl Party {
    /// What `source` or `destination` holds: the number in full, `anonymous`, or what is shown of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(number) => number.as_str(),
            Self::Anonymous => "anonymous",
            Self::Masked(shown) | Self::Token(shown) => shown,
        }
    }

    /// What `sourceFormat` or `destinationFormat` holds.
    #[must_use]
    pub fn format(&self) -> PartyFormat {
        match self {
            Self::Number(_) => PartyFormat::Msisdn,
            Self::Anonymous => PartyFormat::Anonymous,
            Self::Masked(_) => PartyFormat::Masked,
            Self::Token(_) => PartyFormat::Token,
        }
    }

    /// The number, when there is one in full.
    #[must_use]
    pub fn number(&self) -> Option<&Msisdn> {
        match self {
            Self::Number(number) => Some(number),
            Self::Anonymous | Self::Masked(_) | Self::Token(_) => None,
        }
    }
}

impl Serialize for Party {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Party {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        if text == "anonymous" {
            return Ok(Self::Anonymous);
        }
        if is_token(&text) {
            return Ok(Self::Token(text.into()));
        }
        if is_masked(&text) {
            return Ok(Self::Masked(text.into()));
        }
        Msisdn::parse(&text)
            .map(Self::Number)
            .map_err(serde::de::Error::custom)
    }
}

fn is_token(text: &str) -> bool {
    let is_base64url = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
    text.strip_prefix(TOKEN_PREFIX)
        .is_some_and(|it| it.len() == TOKEN_CHARACTERS && it.bytes().all(is_base64url))
}

/// As a number's `Display` writes it, or nothing but the dots.
fn is_masked(text: &str) -> bool {
    let shown = text.strip_prefix('+').unwrap_or(text);
    let parts = shown.split_once("••••");
    parts.is_some_and(|(head, tail)| {
        let digits = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
        head.len() <= 2 && tail.len() <= 4 && digits(head) && digits(tail)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_prints_in_full() {
        let number = Msisdn::parse("6568330330").unwrap();
        assert_eq!(format!("{number} {number:?}"), "+65••••0330 +65••••0330");
        for (digits, shown) in [
            ("112", "+••••"),
            ("12345", "+••••"),
            ("1234567", "+••••"),
            ("12345678", "+12••••78"),
            ("123456789", "+12••••789"),
            ("1234567890", "+12••••7890"),
            ("12345678901", "+12••••8901"),
            ("123456789012345", "+12••••2345"),
        ] {
            assert_eq!(Msisdn::parse(digits).unwrap().to_string(), shown);
        }
        assert_eq!(number.as_str(), "+6568330330");
    }

    #[test]
    fn what_an_endpoint_is_shown_of_a_number_reads_back_and_nothing_like_it() {
        let read = |text: &str| serde_json::from_value::<Party>(text.into()).ok();
        for (text, format) in [
            ("+6591234567", PartyFormat::Msisdn),
            ("anonymous", PartyFormat::Anonymous),
            ("+65••••4567", PartyFormat::Masked),
            ("+••••", PartyFormat::Masked),
            ("••••", PartyFormat::Masked),
            ("tok_CYAWvmEPolEztjWbLj9_cn", PartyFormat::Token),
        ] {
            let party = read(text).unwrap();
            assert_eq!((party.as_str(), party.format()), (text, format));
            let shown = serde_json::to_value(party.format()).unwrap();
            assert_eq!(shown, format.as_str());
        }
        for text in [
            "tok_",
            "tok_CYAWvmEPolEztjWbLj9.cn",
            "+6591••••4567",
            "+65•••4567",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        for (text, error) in [
            ("", MsisdnError::Length(0)),
            ("+1", MsisdnError::Length(1)),
            ("+1234567890123456", MsisdnError::Length(16)),
            ("+65 68330330", MsisdnError::Character(3)),
            ("++65", MsisdnError::Character(1)),
            ("0065683303", MsisdnError::LeadingZero),
            ("+６５６８", MsisdnError::Character(1)),
        ] {
            assert_eq!(Msisdn::parse(text), Err(error), "{text}");
        }
    }
}
