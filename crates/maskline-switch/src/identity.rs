//! How one trunk writes numbers and names callers: an operator's rules, and what they make of an
//! INVITE. Reading a number is here; the headers of an INVITE that arrives are in `arriving`, those
//! of one that leaves are in `leaving`.
//!
//! Pure: work and memory are bounded by the size of one header line, and nothing that a peer writes
//! is an error: it is a number, or it is none.

mod arriving;
mod leaving;
#[cfg(test)]
mod tests;

use maskline_events::Msisdn;
use serde::Deserialize;

use crate::numbers;
use crate::sip::{Uri, view};

pub use arriving::ArrivingCaller;
pub use leaving::{Leaving, LeavingParts};

/// A header of an arriving INVITE that may say who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerSource {
    /// `P-Asserted-Identity` (RFC 3325 §9.1).
    PAssertedIdentity,
    /// `From`.
    From,
    /// `Remote-Party-ID` (draft-ietf-sip-privacy-04), with its own `privacy` parameter.
    RemotePartyId,
    /// `P-Preferred-Identity` (RFC 3325 §9.2).
    PPreferredIdentity,
}

/// A part of an arriving INVITE that may say which of our numbers was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalledSource {
    /// The Request-URI.
    RequestUri,
    /// `To`.
    To,
    /// `Diversion` (RFC 5806), the most recent diversion first.
    Diversion,
    /// `P-Called-Party-ID` (RFC 7315 §4.2).
    PCalledPartyId,
    /// `History-Info` (RFC 7044), the most recent entry first.
    HistoryInfo,
}

/// What digits mean that have neither a `+` nor a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNumbers {
    /// An international number without its `+`.
    E164,
    /// A number within the trunk's country.
    National,
}

/// How numbers are written towards a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberFormat {
    /// `+6568330330`.
    E164,
    /// `006568330330`: the trunk's first international prefix and the digits.
    International,
    /// `68330330` or, with a national prefix, `068330330` within the trunk's country, and as
    /// [`Self::International`] otherwise.
    National,
    /// `6568330330`.
    Plain,
}

/// Which headers carry the virtual number to the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum CallerId {
    /// `From`.
    #[serde(rename = "from")]
    From,
    /// `From` and `P-Asserted-Identity`.
    #[serde(rename = "from+pai")]
    FromAndPai,
    /// `P-Asserted-Identity`; `From` names [`IdentityRules::from_user`].
    #[serde(rename = "pai")]
    Pai,
}

/// The scheme of the URIs that name a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UriScheme {
    /// `sip:NUMBER@HOST`.
    Sip,
    /// `tel:NUMBER` in Request-URI, `To` and `P-Asserted-Identity`; numbers are E.164.
    Tel,
}

/// The rules of one trunk. The digits of all prefixes and of the country code are ASCII digits;
/// whoever makes the rules has checked that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRules {
    /// Where the caller is looked for, in this order; the first number that is found counts.
    pub caller_from: Vec<CallerSource>,
    /// Where the called number is looked for; the first that is one of ours counts.
    pub called_from: Vec<CalledSource>,
    /// The calling code of the trunk's country, digits only. Without one, no national number is
    /// read.
    pub country_code: Option<String>,
    /// What stands before a national number (`0`); empty where there is nothing.
    pub national_prefix: String,
    /// What stands for `+`, the usual one first. At least one.
    pub international_prefixes: Vec<String>,
    /// What digits without any prefix mean.
    pub bare_numbers: BareNumbers,
    /// Digits, `*` and `#` that the trunk puts before numbers without a `+`; the longest that fits
    /// is taken away, once.
    pub strip: Vec<String>,
    /// Whether a caller who withholds the number is shown nevertheless.
    pub reveal_withheld: bool,
    /// How numbers are written towards the trunk.
    pub number_format: NumberFormat,
    /// Digits and `*` before the callee's number, in Request-URI and `To`.
    pub add_prefix: String,
    /// The scheme of URIs towards the trunk.
    pub uri: UriScheme,
    /// Whether SIP URIs that name a number carry `;user=phone`.
    pub user_phone: bool,
    /// Which headers carry the virtual number.
    pub caller_id: CallerId,
    /// The account that `From` names with [`CallerId::Pai`].
    pub from_user: Option<String>,
    /// The host of `From`; our own address without it.
    pub from_domain: Option<String>,
    /// The host of `P-Asserted-Identity`; that of `From` without it.
    pub pai_domain: Option<String>,
    /// Whether INVITEs say `Privacy: none`: the virtual number is meant to be shown.
    pub privacy_none: bool,
}

