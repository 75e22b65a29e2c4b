//! One RTP stream as we send it: its own SSRC, its own sequence numbers and timestamps, without a
//! jump when what feeds it changes.
//!
//! What lives elsewhere: reading and writing packets ([`crate::rtp`]), reports about the stream
//! ([`crate::rtcp`]).

use std::time::Duration;

use crate::rtcp::SenderInfo;
use crate::rtp::RtpPacket;
use crate::tick::Tick;

/// A jump ahead by so many packets is a source that starts over (RFC 3550 §A.1).
const MAX_DROPOUT: u16 = 3_000;
/// A packet more than so many behind is one too; of those that SRTP takes, none is.
const MAX_MISORDER: u16 = 127;

/// The stream towards one party.
///
/// Within one incoming source, sequence numbers and timestamps are shifted by a constant, so that
/// loss and order stay visible to the receiver. A new source goes on with the next sequence number,
/// and with the timestamp that the time passed asks for. So does one that starts over with its SSRC: what is far
/// behind would be taken for late or repeated, by SRTP above all.
#[derive(Clone, Debug)]
pub struct OutgoingStream {
    ssrc: u32,
    first_sequence: u16,
    first_timestamp: u32,
    shift: Option<Shift>,
    sent: Option<Sent>,
}

/// A packet that no party sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPacket<'a> {
    /// The payload type by which the party knows it.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Of the payload type, in Hz.
    pub clock_rate: u32,
    /// Where it stands in the stream's time.
    pub step: Step,
    /// What it holds.
    pub payload: &'a [u8],
}

/// How far a packet of our own is behind the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// As far as time has passed: it begins something.
    TimePassed,
    /// So many ticks of its clock: it goes on with something. None: it says more of the same moment.
    Ticks(u32),
}

#[derive(Clone, Copy, Debug)]
struct Shift {
    incoming_ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

/// What was sent in all, both numbers modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentSoFar {
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    /// Of the last packet.
    pub(crate) clock_rate: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    highest_sequence: u16,
    timestamp: u32,
    at: Tick,
    clock_rate: u32,
    packets: u32,
    octets: u32,
}

impl OutgoingStream {
    /// A stream that begins with these values, which have to be unpredictable (RFC 3550 §5.1).
    #[must_use]
    pub const fn new(ssrc: u32, first_sequence: u16, first_timestamp: u32) -> Self {
        Self {
            ssrc,
            first_sequence,
            first_timestamp,
            shift: None,
            sent: None,
        }
    }

    /// Our SSRC.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Whether anything was sent.
    #[must_use]
    pub const fn has_sent(&self) -> bool {
        self.sent.is_some()
    }

    pub(crate) fn sent_so_far(&self) -> Option<SentSoFar> {
        self.sent.map(|sent| SentSoFar {
            packets: sent.packets,
            octets: sent.octets,
            clock_rate: sent.clock_rate,
        })
    }

    /// The next packet comes from another source, even if its SSRC is the same.
    pub const fn source_changed(&mut self) {
        self.shift = None;
    }

