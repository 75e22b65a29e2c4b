//! What a relay counts, above all why packets were dropped.

use std::ops::AddAssign;

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Its side has not been programmed yet.
    NotProgrammed,
    /// It came from an address that was not negotiated.
    Stranger,
    /// It came from a negotiated host, but another source is latched, or it is the source of before.
    NotLatched,
    /// It came from a port of the same session of ours: somebody named it as a party's.
    Looped,
    /// Its party sends faster than any codec does, for longer than a stall of the network explains.
    TooMany,
    /// It is longer than [`crate::rtp::MAX_PACKET_BYTES`].
    TooLong,
    /// It is not protected by the party's key (RFC 3711), or not whole.
    NotAuthentic,
    /// It is protected, and came before, or is too old to tell; or another one of ours had its index.
    Replayed,
    /// It is no RTP packet.
    MalformedRtp,
    /// It is no RTCP compound.
    MalformedRtcp,
    /// Its payload type was not negotiated.
    UnknownPayload,
    /// The other side has not been programmed yet.
    ReceiverNotProgrammed,
    /// The other party does not want to receive.
    ReceiverOnHold,
    /// The other party did not negotiate this codec.
    ReceiverLacksCodec,
    /// The other party has no address that packets can be sent to.
    NoDestination,
    /// It was to be transcoded and is empty, of an odd length or longer than 200 ms.
    NotTranscodable,
    /// It is a key press that is played to the other party anew, or voice that such a press
    /// replaces.
    PlayedAnew,
    /// The other party is played a prompt.
    Prompted,
}

impl DropReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::NotProgrammed,
        Self::Stranger,
        Self::NotLatched,
        Self::Looped,
        Self::TooMany,
        Self::TooLong,
        Self::NotAuthentic,
        Self::Replayed,
        Self::MalformedRtp,
        Self::MalformedRtcp,
        Self::UnknownPayload,
        Self::ReceiverNotProgrammed,
        Self::ReceiverOnHold,
        Self::ReceiverLacksCodec,
        Self::NoDestination,
        Self::NotTranscodable,
        Self::PlayedAnew,
        Self::Prompted,
    ];

    /// The reason as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotProgrammed => "not_programmed",
            Self::Stranger => "stranger",
            Self::NotLatched => "not_latched",
            Self::Looped => "looped",
            Self::TooMany => "too_many",
            Self::TooLong => "too_long",
            Self::NotAuthentic => "not_authentic",
            Self::Replayed => "replayed",
            Self::MalformedRtp => "malformed_rtp",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::UnknownPayload => "unknown_payload",
            Self::ReceiverNotProgrammed => "receiver_not_programmed",
            Self::ReceiverOnHold => "receiver_on_hold",
            Self::ReceiverLacksCodec => "receiver_lacks_codec",
            Self::NoDestination => "no_destination",
            Self::NotTranscodable => "not_transcodable",
            Self::PlayedAnew => "played_anew",
            Self::Prompted => "prompted",
        }
    }
}

/// Dropped packets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// How many were dropped for this reason.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// How many were dropped for whatever reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + use<> {
        DropReason::ALL.into_iter().zip(self.0)
    }

    /// Counts more drops for a reason.
    pub fn add(&mut self, reason: DropReason, packets: u64) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += packets;
        }
    }
}

/// What a relay counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// Datagrams on the RTP ports.
    pub rtp_received: u64,
    /// RTP packets passed on.
    pub rtp_forwarded: u64,
    /// RTP packets of our own.
    pub rtp_made: u64,
    /// Datagrams on the RTCP ports.
    pub rtcp_received: u64,
    /// RTCP compounds of our own.
    pub rtcp_sent: u64,
    /// Key presses reported.
    pub presses: u64,
    /// Key presses that came faster than any finger and were not reported.
    pub presses_suppressed: u64,
    /// How often one party was heard and the other was not.
    pub one_way: u64,
    /// Datagrams of both kinds that went no further.
    pub drops: DropCounts,
}

impl AddAssign for RelayCounters {
    fn add_assign(&mut self, other: Self) {
        self.rtp_received += other.rtp_received;
        self.rtp_forwarded += other.rtp_forwarded;
        self.rtp_made += other.rtp_made;
        self.rtcp_received += other.rtcp_received;
        self.rtcp_sent += other.rtcp_sent;
        self.presses += other.presses;
        self.presses_suppressed += other.presses_suppressed;
        self.one_way += other.one_way;
        for (reason, packets) in other.drops.iter() {
            self.drops.add(reason, packets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_label() {
        let mut counts = DropCounts::default();
        for (n, reason) in (1..).zip(DropReason::ALL) {
            counts.add(reason, n);
        }
        for (n, (reason, packets)) in (1..).zip(counts.iter()) {
            assert_eq!((packets, counts.of(reason)), (n, n), "{}", reason.label());
        }
        assert_eq!(counts.total(), 171);
    }
}
