//! RTCP packets (RFC 3550 §6): reading a party's compound, and writing ours from nothing.
//!
//! What lives elsewhere: when a report is due and what it says ([`crate::relay`],
//! [`crate::quality`]).

use thiserror::Error;

const VERSION: u8 = 2;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const CNAME_ITEM: u8 = 1;
const BLOCK_BYTES: usize = 24;

/// Why a datagram is no RTCP compound, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no RTCP compound: {kind} at byte {offset}")]
pub struct RtcpError {
    /// The byte at which the faulty packet of the compound begins.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: RtcpErrorKind,
}

/// What is wrong with a datagram that is no RTCP compound (RFC 3550 §A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpErrorKind {
    /// The header or the announced length does not fit.
    #[error("packet cut short")]
    Short,
    /// A version other than 2.
    #[error("unknown version")]
    Version,
    /// The first packet is neither a sender nor a receiver report.
    #[error("compound without a leading report")]
    NoReport,
    /// Padding on another packet than the last, or more of it than the packet holds.
    #[error("impossible padding")]
    Padding,
    /// The counted entries are longer than the packet.
    #[error("entries cut short")]
    ShortEntries,
}

/// A valid RTCP compound.
#[derive(Clone, Copy, Debug)]
pub struct RtcpCompound<'a> {
    datagram: &'a [u8],
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpPacket<'a> {
    /// SR: who sends, and what it sent.
    SenderReport {
        /// The sender.
        ssrc: u32,
        /// What it sent.
        info: SenderInfo,
        /// What it received.
        blocks: ReportBlocks<'a>,
    },
    /// RR: what was received.
    ReceiverReport {
        /// The receiver.
        ssrc: u32,
        /// What it received.
        blocks: ReportBlocks<'a>,
    },
    /// SDES.
    SourceDescription {
        /// The canonical name in the first chunk, if there is one.
        cname: Option<&'a [u8]>,
    },
    /// BYE.
    Goodbye {
        /// The first source that leaves.
        ssrc: Option<u32>,
    },
    /// APP, feedback and whatever else there is.
    Other {
        /// Its packet type.
        packet_type: u8,
    },
}

/// The sender information of a sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// When the report was made: seconds and their fraction, 32 bits each.
    pub ntp_timestamp: u64,
    /// The same instant on the RTP timestamp's clock.
    pub rtp_timestamp: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload bytes sent so far.
    pub octets: u32,
}

/// A report block (RFC 3550 §6.4.1): what was received of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// The fraction lost since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost so far, negative with duplicates; 24 bits on the wire, clamped to them.
    pub cumulative_lost: i32,
    /// The highest sequence number received, below the count of its cycles.
    pub extended_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// The middle of the NTP timestamp of the source's last sender report, 0 without one.
    pub last_report: u32,
    /// How long ago that report came, in 1/65536 s.
    pub delay_since_last_report: u32,
}

/// The report blocks of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlocks<'a> {
    blocks: &'a [[u8; BLOCK_BYTES]],
}

/// An RTCP compound of ours: a report, our canonical name, and a BYE if it is the last.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our SSRC towards the party.
    pub ssrc: u32,
    /// Our canonical name towards the party; at most 255 bytes are written.
    pub cname: &'a str,
    /// What we sent; makes it a sender report.
    pub sender: Option<SenderInfo>,
    /// What we received from the party.
    pub block: Option<ReportBlock>,
    /// Whether we leave.
    pub goodbye: bool,
}

impl<'a> RtcpCompound<'a> {
    /// Checks a datagram by the rules of RFC 3550 §A.2, each packet's entries included.
    ///
    /// # Errors
    ///
    /// The first fault, with the offset of the packet that has it.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RtcpError> {
        let mut rest = datagram;
        let mut first = true;
        while first || !rest.is_empty() {
            let offset = datagram.len() - rest.len();
            let fault = |kind| RtcpError { offset, kind };
            let (packet, following) = split_packet(rest).map_err(fault)?;
            if first && !matches!(packet.packet_type, SENDER_REPORT | RECEIVER_REPORT) {
                return Err(fault(RtcpErrorKind::NoReport));
            }
            if packet.padded && !following.is_empty() {
                return Err(fault(RtcpErrorKind::Padding));
            }
            packet.read().map_err(fault)?;
            rest = following;
            first = false;
        }
        Ok(Self { datagram })
    }

    /// Its packets in order.
    pub fn packets(&self) -> impl Iterator<Item = RtcpPacket<'a>> + use<'a> {
        let mut rest = self.datagram;
        std::iter::from_fn(move || {
            let (packet, following) = split_packet(rest).ok()?;
            rest = following;
            packet.read().ok()
        })
    }
}

