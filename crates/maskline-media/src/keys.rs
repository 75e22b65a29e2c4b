//! What one party presses: as telephone-events, as tones in its audio, or told by an INFO, and
//! whether the relay plays it to the other party or passes it on as it is.
//!
//! What lives elsewhere: reading events ([`crate::dtmf`]) and tones ([`crate::tone_listener`]),
//! playing ([`crate::press_player`]).

use std::time::Duration;

use crate::allowance::Allowance;
use crate::dtmf::DtmfReceiver;
use crate::tick::Tick;
use crate::tone_listener::ToneListener;

/// Presses that may come at once after a stall of the network.
const PRESS_BURST: u32 = 32;
/// The pace at which that allowance refills: 20 a second, faster than fingers and dialers.
const PRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How far apart the two signals of one press may be, by RTP and by INFO.
const SAME_PRESS: Duration = Duration::from_secs(2);

/// The keys of one party.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) events: DtmfReceiver,
    pub(crate) listener: Option<Box<ToneListener>>,
    allowance: Allowance,
    /// The last press that RTP brought.
    heard: Option<(Tick, char)>,
    /// The last press that an INFO brought and we play.
    told: Option<(Tick, char)>,
    /// The timestamp of events that go no further: their press is played, or was.
    withheld: Option<u32>,
}

impl Keys {
    pub(crate) fn new(opened: Tick) -> Self {
        Self {
            events: DtmfReceiver::default(),
            listener: None,
            allowance: Allowance::new(opened, PRESS_BURST, PRESS_INTERVAL),
            heard: None,
            told: None,
            withheld: None,
        }
    }

    /// Whether one more press may be reported.
    pub(crate) fn allows(&mut self, now: Tick) -> bool {
        self.allowance.take(now)
    }

    /// A press came by RTP. `false`: an INFO brought it before, and it was played.
    pub(crate) fn is_new(&mut self, now: Tick, digit: char) -> bool {
        let told = is_same_press(self.told, now, digit);
        if told {
            self.told = None;
        } else {
            self.heard = Some((now, digit));
        }
        !told
    }

    /// A press came by INFO. `false`: RTP brought it before.
    pub(crate) fn is_new_to_rtp(&mut self, now: Tick, digit: char) -> bool {
        let heard = is_same_press(self.heard, now, digit);
        if heard {
            self.heard = None;
        } else {
            self.told = Some((now, digit));
        }
        !heard
    }

    /// Events of this timestamp go no further from now on.
    pub(crate) const fn withhold(&mut self, timestamp: u32) {
        self.withheld = Some(timestamp);
    }

    pub(crate) fn is_withheld(&self, timestamp: u32) -> bool {
        self.withheld == Some(timestamp)
    }
}

fn is_same_press(other: Option<(Tick, char)>, now: Tick, digit: char) -> bool {
    other.is_some_and(|(at, pressed)| pressed == digit && now.since(at) <= SAME_PRESS)
}
