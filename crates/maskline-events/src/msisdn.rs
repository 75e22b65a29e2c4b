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

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        // A short number is hidden whole: two digits of five would give it away.
        if digits.len() < 8 {
            return f.write_str("+••••");
        }
        let (head, tail) = (digits.get(..2), digits.get(digits.len() - 4..));
        write!(
            f,
            "+{}••••{}",
            head.unwrap_or_default(),
            tail.unwrap_or_default()
        )
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
}

/// How a [`Party`] is written: `sourceFormat` and `destinationFormat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PartyFormat {
    /// E.164 with `+`.
    Msisdn,
    /// The text `anonymous`.
    Anonymous,
}

impl Party {
    /// What `source` or `destination` holds: the number in full, or `anonymous`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(number) => number.as_str(),
            Self::Anonymous => "anonymous",
        }
    }

    /// What `sourceFormat` or `destinationFormat` holds.
    #[must_use]
    pub fn format(&self) -> PartyFormat {
        match self {
            Self::Number(_) => PartyFormat::Msisdn,
            Self::Anonymous => PartyFormat::Anonymous,
        }
    }

    /// The number, when there is one.
    #[must_use]
    pub fn number(&self) -> Option<&Msisdn> {
        match self {
            Self::Number(number) => Some(number),
            Self::Anonymous => None,
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
        Msisdn::parse(&text)
            .map(Self::Number)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_prints_in_full() {
        let number = Msisdn::parse("6568330330").unwrap();
        assert_eq!(format!("{number} {number:?}"), "+65••••0330 +65••••0330");
        assert_eq!(format!("{}", Msisdn::parse("+12345").unwrap()), "+••••");
        assert_eq!(number.as_str(), "+6568330330");
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
