//! Our own tags, Call-IDs and branches: random, and carrying the shard that owns the call.
//!
//! Whatever socket an answer or an in-dialog request comes by, the shard can be read from it
//! without a table.

use std::fmt;

pub use maskline_media::Side;
use rand::RngCore;

/// The tag that we put into a dialog: which shard, which session, which side, and 64 random bits.
///
/// The session key is random as well, so that a tag tells a peer nothing about how many calls we
/// carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTag {
    /// The shard that owns the call.
    pub shard: u16,
    /// The side of the masked call that the dialog belongs to.
    pub side: Side,
    /// The session's key within the shard.
    pub session: u64,
    /// What makes the tag unguessable (RFC 3261 §19.3 asks for 32 random bits).
    pub secret: u64,
}

impl LocalTag {
    /// Reads a tag that we made; `None` for anyone else's.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        let rest = tag.strip_prefix('m')?;
        let mut parts = rest.split('.');
        let shard = u16::from_str_radix(parts.next()?, 16).ok()?;
        let side = match parts.next()? {
            "a" => Side::Caller,
            "b" => Side::Callee,
            _ => return None,
        };
        let session = hex_u64(parts.next()?)?;
        let secret = hex_u64(parts.next()?)?;
        parts.next().is_none().then_some(Self {
            shard,
            side,
            session,
            secret,
        })
    }
}

impl fmt::Display for LocalTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Caller => 'a',
            Side::Callee => 'b',
        };
        write!(
            f,
            "m{:x}.{side}.{:016x}.{:016x}",
            self.shard, self.session, self.secret
        )
    }
}

/// A new branch (RFC 3261 §8.1.1.7) that carries the shard.
#[must_use]
pub fn new_branch(shard: u16, rng: &mut dyn RngCore) -> String {
    format!(
        "z9hG4bKm{shard:x}.{:016x}{:08x}",
        rng.next_u64(),
        rng.next_u32()
    )
}

/// The shard that a branch of ours carries.
#[must_use]
pub fn shard_of_branch(branch: &str) -> Option<u16> {
    let rest = branch.strip_prefix("z9hG4bKm")?;
    let (shard, _) = rest.split_once('.')?;
    u16::from_str_radix(shard, 16).ok()
}

/// A new Call-ID: 128 random bits, no host name.
#[must_use]
pub fn new_call_id(rng: &mut dyn RngCore) -> String {
    format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

fn hex_u64(text: &str) -> Option<u64> {
    (text.len() == 16)
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_back_and_a_strange_one_is_not_ours() {
        let tag = LocalTag {
            shard: 3,
            side: Side::Callee,
            session: 7,
            secret: u64::MAX,
        };
        assert_eq!(LocalTag::parse(&tag.to_string()), Some(tag));
        for strange in ["", "m", "1234", "m3.c.0.0", "m3.a.0.0", "mzz.a.1.2"] {
            assert_eq!(LocalTag::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_branch_carries_its_shard() {
        let mut rng = <rand_chacha::ChaCha12Rng as rand::SeedableRng>::seed_from_u64(1);
        let branch = new_branch(11, &mut rng);
        assert_eq!(shard_of_branch(&branch), Some(11));
        assert_eq!(shard_of_branch("z9hG4bK776asdhds"), None);
    }
}
