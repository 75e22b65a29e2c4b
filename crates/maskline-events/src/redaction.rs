//! Hiding phone numbers in the body of a webhook: the beginning and the end of each are shown, or a
//! token stands for it.
//!
//! The same body, way and key always give the same text, so that retries and replays are equal byte
//! for byte. What lives elsewhere: which endpoint wants it (`maskline-store`), sending and signing
//! (`maskline-webhook`).

#[cfg(test)]
mod tests;
mod tree;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::msisdn::{Msisdn, Party, PartyFormat, TOKEN_CHARACTERS, TOKEN_PREFIX};
use tree::Node;

/// What the bodies that an endpoint gets show of phone numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Redaction {
    /// All of them.
    #[default]
    Full,
    /// `+65••••3033`: the first two digits and up to four of the last, so that four at least are hidden; of
    /// a number with fewer than 8 digits nothing.
    Masked,
    /// `tok_` and 22 characters, equal for equal numbers of a sub-account.
    Token,
}

/// A text that is no JSON. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON, so its numbers can't be hidden")]
pub struct Unreadable;

/// A way of hiding numbers. No `Debug`: it may hold a key.
#[derive(Clone)]
pub struct Hiding(Way);

#[derive(Clone)]
enum Way {
    Masked,
    Token(Zeroizing<[u8; 32]>),
}

/// Fields that hold a number or `anonymous`, and nothing else.
const NUMBERS: [&str; 3] = ["source", "destination", "msisdn"];
/// Fields that say how one is written.
const FORMATS: [&str; 2] = ["sourceFormat", "destinationFormat"];
/// Fields that are as they are, even if digits of a number occur in them: names, times and figures. No
/// additional parameter may have such a name.
pub(crate) const KEPT: [&str; 25] = [
    "eventId",
    "callId",
    "sessionId",
    "recordingId",
    "subAccountId",
    "timestamp",
    "startTime",
    "endTime",
    "initiatedTimestamp",
    "connectedTimestamp",
    "disconnectedTimestamp",
    "updatedTimestamp",
    "callDuration",
    "durationSeconds",
    "sipCode",
    "sequence",
    "errorCode",
    "callCount",
    "mos",
    "packetLossRate",
    "jitter",
    "totalNumbers",
    "rentalPrice",
    "incomingRate",
    "billingUnit",
];
/// As many digits of one of the body's numbers in a row give it away in any other text.
const TELLING: usize = 6;
/// As many digits in a row may be anybody's number: that of another leg, or one that was never on a leg.
const ANYBODYS: usize = 7;
/// Of what can't be a number.
const NOTHING: &str = "••••";

impl Hiding {
    /// The way of an endpoint, if anything is hidden from it. The key makes tokens: one per
    /// sub-account, so that two of them can't compare theirs.
    #[must_use]
    pub fn new(redaction: Redaction, key: impl FnOnce() -> Zeroizing<[u8; 32]>) -> Option<Self> {
        match redaction {
            Redaction::Full => None,
            Redaction::Masked => Some(Self(Way::Masked)),
            Redaction::Token => Some(Self(Way::Token(key()))),
        }
    }

    /// The body with every number hidden: those of its legs, and in other texts each run of digits that
    /// gives one of them away or is long enough for any number. The rest is as it was, in the same order.
    ///
    /// # Errors
    /// [`Unreadable`]; nothing of such a body may be shown.
    pub fn body(&self, body: &str) -> Result<String, Unreadable> {
        let mut tree: Node = serde_json::from_str(body).map_err(|_| Unreadable)?;
        let mut numbers = Vec::new();
        collect(&tree, "", &mut numbers);
        numbers.sort();
        numbers.dedup();
        self.hide(&mut tree, "", &numbers);
        serde_json::to_string(&tree).map_err(|_| Unreadable)
    }

    /// What stands for a number.
    #[must_use]
    pub fn number(&self, number: &Msisdn) -> String {
        match &self.0 {
            Way::Masked => number.to_string(),
            Way::Token(key) => {
                let mut mac = Hmac::<Sha256>::new((&*block(key)).into());
                mac.update(number.digits().as_bytes());
                let mut token = TOKEN_PREFIX.to_owned();
                let encoded = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
                token.extend(encoded.chars().take(TOKEN_CHARACTERS));
                token
            }
        }
    }