impl Default for IdentityRules {
    /// E.164 in both directions; the caller by `P-Asserted-Identity`, then `From`.
    fn default() -> Self {
        Self {
            caller_from: vec![CallerSource::PAssertedIdentity, CallerSource::From],
            called_from: vec![CalledSource::RequestUri],
            country_code: None,
            national_prefix: String::new(),
            international_prefixes: vec!["00".to_owned()],
            bare_numbers: BareNumbers::E164,
            strip: Vec::new(),
            reveal_withheld: false,
            number_format: NumberFormat::E164,
            add_prefix: String::new(),
            uri: UriScheme::Sip,
            user_phone: false,
            caller_id: CallerId::From,
            from_user: None,
            from_domain: None,
            pai_domain: None,
            privacy_none: false,
        }
    }
}

/// The fewest digits of a complete international number (Tristan da Cunha's, Niue's).
const SHORTEST_E164: usize = 7;
/// The most characters that a number may have before prefixes are taken away.
const LONGEST_DIALLED: usize = 64;

impl IdentityRules {
    /// Reads the number that a URI names: the user part of a `sip:` or `sips:` URI, the subscriber
    /// of a `tel:` URI, as [`Self::read`] does.
    #[must_use]
    pub fn read_uri(&self, uri: &Uri) -> Option<Msisdn> {
        self.read(&view::user_of(uri)?)
    }

    /// Reads a number as the trunk writes it, percent-decoding done: digits with an optional `+`,
    /// visual separators (RFC 3966 §5.1.1: `-` `.` `(` `)`, and the space), and parameters after a
    /// `;`.
    ///
    /// What begins with `+` or an international prefix is international. Otherwise, with a country
    /// code, what begins with the national prefix is national, and so are bare digits unless
    /// [`Self::bare_numbers`] says that they are E.164. A `phone-context` that is the trunk's own
    /// country makes bare digits national; digits local to any other number are none of ours (RFC
    /// 3966 §5.1.5).
    ///
    /// `None` for what is no number of a subscriber: other characters, `(0)` (whether that 0 is
    /// dialled depends on the country), more than 15 digits, fewer than 3, bare digits fewer than 7
    /// and national numbers that are too short for the country: extensions and short codes, which
    /// read as E.164 would be somebody else's number. A number with a `+` reads as itself under all
    /// rules.
    #[must_use]
    pub fn read(&self, raw: &str) -> Option<Msisdn> {
        let (body, parameters) = raw.split_once(';').unwrap_or((raw, ""));
        let dialled = dialled_digits(body)?;
        if let Some(international) = dialled.strip_prefix('+') {
            return international_number(international);
        }
        let dialled = without_prefix(&dialled, &self.strip);
        if let Some(international) = dialled.strip_prefix('+') {
            return international_number(international);
        }
        if let Some(international) = prefixed(dialled, &self.international_prefixes) {
            return international_number(international);
        }
        match (context(parameters), &self.country_code) {
            (Some(context), Some(code)) if context == *code => return self.national(dialled),
            (Some(_), _) => return None,
            (None, _) => {}
        }
        let says_national =
            !self.national_prefix.is_empty() && dialled.starts_with(&self.national_prefix);
        match self.bare_numbers {
            BareNumbers::National => self.national(dialled),
            BareNumbers::E164 if says_national => self.national(dialled),
            BareNumbers::E164 if dialled.len() < SHORTEST_E164 => None,
            BareNumbers::E164 => international_number(dialled),
        }
    }

    fn national(&self, dialled: &str) -> Option<Msisdn> {
        let code = self.country_code.as_deref()?;
        let subscriber = dialled
            .strip_prefix(self.national_prefix.as_str())
            .unwrap_or(dialled);
        if subscriber.is_empty() {
            return None;
        }
        international_number(&format!("{code}{subscriber}")).filter(numbers::is_assignable)
    }
}

/// Digits, `*` and `#`, with a `+` in front if there is one; `None` when anything else is in it.
fn dialled_digits(body: &str) -> Option<String> {
    if body.contains("(0)") {
        return None;
    }
    let mut dialled = String::new();
    for character in body.chars() {
        match character {
            '0'..='9' | '+' | '*' | '#' if dialled.len() < LONGEST_DIALLED => {
                dialled.push(character);
            }
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return None,
        }
    }
    Some(dialled)
}

/// What follows the longest of these prefixes.
fn prefixed<'a>(dialled: &'a str, prefixes: &[String]) -> Option<&'a str> {
    prefixes
        .iter()
        .filter(|prefix| !prefix.is_empty())
        .filter_map(|prefix| dialled.strip_prefix(prefix.as_str()))
        .min_by_key(|rest| rest.len())
}

fn without_prefix<'a>(dialled: &'a str, prefixes: &[String]) -> &'a str {
    prefixed(dialled, prefixes).unwrap_or(dialled)
}

fn international_number(digits: &str) -> Option<Msisdn> {
    // `Msisdn` would take another `+`.
    if digits.starts_with('+') {
        return None;
    }
    Msisdn::parse(digits).ok()
}

/// The digits of a `phone-context` that is a number; a domain gives no context.
fn context(parameters: &str) -> Option<String> {
    parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("phone-context"))
        .and_then(|(_, value)| value.trim().strip_prefix('+'))
        .map(|number| number.chars().filter(char::is_ascii_digit).collect())
}
