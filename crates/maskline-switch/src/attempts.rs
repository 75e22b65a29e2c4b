//! The attempts of one call to reach B: what is left to be tried, and what was given up.
//!
//! Data only; when a call goes on to the next address is decided in [`crate::shard`].

use std::collections::VecDeque;

use bytes::Bytes;
use maskline_media::Tick;
use serde::{Deserialize, Serialize};

use crate::config::TrunkId;
use crate::session::early::EarlyDialogs;
use crate::session::{Callee, CalleeInvite, InviteParts, Target};
use crate::sip::Peer;

/// A way that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The trunk.
    pub trunk: TrunkId,
    /// Where its INVITE goes.
    pub peer: Peer,
}

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With this status and Q.850 cause.
    Refused {
        /// 503 or 408.
        status: u16,
        /// The cause.
        cause: Option<u8>,
    },
    /// Nothing came back, or there was no way to send it.
    Unanswered,
}

/// An INVITE that another one took the place of. Whatever still comes of it changes no event.
#[derive(Clone, Debug)]
pub struct Abandoned {
    /// The attempt's number.
    pub number: u8,
    /// The INVITE.
    pub callee: Callee,
    /// Whether it was taken up once more, because something came after its end.
    pub taken_up: bool,
    /// Whether a 18x or an answer came of it after it was given up: B may have rung.
    pub rang: bool,
}

/// Most unwanted answers of one call that are remembered. Each of more is ended as often as it comes.
const MOST_UNWANTED: usize = 16;

/// A 2xx of a dialog that nobody wants: it was acknowledged, and its dialog ended.
#[derive(Clone, Debug)]
pub struct Unwanted {
    /// The `Call-ID` of its INVITE.
    pub call_id: String,
    /// Its To tag.
    pub remote_tag: String,
    /// Where its ACK went.
    pub peer: Peer,
    /// The ACK, sent again for each repetition (RFC 3261 §13.2.2.4).
    pub ack: Bytes,
}

/// All attempts of one call.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// The number of the attempt that counts, from 0: that of [`crate::session::Session::outbound`].
    pub current: u8,
    /// Whom to call; its trunk and peer are those of the attempt that counts.
    pub target: Option<Target>,
    /// What may still be tried, in order.
    pub waiting: VecDeque<Candidate>,
    /// The way whose trunk is asked for a place.
    pub admitting: Option<Candidate>,
    /// When the first attempt was sent.
    pub began: Option<Tick>,
    /// Whether a 18x came: B may have rung, and nothing else is tried.
    pub progressed: bool,
    /// How the last attempt ended, if it did.
    pub last: Option<AttemptEnd>,
    /// What was given up, at most as many as there may be attempts.
    pub abandoned: Vec<Abandoned>,
    /// The answers that were ended at once.
    pub unwanted: Vec<Unwanted>,
}

/// What a restarted node needs of an abandoned INVITE: to cancel it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenInvite {
    /// The attempt's number.
    pub number: u8,
    /// The INVITE.
    pub parts: InviteParts,
}

impl Attempts {
    /// Whether B may have rung by a way that was given up.
    #[must_use]
    pub fn rang_elsewhere(&self) -> bool {
        self.abandoned.iter().any(|abandoned| abandoned.rang)
    }

    /// Remembers an answer that was ended.
    pub fn remember_unwanted(&mut self, unwanted: Unwanted) {
        if self.unwanted.len() < MOST_UNWANTED {
            self.unwanted.push(unwanted);
        }
    }

    /// Abandoned INVITEs whose end was not seen.
    pub fn open(&self) -> impl Iterator<Item = OpenInvite> {
        self.abandoned
            .iter()
            .filter(|abandoned| abandoned.is_open())
            .map(|abandoned| OpenInvite {
                number: abandoned.number,
                parts: abandoned.callee.parts.clone(),
            })
    }

    /// Those that an earlier run left open.
    #[must_use]
    pub fn restored(open: Vec<OpenInvite>) -> Self {
        Self {
            // Above every number that the earlier run gave.
            current: open.iter().map(|it| it.number + 1).max().unwrap_or(0),
            progressed: true,
            abandoned: open
                .into_iter()
                .map(|it| Abandoned {
                    number: it.number,
                    callee: Callee {
                        parts: it.parts,
                        invite: CalleeInvite::Ended,
                        early: EarlyDialogs::default(),
                        tries: 0,
                        credentials: Vec::new(),
                    },
                    taken_up: false,
                    rang: false,
                })
                .collect(),
            ..Self::default()
        }
    }
}

impl Abandoned {
    /// Whether a final answer is still waited for.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.callee.invite, CalleeInvite::Cancelling { .. })
    }
}