impl<'a> ReportBlocks<'a> {
    /// The blocks in order, at most 31.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.blocks.iter().map(ReportBlock::from_bytes)
    }
}

impl ReportBlock {
    fn from_bytes(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let [
            r0,
            r1,
            r2,
            r3,
            fraction_lost,
            l0,
            l1,
            l2,
            h0,
            h1,
            h2,
            h3, //
            j0,
            j1,
            j2,
            j3,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = *bytes;
        Self {
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            fraction_lost,
            // Shifted up and down again, for the sign.
            cumulative_lost: i32::from_be_bytes([l0, l1, l2, 0]) >> 8,
            extended_sequence: u32::from_be_bytes([h0, h1, h2, h3]),
            jitter: u32::from_be_bytes([j0, j1, j2, j3]),
            last_report: u32::from_be_bytes([s0, s1, s2, s3]),
            delay_since_last_report: u32::from_be_bytes([d0, d1, d2, d3]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff);
        let [_, l0, l1, l2] = lost.to_be_bytes();
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&[self.fraction_lost, l0, l1, l2]);
        out.extend_from_slice(&self.extended_sequence.to_be_bytes());
        out.extend_from_slice(&self.jitter.to_be_bytes());
        out.extend_from_slice(&self.last_report.to_be_bytes());
        out.extend_from_slice(&self.delay_since_last_report.to_be_bytes());
    }
}

impl Report<'_> {
    /// The compound as a datagram.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let count = u8::from(self.block.is_some());
        let packet_type = if self.sender.is_some() {
            SENDER_REPORT
        } else {
            RECEIVER_REPORT
        };
        packet(&mut out, packet_type, count, |out| {
            out.extend_from_slice(&self.ssrc.to_be_bytes());
            if let Some(info) = self.sender {
                out.extend_from_slice(&info.ntp_timestamp.to_be_bytes());
                out.extend_from_slice(&info.rtp_timestamp.to_be_bytes());
                out.extend_from_slice(&info.packets.to_be_bytes());
                out.extend_from_slice(&info.octets.to_be_bytes());
            }
            if let Some(block) = self.block {
                block.write(out);
            }
        });
        packet(&mut out, SOURCE_DESCRIPTION, 1, |out| {
            let bytes = self.cname.as_bytes();
            let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            out.extend_from_slice(&self.ssrc.to_be_bytes());
            out.extend_from_slice(&[CNAME_ITEM, length]);
            out.extend(bytes.iter().take(usize::from(length)));
            // The list ends with a null byte, the chunk on a word.
            out.push(0);
        });
        if self.goodbye {
            packet(&mut out, GOODBYE, 1, |out| {
                out.extend_from_slice(&self.ssrc.to_be_bytes());
            });
        }
        out
    }
}

/// Appends one packet, filled up to whole words, with its length put in afterwards.
fn packet(out: &mut Vec<u8>, packet_type: u8, count: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION << 6 | (count & 0x1f), packet_type, 0, 0]);
    body(out);
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(u16::MAX);
    if let Some(length) = out.get_mut(start + 2..start + 4) {
        length.copy_from_slice(&words.to_be_bytes());
    }
}

#[derive(Clone, Copy)]
struct RawPacket<'a> {
    packet_type: u8,
    count: usize,
    padded: bool,
    body: &'a [u8],
}