    /// The packet as it is to be sent now, with `payload_type` in its place.
    pub fn translate<'a>(
        &mut self,
        now: Tick,
        packet: &RtpPacket<'a>,
        payload_type: u8,
        clock_rate: u32,
    ) -> RtpPacket<'a> {
        let shift = match self.shift {
            Some(shift)
                if shift.incoming_ssrc == packet.ssrc && !self.is_far_off(shift, packet) =>
            {
                shift
            }
            Some(_) | None => self.shift_for(now, packet, clock_rate),
        };
        self.shift = Some(shift);
        let translated = RtpPacket {
            marker: packet.marker,
            payload_type,
            sequence: packet.sequence.wrapping_add(shift.sequence),
            timestamp: packet.timestamp.wrapping_add(shift.timestamp),
            ssrc: self.ssrc,
            payload: packet.payload,
        };
        self.count(now, &translated, clock_rate);
        translated
    }

    /// A packet of our own making, in one timeline with what is relayed: it has the next sequence
    /// number, and what comes in behind it goes on as a new source would.
    pub fn own<'a>(&mut self, now: Tick, own: OwnPacket<'a>) -> RtpPacket<'a> {
        let start = (self.first_sequence, self.first_timestamp);
        let (sequence, timestamp) = self.sent.map_or(start, |sent| {
            let ticks = match own.step {
                Step::TimePassed => clock_ticks(now.since(sent.at), own.clock_rate).max(1),
                Step::Ticks(ticks) => ticks,
            };
            let sequence = sent.highest_sequence.wrapping_add(1);
            (sequence, sent.timestamp.wrapping_add(ticks))
        });
        self.shift = None;
        let packet = RtpPacket {
            marker: own.marker,
            payload_type: own.payload_type,
            sequence,
            timestamp,
            ssrc: self.ssrc,
            payload: own.payload,
        };
        self.count(now, &packet, own.clock_rate);
        packet
    }

    /// What a sender report says of this stream (RFC 3550 §6.4.1), `None` before the first packet.
    ///
    /// The NTP timestamp counts from `opened`, which that section allows to a sender that does not
    /// want to show its wall clock.
    #[must_use]
    pub fn sender_info(&self, now: Tick, opened: Tick) -> Option<SenderInfo> {
        self.sent.map(|sent| SenderInfo {
            ntp_timestamp: ntp(now.since(opened)),
            rtp_timestamp: sent
                .timestamp
                .wrapping_add(clock_ticks(now.since(sent.at), sent.clock_rate)),
            packets: sent.packets,
            octets: sent.octets,
        })
    }

    /// Whether a packet is too far ahead or behind to be merely lost before or late.
    fn is_far_off(&self, shift: Shift, packet: &RtpPacket<'_>) -> bool {
        self.sent.is_some_and(|sent| {
            let sequence = packet.sequence.wrapping_add(shift.sequence);
            let ahead = sequence.wrapping_sub(sent.highest_sequence);
            (MAX_DROPOUT..=u16::MAX - MAX_MISORDER).contains(&ahead)
        })
    }

    fn shift_for(&self, now: Tick, packet: &RtpPacket<'_>, clock_rate: u32) -> Shift {
        let (sequence, timestamp) =
            self.sent
                .map_or((self.first_sequence, self.first_timestamp), |sent| {
                    let passed = clock_ticks(now.since(sent.at), clock_rate).max(1);
                    (
                        sent.highest_sequence.wrapping_add(1),
                        sent.timestamp.wrapping_add(passed),
                    )
                });
        Shift {
            incoming_ssrc: packet.ssrc,
            sequence: sequence.wrapping_sub(packet.sequence),
            timestamp: timestamp.wrapping_sub(packet.timestamp),
        }
    }

    fn count(&mut self, now: Tick, packet: &RtpPacket<'_>, clock_rate: u32) {
        let sent = self.sent.get_or_insert(Sent {
            highest_sequence: packet.sequence,
            timestamp: packet.timestamp,
            at: now,
            clock_rate,
            packets: 0,
            octets: 0,
        });
        if packet.sequence.wrapping_sub(sent.highest_sequence) < 0x8000 {
            sent.highest_sequence = packet.sequence;
        }
        // The repeated timestamp of a telephone-event says nothing about now.
        if packet
            .timestamp
            .wrapping_sub(sent.timestamp)
            .wrapping_sub(1)
            < 0x7fff_ffff
        {
            sent.timestamp = packet.timestamp;
            sent.at = now;
            sent.clock_rate = clock_rate;
        }
        sent.packets = sent.packets.wrapping_add(1);
        sent.octets = sent
            .octets
            .wrapping_add(u32::try_from(packet.payload.len()).unwrap_or(u32::MAX));
    }
}

/// How many ticks of an RTP clock fit into a time, modulo 2^32.
#[must_use]
pub(crate) fn clock_ticks(time: Duration, clock_rate: u32) -> u32 {
    let ticks = time.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
    (ticks & u128::from(u32::MAX)) as u32
}

