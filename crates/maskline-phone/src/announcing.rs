//! Early media of a callee: a 183 with a description before the answer, and an answer that need not
//! say the same.

use std::time::Duration;

use crate::phone::{Alarm, Call, Phone};
use crate::speech::Named;

/// How long what may not be sent yet waits: one reliable provisional at a time (RFC 3262 §3).
pub(crate) const WAITS: Duration = Duration::from_millis(100);

/// How a callee announces its media before the answer. Reliably where both sides can.
#[derive(Clone, Copy, Debug)]
pub struct Announcement {
    /// After so long.
    pub after: Duration,
    /// What the answer is like.
    pub then: Then,
}

/// What a callee answers behind an announcement. Behind a reliable one, only [`Self::Same`] and
/// [`Self::OtherDialog`] are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// What it announced.
    Same,
    /// Media at another port.
    Moves,
    /// PCMU alone.
    OnlyPcmu,
    /// Another phone of a fork answers, which has PCMU alone and another port.
    OtherDialog,
}

impl Phone {
    pub(crate) fn announce(&mut self) {
        let Call::Called(tx) = self.call else {
            return;
        };
        if self.unpracked.is_some() {
            self.set_alarm(Alarm::Announce, WAITS);
            return;
        }
        if let Some(sdp) = self.answer_to_remote() {
            self.announced = true;
            self.send_progress(tx, 183, Some(&sdp));
        }
    }

    /// The answer follows: whether another phone than the one that announced gives it.
    pub(crate) fn leave_announcement(&mut self) -> bool {
        let announced = std::mem::take(&mut self.announced);
        let Some(plan) = self.config.manners.announces.filter(|_| announced) else {
            return false;
        };
        if matches!(plan.then, Then::Moves | Then::OtherDialog) {
            let port = self.stance.media.port();
            self.stance.media.set_port(port + 2);
        }
        if matches!(plan.then, Then::OnlyPcmu | Then::OtherDialog) {
            self.stance.names = Named::PCMU;
        }
        plan.then == Then::OtherDialog
    }

    /// Whether a 2xx has to wait for the PRACK of what described media (RFC 3262 §3).
    pub(crate) fn waits_for_prack(&self) -> bool {
        self.unpracked.is_some() && (self.answered_early || self.announced)
    }
}