fn split_packet(bytes: &[u8]) -> Result<(RawPacket<'_>, &[u8]), RtcpErrorKind> {
    let ([b0, packet_type, l0, l1], rest) =
        bytes.split_first_chunk::<4>().ok_or(RtcpErrorKind::Short)?;
    if b0 >> 6 != VERSION {
        return Err(RtcpErrorKind::Version);
    }
    let body_bytes = usize::from(u16::from_be_bytes([*l0, *l1])) * 4;
    let (body, following) = rest
        .split_at_checked(body_bytes)
        .ok_or(RtcpErrorKind::Short)?;
    let padded = b0 & 0x20 != 0;
    let body = if padded {
        let count = usize::from(body.last().copied().unwrap_or(0));
        let kept = body.len().checked_sub(count).filter(|_| count > 0);
        kept.and_then(|kept| body.get(..kept))
            .ok_or(RtcpErrorKind::Padding)?
    } else {
        body
    };
    let packet = RawPacket {
        packet_type: *packet_type,
        count: usize::from(b0 & 0x1f),
        padded,
        body,
    };
    Ok((packet, following))
}

impl<'a> RawPacket<'a> {
    fn read(&self) -> Result<RtcpPacket<'a>, RtcpErrorKind> {
        let packet = match self.packet_type {
            SENDER_REPORT => self.sender_report(),
            RECEIVER_REPORT => self.receiver_report(),
            SOURCE_DESCRIPTION => self.source_description(),
            GOODBYE => self.goodbye(),
            packet_type => Some(RtcpPacket::Other { packet_type }),
        };
        packet.ok_or(RtcpErrorKind::ShortEntries)
    }

    fn sender_report(&self) -> Option<RtcpPacket<'a>> {
        let (ssrc, rest) = self.body.split_first_chunk::<4>()?;
        let (ntp, rest) = rest.split_first_chunk::<8>()?;
        let (rtp, rest) = rest.split_first_chunk::<4>()?;
        let (packets, rest) = rest.split_first_chunk::<4>()?;
        let (octets, rest) = rest.split_first_chunk::<4>()?;
        Some(RtcpPacket::SenderReport {
            ssrc: u32::from_be_bytes(*ssrc),
            info: SenderInfo {
                ntp_timestamp: u64::from_be_bytes(*ntp),
                rtp_timestamp: u32::from_be_bytes(*rtp),
                packets: u32::from_be_bytes(*packets),
                octets: u32::from_be_bytes(*octets),
            },
            blocks: self.blocks(rest)?,
        })
    }

    fn receiver_report(&self) -> Option<RtcpPacket<'a>> {
        let (ssrc, rest) = self.body.split_first_chunk::<4>()?;
        Some(RtcpPacket::ReceiverReport {
            ssrc: u32::from_be_bytes(*ssrc),
            blocks: self.blocks(rest)?,
        })
    }

    fn blocks(&self, bytes: &'a [u8]) -> Option<ReportBlocks<'a>> {
        let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
        Some(ReportBlocks {
            blocks: blocks.get(..self.count)?,
        })
    }

    fn source_description(&self) -> Option<RtcpPacket<'a>> {
        if self.count == 0 {
            return Some(RtcpPacket::SourceDescription { cname: None });
        }
        let (_, mut items) = self.body.split_first_chunk::<4>()?;
        let mut cname = None;
        loop {
            let (kind, rest) = items.split_first()?;
            if *kind == 0 {
                return Some(RtcpPacket::SourceDescription { cname });
            }
            let (length, rest) = rest.split_first()?;
            let (text, following) = rest.split_at_checked(usize::from(*length))?;
            if *kind == CNAME_ITEM && cname.is_none() {
                cname = Some(text);
            }
            items = following;
        }
    }

    fn goodbye(&self) -> Option<RtcpPacket<'a>> {
        let (sources, _) = self.body.as_chunks::<4>();
        let sources = sources.get(..self.count)?;
        Some(RtcpPacket::Goodbye {
            ssrc: sources.first().map(|ssrc| u32::from_be_bytes(*ssrc)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INFO: SenderInfo = SenderInfo {
        ntp_timestamp: 0x0102_0304_0506_0708,
        rtp_timestamp: 9,
        packets: 10,
        octets: 11,
    };

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 12,
        fraction_lost: 13,
        cumulative_lost: -14,
        extended_sequence: 15,
        jitter: 16,
        last_report: 17,
        delay_since_last_report: 18,
    };

    fn kind(datagram: &[u8]) -> (usize, RtcpErrorKind) {
        let error = RtcpCompound::parse(datagram).unwrap_err();
        (error.offset, error.kind)
    }

    fn full() -> Vec<u8> {
        Report {
            ssrc: 7,
            cname: "abc",
            sender: Some(INFO),
            block: Some(BLOCK),
            goodbye: true,
        }
        .to_bytes()
    }

    #[test]
    fn our_compound_reads_back_as_report_name_and_goodbye() {
        let datagram = full();
        let packets: Vec<_> = RtcpCompound::parse(&datagram).unwrap().packets().collect();
        let [
            RtcpPacket::SenderReport {
                ssrc: 7,
                info,
                blocks,
            },
            RtcpPacket::SourceDescription {
                cname: Some(b"abc"),
            },
            RtcpPacket::Goodbye { ssrc: Some(7) },
        ] = packets[..]
        else {
            panic!("{packets:?}");
        };
        assert_eq!(info, INFO);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [BLOCK]);
    }

    #[test]
    fn without_anything_sent_it_is_a_receiver_report() {
        let report = Report {
            ssrc: 7,
            cname: "abcd",
            sender: None,
            block: None,
            goodbye: false,
        };
        let bytes = report.to_bytes();
        assert_eq!(
            bytes,
            [
                0x80, 201, 0, 1, 0, 0, 0, 7, // RR
                0x81, 202, 0, 3, 0, 0, 0, 7, 1, 4, b'a', b'b', b'c', b'd', 0, 0, // SDES
            ]
        );
    }

    #[test]
    fn extended_reports_are_passed_over_and_what_is_beside_them_counts() {
        let mut datagram = full();
        // RFC 3611: one block of a type that nobody knows, with a length that leads nowhere.
        packet(&mut datagram, 207, 0, |out| {
            out.extend_from_slice(&[0, 0, 0, 7, 250, 0, 0xff, 0xff]);
        });
        let packets: Vec<_> = RtcpCompound::parse(&datagram).unwrap().packets().collect();
        assert_eq!(packets.len(), 4);
        assert!(matches!(packets[0], RtcpPacket::SenderReport { .. }));
        assert_eq!(packets[3], RtcpPacket::Other { packet_type: 207 });
        let beyond = datagram.len() - 12;
        datagram[beyond + 3] = 9;
        assert_eq!(kind(&datagram), (beyond, RtcpErrorKind::Short));
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let good = full();
        assert_eq!(kind(&[]), (0, RtcpErrorKind::Short));
        assert_eq!(kind(&good[..20]), (0, RtcpErrorKind::Short));
        assert_eq!(kind(&good[52..]), (0, RtcpErrorKind::NoReport));
        let changed = |at: usize, byte: u8| {
            let mut datagram = good.clone();
            datagram[at] = byte;
            datagram
        };
        assert_eq!(kind(&changed(52, 0x41)), (52, RtcpErrorKind::Version));
        assert_eq!(kind(&changed(0, 0xa1)), (0, RtcpErrorKind::Padding));
        assert_eq!(kind(&changed(0, 0x82)), (0, RtcpErrorKind::ShortEntries));
        assert_eq!(kind(&changed(61, 250)), (52, RtcpErrorKind::ShortEntries));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            mut datagram in proptest::collection::vec(any::<u8>(), 0..200), plausible: bool,
        ) {
            if plausible && datagram.len() > 3 {
                datagram[0] = 0x80 | (datagram[0] & 3);
                datagram[1] = 200 + (datagram[1] & 1);
                datagram[2] = 0;
                datagram[3] &= 31;
            }
            if let Ok(compound) = RtcpCompound::parse(&datagram) {
                prop_assert!((1..=50).contains(&compound.packets().count()));
            }
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0usize..80, byte: u8) {
            let mut datagram = full();
            let at = at % datagram.len();
            datagram[at] = byte;
            let _ = RtcpCompound::parse(&datagram).map(|compound| compound.packets().count());
        }
    }
}
