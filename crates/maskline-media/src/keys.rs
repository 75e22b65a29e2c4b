//! What one party presses: as telephone-events, as tones in its audio, or told by an INFO, and
//! whether the relay plays it to the other party or passes it on as it is.
//!
//! What lives elsewhere: which signals are one press ([`crate::press_pairs`]), reading events ([`crate::dtmf`]) and tones ([`crate::tone_listener`]),
//! playing ([`crate::press_player`]).

use std::time::Duration;

use crate::allowance::Allowance;
use crate::dtmf::DtmfReceiver;
use crate::press_pairs::{PressPairs, Signal};
use crate::tick::Tick;
use crate::tone_listener::ToneListener;

/// Presses that may come at once after a stall of the network.
const PRESS_BURST: u32 = 32;
/// The pace at which that allowance refills: 20 a second, faster than fingers and dialers.
const PRESS_INTERVAL: Duration = Duration::from_millis(50);

/// Presses whose events may still come.
const WITHHELD: usize = 4;

/// The keys of one party.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) events: DtmfReceiver,
    pub(crate) listener: Option<Box<ToneListener>>,
    allowance: Allowance,
    /// Those that came by RTP, or by an INFO.
    pairs: PressPairs,
    /// The timestamps of the last events that go no further: their press is played, or was. Ends of one may come
    /// behind the start of the next.
    withheld: [Option<u32>; WITHHELD],
}

impl Keys {
    pub(crate) fn new(opened: Tick) -> Self {
        Self {
            events: DtmfReceiver::default(),
            listener: None,
            allowance: Allowance::new(opened, PRESS_BURST, PRESS_INTERVAL),
            pairs: PressPairs::default(),
            withheld: [None; WITHHELD],
        }
    }

    /// Whether one more press may be reported.
    pub(crate) fn allows(&mut self, now: Tick) -> bool {
        self.allowance.take(now)
    }

    /// A press came by RTP. `false`: an INFO brought it before, and it is played or passed on.
    pub(crate) fn is_new(&mut self, now: Tick, digit: char) -> bool {
        self.pairs.take(now, digit, Signal::Rtp)
    }

    /// A press came by INFO. `false`: RTP brought it before.
    pub(crate) fn is_new_to_rtp(&mut self, now: Tick, digit: char) -> bool {
        self.pairs.take(now, digit, Signal::Info)
    }

    /// Events of this timestamp go no further from now on.
    pub(crate) fn withhold(&mut self, timestamp: u32) {
        if !self.is_withheld(timestamp) {
            self.withheld.rotate_right(1);
            self.withheld[0] = Some(timestamp);
        }
    }

    /// The next segment of a press that goes no further goes no further either (RFC 4733 §2.5.1.3).
    pub(crate) fn withhold_what_goes_on(&mut self, timestamp: u32) {
        let press = self.events.press_of(timestamp);
        if press.is_some_and(|press| self.is_withheld(press)) {
            self.withhold(timestamp);
        }
    }

    pub(crate) fn is_withheld(&self, timestamp: u32) -> bool {
        self.withheld.contains(&Some(timestamp))
    }
}
