//! SRTP and SRTCP of one party (RFC 3711): what is sent to it is encrypted and authenticated, what comes
//! from it is verified and decrypted.
//!
//! Pure, and without an allocation per packet. Where keys come from, and how they are told to the party
//! (RFC 4568), is the switch's; randomness is an input.
//!
//! Left out: key derivation more than once and MKIs, which nobody offers; streams without encryption or
//! authentication. A new source begins with no rollover, or just behind its first one.

use std::fmt;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Bytes of a master key and its salt (RFC 4568 §6.2: 128 and 112 bits).
pub const KEY_BYTES: usize = 30;
/// What SRTCP adds: index and authentication (RFC 3711 §3.4), whatever the suite.
pub const RTCP_OVERHEAD_BYTES: usize = 4 + LONG_TAG;

const MASTER_KEY: usize = 16;
const SALT: usize = KEY_BYTES - MASTER_KEY;
const LONG_TAG: usize = 10;
const SHORT_TAG: usize = 4;
const BLOCK: usize = 16;
/// Blocks that are encrypted at once, which is what processors are made for.
const BLOCKS: usize = 8;
/// Sources of one party that are remembered; a call has one or two.
const MAX_SOURCES: usize = 16;
/// Packets behind the newest that may still come, once each.
const WINDOW: u64 = 128;
/// The bit of an SRTCP index that says that the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// How a party's packets are protected (RFC 4568 §6.2). SRTCP has the long tag in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpSuite {
    /// `AES_CM_128_HMAC_SHA1_80`.
    AesCm128Sha1Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`: a shorter tag, six bytes less per packet.
    AesCm128Sha1Tag32,
}

impl SrtpSuite {
    /// All of them, the best one first.
    pub const ALL: [Self; 2] = [Self::AesCm128Sha1Tag80, Self::AesCm128Sha1Tag32];

    /// As SDP writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCm128Sha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128Sha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    const fn tag_bytes(self) -> usize {
        match self {
            Self::AesCm128Sha1Tag80 => LONG_TAG,
            Self::AesCm128Sha1Tag32 => SHORT_TAG,
        }
    }
}

/// A master key with its salt. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SrtpKey(pub [u8; KEY_BYTES]);

impl fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SrtpKey(hidden)")
    }
}

/// What a party and we agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// The suite, of both directions.
    pub suite: SrtpSuite,
    /// By which we send.
    pub ours: SrtpKey,
    /// By which the party sends.
    pub theirs: SrtpKey,
}

/// Why a packet is not taken, or not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprotected {
    /// It is not whole, or not of whoever has the key.
    NotAuthentic,
    /// It came, or was sent, before; or so long ago that this is not known.
    Replayed,
}

/// The protection of one party's packets, in both directions.
#[derive(Debug)]
pub struct Protection {
    keys: SrtpKeys,
    outgoing: Direction,
    incoming: Direction,
    next_rtcp_index: u32,
}

/// One direction.
#[derive(Debug)]
struct Direction {
    rtp: SessionKeys,
    rtcp: SessionKeys,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

/// What a master key is turned into, for RTP or for RTCP.
#[derive(Clone)]
struct SessionKeys {
    cipher: Aes128,
    salt: [u8; SALT],
    mac: Hmac<Sha1>,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(hidden)")
    }
}

/// The sources that were heard, the last one heard first.
#[derive(Clone, Debug, Default)]
struct Sources(Vec<Source>);

/// One source: which of its packets came.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    /// The highest index of an authentic packet: a sequence number and its rollovers (RFC 3711 §3.3.1).
    highest: u64,
    /// Bit `n`: the packet `n` below the highest came.
    came: u128,
    /// Its index is of an earlier key, and may have started over with this one.
    of_before: bool,
}

impl Protection {
    /// With no packet sent or heard.
    #[must_use]
    pub fn new(keys: SrtpKeys) -> Self {
        Self {
            keys,
            outgoing: Direction::new(&keys.ours),
            incoming: Direction::new(&keys.theirs),
            next_rtcp_index: 0,
        }
    }

    /// The keys in use.
    #[must_use]
    pub const fn keys(&self) -> &SrtpKeys {
        &self.keys
    }

    /// Takes what was negotiated anew. A direction whose key stays goes on; one whose key changes keeps
    /// its sources' rollovers (RFC 3711 §3.3.1), and what comes by it counts as new.
    pub fn rekey(&mut self, keys: SrtpKeys) {
        if keys.ours != self.keys.ours {
            // Which of ours were sent is never forgotten, even if an earlier key comes back.
            self.outgoing = Direction {
                rtp_sources: std::mem::take(&mut self.outgoing.rtp_sources),
                ..Direction::new(&keys.ours)
            };
        }
        if keys.theirs != self.keys.theirs {
            self.incoming = self.incoming.under(&keys.theirs);
        }
        self.keys = keys;
    }

    /// Protects an RTP packet of ours in place; it grows by at most ten bytes.
    ///
    /// # Errors
    /// It is no RTP packet, or another had its index: nothing is ever sent by the same one.
    pub fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Result<(), Unprotected> {
        let header = RtpHeader::of(packet)?;
        let Direction {
            rtp, rtp_sources, ..
        } = &mut self.outgoing;
        let index = rtp_sources.index_of(header);
        rtp_sources.check(header.ssrc, index)?;
        let payload = packet.get_mut(header.bytes..).unwrap_or_default();
        rtp.apply(header.ssrc, index, payload);
        let tag = rtp.tag(packet, &rollovers(index));
        packet.extend(tag.iter().take(self.keys.suite.tag_bytes()));
        rtp_sources.take(header.ssrc, index);
        Ok(())
    }

    /// Verifies an SRTP packet and writes the RTP packet in it to `clear`.
    ///
    /// # Errors
    /// It is not the party's, or came before; nothing is changed.
    pub fn open_rtp(&mut self, packet: &[u8], clear: &mut Vec<u8>) -> Result<(), Unprotected> {
        let signed = packet.len().checked_sub(self.keys.suite.tag_bytes());
        let (signed, tag) = signed
            .and_then(|at| packet.split_at_checked(at))
            .ok_or(Unprotected::NotAuthentic)?;
        let header = RtpHeader::of(signed)?;
        let Direction {
            rtp, rtp_sources, ..
        } = &mut self.incoming;
        let index = rtp_sources.index_of(header);
        rtp_sources.check(header.ssrc, index)?;
        let index = if rtp.is_signed(signed, &rollovers(index), tag) {
            index
        } else {
            let other = rtp_sources.other_index_of(header);
            let other = other.filter(|other| rtp.is_signed(signed, &rollovers(*other), tag));
            let other = other.ok_or(Unprotected::NotAuthentic)?;
            rtp_sources.forget(header.ssrc);
            other
        };
        clear.clear();
        clear.extend_from_slice(signed);
        let payload = clear.get_mut(header.bytes..).unwrap_or_default();
        rtp.apply(header.ssrc, index, payload);
        rtp_sources.take(header.ssrc, index);
        Ok(())
    }

    /// Protects an RTCP compound of ours in place; it grows by [`RTCP_OVERHEAD_BYTES`].
    ///
    /// # Errors
    /// It is no RTCP packet.
    pub fn protect_rtcp(&mut self, compound: &mut Vec<u8>) -> Result<(), Unprotected> {
        let ssrc = rtcp_ssrc(compound)?;
        let index = self.next_rtcp_index;
        self.next_rtcp_index = (index + 1) % ENCRYPTED;
        let keys = &self.outgoing.rtcp;
        let body = compound.get_mut(8..).unwrap_or_default();
        keys.apply(ssrc, index.into(), body);
        compound.extend((index | ENCRYPTED).to_be_bytes());
        let tag = keys.tag(compound, &[]);
        compound.extend(tag.iter().take(LONG_TAG));
        Ok(())
    }

    /// Verifies an SRTCP packet and writes the compound in it to `clear`.
    ///
    /// # Errors
    /// It is not the party's, or came before; nothing is changed.
    pub fn open_rtcp(&mut self, packet: &[u8], clear: &mut Vec<u8>) -> Result<(), Unprotected> {
        let signed = packet.len().checked_sub(LONG_TAG);
        let (signed, tag) = signed
            .and_then(|at| packet.split_at_checked(at))
            .ok_or(Unprotected::NotAuthentic)?;
        let (compound, index) = signed
            .split_last_chunk::<4>()
            .ok_or(Unprotected::NotAuthentic)?;
        let ssrc = rtcp_ssrc(compound)?;
        let index = u32::from_be_bytes(*index);
        let Direction {
            rtcp, rtcp_sources, ..
        } = &mut self.incoming;
        // Unencrypted ones were not agreed on.
        if index & ENCRYPTED == 0 || !rtcp.is_signed(signed, &[], tag) {
            return Err(Unprotected::NotAuthentic);
        }
        let index = u64::from(index & !ENCRYPTED);
        rtcp_sources.check(ssrc, index)?;
        clear.clear();
        clear.extend_from_slice(compound);
        let body = clear.get_mut(8..).unwrap_or_default();
        rtcp.apply(ssrc, index, body);
        rtcp_sources.take(ssrc, index);
        Ok(())
    }
}

impl Direction {
    fn new(master: &SrtpKey) -> Self {
        Self {
            rtp: SessionKeys::derive(master, 0),
            rtcp: SessionKeys::derive(master, 3),
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
        }
    }

    /// The same sources under another key of the party's, which may start over.
    fn under(&self, master: &SrtpKey) -> Self {
        let sources = self.rtp_sources.0.iter().map(|source| Source {
            came: 0,
            of_before: true,
            ..*source
        });
        Self {
            rtp_sources: Sources(sources.collect()),
            ..Self::new(master)
        }
    }
}

impl SessionKeys {
    /// RFC 3711 §4.3: by three labels from this one on.
    fn derive(master: &SrtpKey, first_label: u8) -> Self {
        let (key, salt) = master
            .0
            .split_first_chunk::<MASTER_KEY>()
            .map_or(([0; MASTER_KEY], [0; SALT]), |(key, rest)| {
                (*key, rest.first_chunk().copied().unwrap_or_default())
            });
        let master = Aes128::new(&Array::from(key));
        let fill = |label: u8, into: &mut [u8]| {
            let mut counter = [0; BLOCK];
            for (place, byte) in counter.iter_mut().zip(salt) {
                *place = byte;
            }
            // The label is the highest byte of a key id of seven.
            if let Some(place) = counter.get_mut(SALT - 7) {
                *place ^= label;
            }
            xor_keystream(&master, counter, into);
        };
        let mut cipher = [0; MASTER_KEY];
        let mut mac = [0; 20];
        let mut salt = [0; SALT];
        fill(first_label, &mut cipher);
        fill(first_label + 1, &mut mac);
        fill(first_label + 2, &mut salt);
        Self {
            cipher: Aes128::new(&Array::from(cipher)),
            salt,
            mac: keyed(&mac),
        }
    }

    /// Encrypts or decrypts (RFC 3711 §4.1.1).
    fn apply(&self, ssrc: u32, index: u64, bytes: &mut [u8]) {
        let mut counter = [0; BLOCK];
        let own = self.salt.iter().chain(&[0; 2]);
        let packet = [0; 4]
            .into_iter()
            .chain(ssrc.to_be_bytes())
            .chain(index.to_be_bytes().into_iter().skip(2))
            .chain([0; 2]);
        for ((place, own), packet) in counter.iter_mut().zip(own).zip(packet) {
            *place = own ^ packet;
        }
        xor_keystream(&self.cipher, counter, bytes);
    }

    fn mac_of(&self, signed: &[u8], rollovers: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(signed);
        mac.update(rollovers);
        mac
    }

    fn tag(&self, signed: &[u8], rollovers: &[u8]) -> [u8; 20] {
        self.mac_of(signed, rollovers)
            .finalize()
            .into_bytes()
            .into()
    }

    /// In the same time for any tag.
    fn is_signed(&self, signed: &[u8], rollovers: &[u8], tag: &[u8]) -> bool {
        let mac = self.mac_of(signed, rollovers);
        mac.verify_truncated_left(tag).is_ok()
    }
}

/// Any length keys an HMAC.
#[allow(
    clippy::expect_used,
    reason = "only ciphers and other MACs refuse a length"
)]
fn keyed(key: &[u8]) -> Hmac<Sha1> {
    <Hmac<Sha1> as KeyInit>::new_from_slice(key).expect("any length keys an HMAC")
}

/// AES in counter mode, the counter being the last two bytes.
fn xor_keystream(cipher: &Aes128, mut counter: [u8; BLOCK], bytes: &mut [u8]) {
    let mut number: u16 = 0;
    for chunk in bytes.chunks_mut(BLOCK * BLOCKS) {
        let mut stream = [Array::from([0; BLOCK]); BLOCKS];
        let needed = chunk.len().div_ceil(BLOCK);
        let stream = stream.get_mut(..needed).unwrap_or_default();
        for block in &mut *stream {
            let [.., high, low] = &mut counter;
            [*high, *low] = number.to_be_bytes();
            number = number.wrapping_add(1);
            *block = Array::from(counter);
        }
        cipher.encrypt_blocks(stream);
        for (byte, key) in chunk.iter_mut().zip(stream.iter().flatten()) {
            *byte ^= key;
        }
    }
}

impl Sources {
    /// RFC 3711 §3.3.1: the index nearest to the highest one; that of a new source has no rollovers.
    fn index_of(&self, header: RtpHeader) -> u64 {
        let sequence = u64::from(header.sequence);
        let Some(source) = self.0.iter().find(|it| it.ssrc == header.ssrc) else {
            return sequence;
        };
        let rollovers = source.highest >> 16;
        let newest = source.highest & 0xffff;
        let rollovers = if newest < 0x8000 && sequence > newest + 0x8000 {
            // Before the first rollover there is no earlier one.
            rollovers.saturating_sub(1)
        } else if newest >= 0x8000 && sequence < newest - 0x8000 {
            rollovers + 1
        } else {
            rollovers
        };
        (rollovers << 16 | sequence) & ((1 << 48) - 1)
    }

    /// Whether a packet of this index may come (RFC 3711 §3.3.2).
    fn check(&self, ssrc: u32, index: u64) -> Result<(), Unprotected> {
        let Some(source) = self.0.iter().find(|it| it.ssrc == ssrc) else {
            return Ok(());
        };
        let Some(behind) = source.highest.checked_sub(index) else {
            return Ok(());
        };
        if behind >= WINDOW || source.came & (1 << behind) != 0 {
            return Err(Unprotected::Replayed);
        }
        Ok(())
    }

    /// What else the index of a packet may be: that of a source which was not heard before its first
    /// rollover, or which started over with its key.
    fn other_index_of(&self, header: RtpHeader) -> Option<u64> {
        let sequence = u64::from(header.sequence);
        match self.0.iter().find(|it| it.ssrc == header.ssrc) {
            None => (sequence < 0x8000).then_some(sequence | 1 << 16),
            Some(source) => source.of_before.then_some(sequence),
        }
    }

    fn forget(&mut self, ssrc: u32) {
        self.0.retain(|it| it.ssrc != ssrc);
    }

    /// An authentic packet came.
    fn take(&mut self, ssrc: u32, index: u64) {
        let at = self.0.iter().position(|it| it.ssrc == ssrc);
        let at = at.unwrap_or_else(|| {
            self.0.truncate(MAX_SOURCES - 1);
            self.0.push(Source {
                ssrc,
                highest: index,
                came: 0,
                of_before: false,
            });
            self.0.len() - 1
        });
        if at > 0 {
            self.0.get_mut(..=at).unwrap_or_default().rotate_right(1);
        }
        let Some(source) = self.0.first_mut() else {
            return;
        };
        source.of_before = false;
        match index.checked_sub(source.highest) {
            Some(ahead) => {
                let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
                source.came = source.came.checked_shl(shift).unwrap_or(0) | 1;
                source.highest = index;
            }
            None => source.came |= 1 << (source.highest - index).min(WINDOW - 1),
        }
    }
}

/// The parts of an RTP header that protection needs.
#[derive(Clone, Copy)]
struct RtpHeader {
    ssrc: u32,
    sequence: u16,
    /// Up to the payload, extension included.
    bytes: usize,
}

impl RtpHeader {
    fn of(packet: &[u8]) -> Result<Self, Unprotected> {
        Self::read(packet).ok_or(Unprotected::NotAuthentic)
    }

    fn read(packet: &[u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<12>()?;
        let [first, _, high, low, _, _, _, _, ssrc @ ..] = fixed;
        if first >> 6 != 2 {
            return None;
        }
        let csrc = usize::from(first & 0xf) * 4;
        let after = rest.get(csrc..)?;
        let extension = if first & 0x10 == 0 {
            0
        } else {
            let [_, _, words_high, words_low] = after.first_chunk::<4>()?;
            4 + usize::from(u16::from_be_bytes([*words_high, *words_low])) * 4
        };
        after.get(extension..)?;
        Some(Self {
            ssrc: u32::from_be_bytes(*ssrc),
            sequence: u16::from_be_bytes([*high, *low]),
            bytes: 12 + csrc + extension,
        })
    }
}

fn rtcp_ssrc(compound: &[u8]) -> Result<u32, Unprotected> {
    let ssrc = compound.get(4..).and_then(<[u8]>::first_chunk);
    ssrc.map(|ssrc| u32::from_be_bytes(*ssrc))
        .ok_or(Unprotected::NotAuthentic)
}

const fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]
mod tests;
