//! A party whose packets are protected (RFC 3711): what lies between the wire and what the relay reads
//! and writes. Of any other party, packets pass as they are.

use std::net::SocketAddr;

use super::Party;
use crate::counters::DropReason;
use crate::rtp::MAX_PACKET_BYTES;
use crate::srtp::{Protection, SrtpKeys, Unprotected};
use crate::tick::Tick;

impl Party {
    /// Takes the keys that were negotiated. A protection that is not in use is kept, so that no index of
    /// a key is ever used again.
    pub(super) fn secure(&mut self, keys: Option<SrtpKeys>) {
        match (&mut self.protection, keys) {
            (Some(protection), Some(keys)) => protection.rekey(keys),
            (protection @ None, Some(keys)) => *protection = Some(Box::new(Protection::new(keys))),
            (Some(_) | None, None) => {}
        }
    }

    /// The RTP packet in a datagram, which `clear` holds if it was protected. Whoever can't be this party
    /// costs no decryption.
    pub(crate) fn reveal_rtp<'a>(
        &mut self,
        now: Tick,
        from: SocketAddr,
        datagram: &'a [u8],
        clear: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], DropReason> {
        let (Some(media), Some(protection)) = (&self.media, &mut self.protection) else {
            return Ok(datagram);
        };
        if media.srtp.is_none() {
            return Ok(datagram);
        }
        let told = Some(media.rtp);
        let opened = match self.rtp_latch.check(now, from, told, &media.sources) {
            Ok(()) if datagram.len() > MAX_PACKET_BYTES => Err(DropReason::TooLong),
            Ok(()) => protection.open_rtp(datagram, clear).map_err(Into::into),
            Err(reason) => Err(reason),
        };
        match opened {
            Ok(()) => Ok(clear),
            Err(reason) => {
                self.sight.on_refused(reason, from.ip(), datagram);
                Err(reason)
            }
        }
    }

    /// As [`Self::reveal_rtp`], of an RTCP compound; `muxed`: it came on the RTP port.
    pub(crate) fn reveal_rtcp<'a>(
        &mut self,
        now: Tick,
        from: SocketAddr,
        muxed: bool,
        datagram: &'a [u8],
        clear: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], DropReason> {
        let (Some(media), Some(protection)) = (&self.media, &mut self.protection) else {
            return Ok(datagram);
        };
        if media.srtp.is_none() {
            return Ok(datagram);
        }
        let (latch, told) = if muxed {
            (&mut self.rtp_latch, Some(media.rtp))
        } else {
            (&mut self.rtcp_latch, media.rtcp)
        };
        latch.check(now, from, told, &media.sources)?;
        if datagram.len() > MAX_PACKET_BYTES {
            return Err(DropReason::TooLong);
        }
        protection.open_rtcp(datagram, clear)?;
        Ok(clear)
    }

    /// Protects an RTP packet to this party.
    pub(crate) fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Result<(), DropReason> {
        match self.in_use() {
            Some(protection) => Ok(protection.protect_rtp(packet)?),
            None => Ok(()),
        }
    }

    /// Protects an RTCP compound to this party.
    pub(crate) fn protect_rtcp(&mut self, compound: &mut Vec<u8>) -> Result<(), DropReason> {
        match self.in_use() {
            Some(protection) => Ok(protection.protect_rtcp(compound)?),
            None => Ok(()),
        }
    }

    fn in_use(&mut self) -> Option<&mut Protection> {
        let wanted = self.media.as_ref()?.srtp.is_some();
        self.protection.as_deref_mut().filter(|_| wanted)
    }
}

impl From<Unprotected> for DropReason {
    fn from(reason: Unprotected) -> Self {
        match reason {
            Unprotected::NotAuthentic => Self::NotAuthentic,
            Unprotected::Replayed => Self::Replayed,
        }
    }
}
