//! A change of a session that is under way: our re-INVITE or UPDATE on one side, and why it is sent
//! (RFC 3261 §14, RFC 3311).
//!
//! Data and small questions about it; what happens is decided in [`crate::shard`]. Each side has
//! one such request at most. None of it is kept in a snapshot: a restarted node has none under way.

use std::time::Duration;

use bytes::Bytes;
use maskline_media::Tick;

use crate::sdp::MediaDescription;
use crate::sip::{Method, Peer, TxId};

/// A request of ours inside one side's dialog that is not settled yet.
#[derive(Clone, Debug)]
pub struct OwnRequest {
    /// Why it is sent.
    pub intent: Intent,
    /// By which method.
    pub vehicle: Vehicle,
    /// How far it is.
    pub state: OwnState,
    /// Whether it carries an offer.
    pub offers: bool,
    /// How often it left.
    pub tries: u8,
    /// After this it is not tried again.
    pub gives_up: Tick,
}

/// Why a request of ours is sent.
#[derive(Clone, Debug)]
pub enum Intent {
    /// The other party asked for a change; its request waits for the outcome.
    PassOn(Asked),
    /// The platform's own: nothing is to change (a session refresh, RFC 4028).
    Refresh,
    /// The platform's own: this side is to have what is in use again, or the codecs that are left.
    Align,
    /// Nobody waits for it any more.
    Abandoned,
}

/// What the other party asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its request, unanswered unless [`OwnState::Unacknowledged`].
    pub tx: TxId,
    /// What it offers; `None`: an INVITE without an offer wants ours.
    pub offer: Option<MediaDescription>,
}

/// The method that carries a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vehicle {
    /// A re-INVITE.
    Invite,
    /// An UPDATE with an offer.
    Update,
    /// An UPDATE without one.
    BareUpdate,
}

impl Vehicle {
    /// Its method.
    #[must_use]
    pub const fn method(self) -> Method {
        match self {
            Self::Invite => Method::Invite,
            Self::Update | Self::BareUpdate => Method::Update,
        }
    }
}

/// How far a request of ours is.
#[derive(Clone, Debug)]
pub enum OwnState {
    /// It has not left: an ACK of this side is waited for, or the time to try again.
    Waiting {
        /// Whether a timer says when to try.
        timed: bool,
    },
    /// It is out.
    Sent {
        /// Its transaction.
        tx: TxId,
        /// Its `CSeq` number.
        cseq: u32,
        /// Whether any 1xx came.
        provisional: bool,
        /// Whether it is given up.
        cancel: Cancel,
    },
    /// Its 2xx brought an offer, which the other party has; our ACK waits for the answer.
    Unacknowledged {
        /// The INVITE's `CSeq` number.
        cseq: u32,
        /// What this side offers.
        offer: MediaDescription,
    },
}

/// How far a re-INVITE of ours is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It is wanted.
    No,
    /// Its CANCEL waits for a 1xx (RFC 3261 §9.1).
    Wanted,
    /// Its CANCEL is out.
    Sent,
}

/// The ACK to a 2xx of this side's to a re-INVITE of ours, sent again for each repetition.
#[derive(Clone)]
pub struct Acknowledged {
    /// The INVITE's `CSeq` number.
    pub cseq: u32,
    /// Where the ACK goes.
    pub peer: Peer,
    /// The ACK.
    pub ack: Bytes,
}

impl OwnRequest {
    /// A request that has not left.
    #[must_use]
    pub const fn new(intent: Intent, vehicle: Vehicle, gives_up: Tick) -> Self {
        Self {
            intent,
            vehicle,
            state: OwnState::Waiting { timed: false },
            offers: false,
            tries: 0,
            gives_up,
        }
    }

    /// Whether it is out, or its 2xx is not acknowledged, so that a request of the same side with
    /// an offer crosses it (RFC 3261 §14.2, RFC 3311 §5.2).
    #[must_use]
    pub const fn is_out(&self) -> bool {
        match self.state {
            OwnState::Waiting { .. } => false,
            OwnState::Sent { .. } => match self.vehicle {
                Vehicle::Invite | Vehicle::Update => true,
                Vehicle::BareUpdate => false,
            },
            OwnState::Unacknowledged { .. } => true,
        }
    }

    /// Whether an INVITE of ours has no final answer, or no ACK, so that SIP is still owed.
    #[must_use]
    pub const fn owes_sip(&self) -> bool {
        match self.state {
            OwnState::Waiting { .. } => false,
            OwnState::Sent { .. } => matches!(self.vehicle, Vehicle::Invite),
            OwnState::Unacknowledged { .. } => true,
        }
    }

    /// The other party's request, if one waits for the outcome.
    #[must_use]
    pub const fn asked(&self) -> Option<&Asked> {
        match &self.intent {
            Intent::PassOn(asked) => Some(asked),
            Intent::Refresh | Intent::Align | Intent::Abandoned => None,
        }
    }
}

/// How often a party may change the call: ten times at once, then once a second. Each change costs
/// the other party a request and the journal a commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeRate {
    /// When everything that was taken is made up for.
    paid: Tick,
}

impl ChangeRate {
    const EACH: Duration = Duration::from_secs(1);
    const AT_ONCE: u32 = 10;

    /// Takes one; `false`: too many.
    pub fn take(&mut self, now: Tick) -> bool {
        let paid = self.paid.max(now);
        let free = paid.since(now) + Self::EACH <= Self::EACH * Self::AT_ONCE;
        if free {
            self.paid = paid + Self::EACH;
        }
        free
    }
}

/// How long to wait before a request that met another is tried again (RFC 3261 §14.1): in units of
/// 10 ms, 2.1 s to 4 s for the side that made the Call-ID and up to 2 s for the other.
#[must_use]
pub fn glare_delay(owns_call_id: bool, dice: u32) -> Duration {
    let tens = if owns_call_id {
        210 + dice % 191
    } else {
        dice % 201
    };
    Duration::from_millis(u64::from(tens) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_may_change_the_call_ten_times_at_once_and_then_once_a_second() {
        let mut rate = ChangeRate::default();
        let at = |ms| Tick::from_start(Duration::from_millis(ms));
        assert_eq!((0..50).filter(|_| rate.take(at(5_000))).count(), 10);
        assert!(!rate.take(at(5_999)));
        assert!(rate.take(at(6_001)) && !rate.take(at(6_002)));
        assert_eq!((0..50).filter(|_| rate.take(at(60_000))).count(), 10);
    }

    #[test]
    fn the_maker_of_the_call_id_waits_longer_than_the_other() {
        let (least, most) = (0, u32::MAX);
        for dice in [least, 1, 190, 191, 200, 201, 7_919, most] {
            let maker = glare_delay(true, dice).as_millis();
            let other = glare_delay(false, dice).as_millis();
            assert!(
                (2_100..=4_000).contains(&maker) && maker.is_multiple_of(10),
                "{maker}"
            );
            assert!(other <= 2_000 && other.is_multiple_of(10), "{other}");
        }
        assert_eq!(glare_delay(true, 190).as_millis(), 4_000);
        assert_eq!(glare_delay(false, 200).as_millis(), 2_000);
    }
}