    fn format(&self) -> &'static str {
        match self.0 {
            Way::Masked => PartyFormat::Masked.as_str(),
            Way::Token(_) => PartyFormat::Token.as_str(),
        }
    }

    fn hide(&self, node: &mut Node, name: &str, numbers: &[Msisdn]) {
        match node {
            Node::Object(fields) => {
                for (name, value) in fields {
                    self.hide(value, name, numbers);
                }
            }
            Node::Array(items) => {
                for item in items {
                    self.hide(item, name, numbers);
                }
            }
            Node::Text(text) if NUMBERS.contains(&name) => {
                if text != Party::Anonymous.as_str() {
                    *text = self.digits(text);
                }
            }
            Node::Number(number) if NUMBERS.contains(&name) => {
                *node = Node::Text(self.digits(&number.to_string()));
            }
            Node::Text(text) if FORMATS.contains(&name) => {
                if text == PartyFormat::Msisdn.as_str() {
                    self.format().clone_into(text);
                }
            }
            Node::Text(text) if !KEPT.contains(&name) => {
                if let Some(hidden) = self.text(text, numbers) {
                    *text = hidden;
                }
            }
            Node::Number(number) if !KEPT.contains(&name) => {
                if let Some(hidden) = self.text(&number.to_string(), numbers) {
                    *node = Node::Text(hidden);
                }
            }
            Node::Text(_) | Node::Number(_) | Node::Truth(_) | Node::Null => {}
        }
    }

    /// What stands for a text that is a number, or should be one.
    fn digits(&self, text: &str) -> String {
        Msisdn::parse(text).map_or_else(|_| NOTHING.to_owned(), |number| self.number(&number))
    }

    /// A text in which each run of digits that is or may be a number is hidden; `None`: there is none.
    /// A run goes on over what people write between digits.
    fn text(&self, text: &str, numbers: &[Msisdn]) -> Option<String> {
        let mut rest = text;
        let mut done = String::new();
        let mut any = false;
        while let Some(from) = rest.find(|it: char| it.is_ascii_digit()) {
            let (before, run) = rest.split_at_checked(from)?;
            let end = run.find(|it: char| !it.is_ascii_digit() && !is_between_digits(it));
            let (run, _) = run.split_at_checked(end.unwrap_or(run.len()))?;
            let run = run.trim_end_matches(is_between_digits);
            let after = rest.get(before.len() + run.len()..)?;
            let digits: String = run.chars().filter(char::is_ascii_digit).collect();
            done.push_str(before);
            let hidden = match numbers.iter().find(|number| tells(&digits, number)) {
                Some(number) => Some(self.number(number)),
                None => (digits.len() >= ANYBODYS).then(|| self.digits(&digits)),
            };
            match hidden {
                Some(hidden) => {
                    if done.ends_with('+') {
                        done.pop();
                    }
                    done.push_str(&hidden);
                    any = true;
                }
                None => done.push_str(run),
            }
            rest = after;
        }
        any.then(|| done + rest)
    }
}

/// What numbers are written with: space (of any width, also one that does not break), hyphen, dot, brackets.
fn is_between_digits(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '-' | '.' | '(' | ')' | '\u{2010}'..='\u{2015}')
}

/// Whether a run of digits has a whole number or a telling part of it.
fn tells(run: &str, number: &Msisdn) -> bool {
    let digits = number.digits();
    let part = digits.len().min(TELLING);
    let mut parts = digits.as_bytes().windows(part);
    parts.any(|part| run.as_bytes().windows(part.len()).any(|it| it == part))
}

fn collect(node: &Node, name: &str, numbers: &mut Vec<Msisdn>) {
    match node {
        Node::Object(fields) => {
            for (name, value) in fields {
                collect(value, name, numbers);
            }
        }
        Node::Array(items) => {
            for item in items {
                collect(item, name, numbers);
            }
        }
        Node::Text(text) if NUMBERS.contains(&name) => numbers.extend(Msisdn::parse(text)),
        Node::Number(number) if NUMBERS.contains(&name) => {
            numbers.extend(Msisdn::parse(&number.to_string()));
        }
        Node::Text(_) | Node::Number(_) | Node::Truth(_) | Node::Null => {}
    }
}

/// A key of 32 bytes as HMAC-SHA256 pads it (RFC 2104 §2).
fn block(key: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    block
}
