//! Keys of a phone whose media are protected (RFC 4568): what its descriptions say of them, right or wrong.
//!
//! What lives elsewhere: protecting packets, which no phone of ours does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use maskline_media::{MediaAddresses, SrtpSuite};
use maskline_switch::sdp::{self, MediaDescription, SrtpPolicy, Terms};

use crate::phone::Phone;

/// Any 30 bytes.
const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// What a phone takes of the keys that it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// In its first description.
    pub first: KeyLine,
    /// In all that follow.
    pub later: KeyLine,
}

/// Which `a=crypto` a description has, beside those that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLine {
    /// The first of them.
    First,
    /// The second of a new offer: the suite with the short tag.
    Second,
    /// The first, by a number that none has.
    OtherTag,
    /// The first, with the suite of the second.
    OtherSuite,
    /// Both of a new offer.
    Both,
}

impl Phone {
    /// What the far end describes, in the way that this phone's media are.
    pub(crate) fn read(&self, body: &[u8]) -> Option<MediaDescription> {
        if self.config.manners.keys.is_none() {
            return sdp::parse(body).ok();
        }
        let (four, six) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let terms = Terms {
            addresses: MediaAddresses::both(IpAddr::V4(four), IpAddr::V6(six))?,
            srtp: SrtpPolicy::Required,
        };
        sdp::parse_for(body, terms).ok()
    }

    /// A description, protected if this phone's media are.
    pub(crate) fn with_keys(&self, plain: String) -> String {
        let Some(keys) = self.config.manners.keys else {
            return plain;
        };
        let line = if self.said.is_empty() {
            keys.first
        } else {
            keys.later
        };
        let (long, short) = (SrtpSuite::AesCm128Sha1Tag80, SrtpSuite::AesCm128Sha1Tag32);
        let offered = self.remote.as_ref().and_then(|remote| remote.srtp);
        let (tag, suite) = offered.map_or((1, long), |it| (it.tag, it.suite));
        let lines = match line {
            KeyLine::First => vec![(tag, suite)],
            KeyLine::Second => vec![(2, short)],
            KeyLine::OtherTag => vec![(tag + 7, suite)],
            KeyLine::OtherSuite => vec![(tag, short)],
            KeyLine::Both => vec![(1, long), (2, short)],
        };
        let mut text = plain.replace("RTP/AVP", "RTP/SAVP");
        for (tag, suite) in lines {
            text.push_str(&format!("a=crypto:{tag} {} inline:{KEY}\r\n", suite.name()));
        }
        text
    }
}
