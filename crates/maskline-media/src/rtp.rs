//! RTP packets (RFC 3550 §5.1): reading one, and writing one that carries nothing of another hop.
//!
//! What lives elsewhere: sequence and timestamp translation ([`crate::stream`]), who may send
//! ([`crate::relay`]).

use thiserror::Error;

/// The length of a header without CSRC entries and extension.
pub const HEADER_BYTES: usize = 12;

/// The longest RTP or RTCP datagram that is looked at; audio stays far below it.
pub const MAX_PACKET_BYTES: usize = 2048;

const VERSION: u8 = 2;
const MARKER: u8 = 0x80;
const PAYLOAD_TYPE: u8 = 0x7f;

/// An RTP packet without what does not pass a hop: CSRC list, header extension and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// The marker bit, whose meaning the payload format defines.
    pub marker: bool,
    /// The payload type, 0-127.
    pub payload_type: u8,
    /// The sequence number, one more with each packet, modulo 2^16.
    pub sequence: u16,
    /// The timestamp in units of the payload's clock rate, modulo 2^32.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    /// The payload without padding.
    pub payload: &'a [u8],
}

/// Why a datagram is no RTP packet, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no RTP packet: {kind} at byte {offset}")]
pub struct RtpError {
    /// The byte at which the fault lies, counted from 0.
    pub offset: usize,
    /// What is wrong there.
    pub kind: RtpErrorKind,
}

/// What is wrong with a datagram that is no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtpErrorKind {
    /// Fewer than the twelve bytes of the fixed header.
    #[error("header cut short")]
    ShortHeader,
    /// A version other than 2.
    #[error("unknown version")]
    Version,
    /// The CSRC count announces more than there is.
    #[error("CSRC list cut short")]
    ShortCsrcList,
    /// The header extension is announced, but not there in full.
    #[error("header extension cut short")]
    ShortExtension,
    /// The padding bit is set and the last byte does not count a padding that fits.
    #[error("impossible padding")]
    Padding,
}

impl<'a> RtpPacket<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// The first fault in it, with its offset.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RtpError> {
        let fault = |offset, kind| RtpError { offset, kind };
        let Some((header, rest)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
            return Err(fault(datagram.len(), RtpErrorKind::ShortHeader));
        };
        let [b0, b1, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = *header;
        if b0 >> 6 != VERSION {
            return Err(fault(0, RtpErrorKind::Version));
        }
        let csrc_bytes = usize::from(b0 & 0x0f) * 4;
        let after_csrc = rest
            .get(csrc_bytes..)
            .ok_or(fault(HEADER_BYTES, RtpErrorKind::ShortCsrcList))?;
        let padded = if b0 & 0x10 == 0 {
            after_csrc
        } else {
            skip_extension(after_csrc).ok_or(fault(
                HEADER_BYTES + csrc_bytes,
                RtpErrorKind::ShortExtension,
            ))?
        };
        let payload = if b0 & 0x20 == 0 {
            padded
        } else {
            strip_padding(padded).ok_or(fault(
                datagram.len().saturating_sub(1),
                RtpErrorKind::Padding,
            ))?
        };
        Ok(Self {
            marker: b1 & MARKER != 0,
            payload_type: b1 & PAYLOAD_TYPE,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            payload,
        })
    }

    /// Replaces what `out` holds by this packet as a datagram: version 2, no padding, no
    /// extension, no CSRC. Bits of the payload type above 127 are cut off.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let marker = if self.marker { MARKER } else { 0 };
        out.extend_from_slice(&[VERSION << 6, marker | (self.payload_type & PAYLOAD_TYPE)]);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(self.payload);
    }
}

/// RFC 3550 §5.3.1: two bytes of the profile's choice, a length in words, that many words.
fn skip_extension(bytes: &[u8]) -> Option<&[u8]> {
    let ([_, _, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
    rest.get(usize::from(u16::from_be_bytes([*l0, *l1])) * 4..)
}

/// The last byte counts the padding, itself included.
fn strip_padding(bytes: &[u8]) -> Option<&[u8]> {
    let count = usize::from(*bytes.last()?);
    if count == 0 {
        return None;
    }
    bytes.get(..bytes.len().checked_sub(count)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: [u8; 14] = [
        0x80, 0x88, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef, 7, 9,
    ];

    fn kind(datagram: &[u8]) -> (usize, RtpErrorKind) {
        let error = RtpPacket::parse(datagram).unwrap_err();
        (error.offset, error.kind)
    }

    #[test]
    fn a_plain_packet_is_read_field_by_field() {
        assert_eq!(
            RtpPacket::parse(&PLAIN).unwrap(),
            RtpPacket {
                marker: true,
                payload_type: 8,
                sequence: 0x1234,
                timestamp: 160,
                ssrc: 0xdead_beef,
                payload: &[7, 9],
            }
        );
    }

    #[test]
    fn csrc_extension_and_padding_are_gone_after_rewriting() {
        let mut datagram = vec![0xb2, 0x08];
        datagram.extend_from_slice(&PLAIN[2..12]);
        datagram.extend_from_slice(b"CSR1CSR2");
        datagram.extend_from_slice(&[0xbe, 0xde, 0, 1]);
        datagram.extend_from_slice(b"EXTN");
        datagram.extend_from_slice(&[7, 9, 0xaa, 0xaa, 3]);
        let packet = RtpPacket::parse(&datagram).unwrap();
        assert_eq!(packet.payload, &[7, 9]);
        let mut out = vec![1, 2, 3];
        packet.write(&mut out);
        assert_eq!(out[0], 0x80);
        assert_eq!(&out[12..], &[7, 9]);
        assert_eq!(out.len(), 14);
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        assert_eq!(kind(&[]), (0, RtpErrorKind::ShortHeader));
        assert_eq!(kind(&PLAIN[..11]), (11, RtpErrorKind::ShortHeader));
        let with_first = |first: u8| {
            let mut datagram = PLAIN;
            datagram[0] = first;
            datagram
        };
        assert_eq!(kind(&with_first(0x40)), (0, RtpErrorKind::Version));
        assert_eq!(kind(&with_first(0x81)), (12, RtpErrorKind::ShortCsrcList));
        assert_eq!(kind(&with_first(0x90)), (12, RtpErrorKind::ShortExtension));
        assert_eq!(kind(&with_first(0xa0)), (13, RtpErrorKind::Padding));
        let mut zero_padding = with_first(0xa0);
        zero_padding[13] = 0;
        assert_eq!(kind(&zero_padding), (13, RtpErrorKind::Padding));
        assert_eq!(
            kind(&with_first(0xa0)[..12]),
            (11, RtpErrorKind::Padding),
            "padding of an empty payload"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let packet = RtpPacket {
                marker, payload_type, sequence, timestamp, ssrc, payload: &payload,
            };
            let mut out = Vec::new();
            packet.write(&mut out);
            prop_assert_eq!(RtpPacket::parse(&out).unwrap(), packet);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused_within_their_length(
            datagram in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            match RtpPacket::parse(&datagram) {
                Ok(packet) => prop_assert!(packet.payload.len() + HEADER_BYTES <= datagram.len()),
                Err(error) => prop_assert!(error.offset <= datagram.len()),
            }
        }
    }
}
