//! Keys in SDP (RFC 4568): `a=crypto` lines that we can use, and our own.
//!
//! Whoever writes them travels over TLS; whether it does is decided where a party's trunk is known. No
//! key is ever shown by `Debug`, nor kept in a snapshot.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use maskline_media::{SrtpKey, SrtpKeys, SrtpSuite};

use super::MediaDescription;
use super::parse::number;

/// Whether a party's media are protected (`RTP/SAVP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Never: an offer of it is refused.
    #[default]
    Off,
    /// Where the party offers it; we offer plain media.
    Accepted,
    /// Always: plain media are refused.
    Required,
}

/// A usable `a=crypto` line of a party: the key by which it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crypto {
    /// Its number, which an answer repeats.
    pub tag: u32,
    /// How packets are protected, in both directions.
    pub suite: SrtpSuite,
    /// The key.
    pub key: SrtpKey,
}

/// The number and the suite of a line that a party was offered: an answer takes one of those
/// (RFC 4568 §5.1.3).
pub type OfferedLine = (u32, SrtpSuite);

/// Our keys towards one party, in the order of [`SrtpSuite::ALL`]: each suite has one of its own.
pub type OurKeys = [SrtpKey; SrtpSuite::ALL.len()];

/// Our end of protected media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OurSrtp {
    /// By which we send.
    pub keys: OurKeys,
    /// Whether a party that has not described itself is offered protected media.
    pub offered: bool,
}

impl OurSrtp {
    /// What the engine needs, given the party's line.
    #[must_use]
    pub fn with(&self, theirs: &Crypto) -> SrtpKeys {
        SrtpKeys {
            suite: theirs.suite,
            ours: self.key(theirs.suite),
            theirs: theirs.key,
        }
    }

    /// The lines of an offer to a party, none if it is one of plain media: a party that has described itself
    /// gets back the line that is in use.
    #[must_use]
    pub fn lines(&self, known: Option<&MediaDescription>) -> Vec<OfferedLine> {
        let line = |it: Crypto| (it.tag, it.suite);
        match known {
            Some(known) => known.srtp.map(line).into_iter().collect(),
            None => self.offer().filter(|_| self.offered).map(line).collect(),
        }
    }

    const fn key(&self, suite: SrtpSuite) -> SrtpKey {
        let [long, short] = self.keys;
        match suite {
            SrtpSuite::AesCm128Sha1Tag80 => long,
            SrtpSuite::AesCm128Sha1Tag32 => short,
        }
    }

    /// Our answer to a line of the party.
    pub(super) fn answer(&self, theirs: &Crypto) -> Crypto {
        Crypto {
            tag: theirs.tag,
            suite: theirs.suite,
            key: self.key(theirs.suite),
        }
    }

    /// Our offer, the best suite first.
    pub(super) fn offer(&self) -> impl Iterator<Item = Crypto> {
        (1..).zip(SrtpSuite::ALL).map(|(tag, suite)| Crypto {
            tag,
            suite,
            key: self.key(suite),
        })
    }
}

impl Crypto {
    /// The value of the attribute, as it is written.
    pub(super) fn text(&self) -> String {
        let (tag, suite) = (self.tag, self.suite.name());
        format!(
            "{tag} {suite} inline:{}",
            STANDARD_NO_PAD.encode(self.key.0)
        )
    }

    /// Reads a value. `None`: another suite, several keys, an MKI, a parameter that changes what is
    /// protected (RFC 4568 §6.3), or no such line.
    pub(super) fn read(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().filter(|tag| tag.len() <= 9).and_then(number)?;
        let name = words.next()?;
        let suite = SrtpSuite::ALL.into_iter().find(|it| it.name() == name)?;
        let key = words.next()?.strip_prefix("inline:")?;
        // Behind the key may stand its lifetime, which no call outlasts, and an MKI, which has a colon.
        let (key, rest) = key.split_once('|').unwrap_or((key, ""));
        let plain = |parameter: &str| parameter.starts_with("WSH=") || parameter == "KDR=0";
        if rest.contains([':', ';']) || !words.all(plain) {
            return None;
        }
        let key = STANDARD_NO_PAD.decode(key).ok()?;
        Some(Self {
            tag,
            suite,
            key: SrtpKey(key.try_into().ok()?),
        })
    }
}

/// A message without its keys, of the same length; `None`: it has none. Those of other ways to tell keys
/// (`k=`, `a=key-mgmt`) are keys as well, though we read none of them.
#[must_use]
pub fn without_keys(message: &[u8]) -> Option<Vec<u8>> {
    let mut hidden = None;
    hide(message, b"inline:", u8::is_ascii_whitespace, &mut hidden);
    for before in [&b"\nk="[..], b"\na=key-mgmt:"] {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        hide(message, before, is_end, &mut hidden);
    }
    hidden
}

/// Stars from behind what stands before a key to its end.
fn hide(message: &[u8], before: &[u8], is_end: impl Fn(&u8) -> bool, hidden: &mut Option<Vec<u8>>) {
    let mut at = 0;
    while let Some(rest) = message.get(at..) {
        let is_before = |it: &[u8]| it.eq_ignore_ascii_case(before);
        let Some(found) = rest.windows(before.len()).position(is_before) else {
            return;
        };
        let start = at + found + before.len();
        let key = message.get(start..).unwrap_or_default().iter();
        let end = start + key.take_while(|byte| !is_end(byte)).count();
        let copy = hidden.get_or_insert_with(|| message.to_vec());
        copy.get_mut(start..end).unwrap_or_default().fill(b'*');
        at = end;
    }
}