/// A time as an NTP timestamp: 32 bits of seconds, 32 bits of their fraction.
#[must_use]
pub(crate) fn ntp(time: Duration) -> u64 {
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    (time.as_secs() << 32) | fraction
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> RtpPacket<'static> {
        RtpPacket {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp,
            ssrc,
            payload: &[0; 160],
        }
    }

    #[test]
    fn the_first_packet_gets_our_numbers_and_the_next_keep_their_distance() {
        let mut stream = OutgoingStream::new(77, 65_535, u32::MAX);
        let first = stream.translate(at(0), &packet(1, 500, 9_000), 8, 8_000);
        assert_eq!(
            (
                first.ssrc,
                first.sequence,
                first.timestamp,
                first.payload_type
            ),
            (77, 65_535, u32::MAX, 8)
        );
        let skipped_one = stream.translate(at(40), &packet(1, 502, 9_320), 8, 8_000);
        assert_eq!((skipped_one.sequence, skipped_one.timestamp), (1, 319));
        let late = stream.translate(at(41), &packet(1, 501, 9_160), 8, 8_000);
        assert_eq!((late.sequence, late.timestamp), (0, 159));
    }

    #[test]
    fn a_source_that_starts_over_goes_on_where_it_was() {
        let mut stream = OutgoingStream::new(77, 10, 1_000);
        stream.translate(at(0), &packet(1, 500, 9_000), 0, 8_000);
        let late = stream.translate(at(1), &packet(1, 500 - 127, 9_000), 0, 8_000);
        assert_eq!(late.sequence, 10_u16.wrapping_sub(127), "late");
        for (ms, sequence, expected) in [
            (20, 500 - 128, 11),
            (40, 373, 12),
            (60, 3_372, 3_011),
            (80, 6_372, 3_012),
            (100, 6_373, 3_013),
        ] {
            let timestamp = u32::from(sequence) * 160;
            let sent = stream.translate(at(ms), &packet(1, sequence, timestamp), 0, 8_000);
            assert_eq!(sent.sequence, expected, "{sequence}");
        }
    }

    #[test]
    fn a_new_source_goes_on_where_the_old_one_was() {
        let mut stream = OutgoingStream::new(77, 10, 1_000);
        stream.translate(at(0), &packet(1, 500, 9_000), 0, 8_000);
        stream.translate(at(20), &packet(1, 501, 9_160), 0, 8_000);
        let other = stream.translate(at(520), &packet(2, 3, 44), 0, 8_000);
        assert_eq!((other.sequence, other.timestamp), (12, 1_160 + 4_000));
        stream.source_changed();
        let same_ssrc = stream.translate(at(520), &packet(2, 900, 4), 0, 8_000);
        assert_eq!((same_ssrc.sequence, same_ssrc.timestamp), (13, 5_161));
    }

    #[test]
    fn packets_of_our_own_stand_in_one_timeline_with_what_is_relayed() {
        let mut stream = OutgoingStream::new(77, 10, 1_000);
        let own = |step| OwnPacket {
            payload_type: 101,
            marker: step == Step::TimePassed,
            clock_rate: 8_000,
            step,
            payload: &[0; 4],
        };
        let first = stream.own(at(0), own(Step::TimePassed));
        assert_eq!(
            (first.sequence, first.timestamp, first.ssrc),
            (10, 1_000, 77)
        );
        stream.translate(at(20), &packet(1, 500, 9_000), 0, 8_000);
        for (ms, step, sequence, timestamp) in [
            (60, Step::TimePassed, 12, 1_160 + 320),
            (80, Step::Ticks(0), 13, 1_160 + 320),
            (100, Step::Ticks(160), 14, 1_160 + 480),
        ] {
            let sent = stream.own(at(ms), own(step));
            assert_eq!(
                (sent.sequence, sent.timestamp),
                (sequence, timestamp),
                "{ms}"
            );
        }
        let relayed = stream.translate(at(130), &packet(1, 503, 9_480), 0, 8_000);
        assert_eq!((relayed.sequence, relayed.timestamp), (15, 1_160 + 720));
        let next = stream.translate(at(150), &packet(1, 504, 9_640), 0, 8_000);
        assert_eq!((next.sequence, next.timestamp), (16, 1_160 + 880));
    }

    #[test]
    fn the_sender_report_extrapolates_to_now() {
        let mut stream = OutgoingStream::new(77, 10, 1_000);
        assert!(stream.sender_info(at(0), at(0)).is_none());
        stream.translate(at(1_000), &packet(1, 500, 9_000), 0, 8_000);
        stream.translate(at(1_500), &packet(1, 501, 9_000), 101, 8_000);
        let info = stream.sender_info(at(3_500), at(1_000)).unwrap();
        assert_eq!(info.ntp_timestamp, (2 << 32) | (1 << 31));
        assert_eq!(info.rtp_timestamp, 1_000 + 20_000);
        assert_eq!((info.packets, info.octets), (2, 320));
    }
}
