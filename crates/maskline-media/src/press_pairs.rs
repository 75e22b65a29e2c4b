//! Which signals are one press: a party's key comes as RTP (RFC 4733, or as tones), by INFO, or by both ways.
//!
//! Whoever sees both ways asks here: the relay, which passes RTP on, and the switch, which tells of presses. Each
//! sees them in an order of its own.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tick::Tick;

/// How far apart the two signals of one press may be: a long press is signalled by RTP when it
/// begins and by INFO when it ends, and a lost INFO is sent again after 0.5 s and 1.5 s.
const SAME_PRESS: Duration = Duration::from_secs(2);
/// Presses that wait for their other signal; the oldest is forgotten first.
const MOST_OPEN: usize = 32;

/// How a press was signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// By RTP.
    Rtp,
    /// By INFO.
    Info,
}

/// Presses of one party of which one signal came.
#[derive(Clone, Debug, Default)]
pub struct PressPairs {
    /// When, which key, by which signal.
    open: VecDeque<(Tick, char, Signal)>,
}

impl PressPairs {
    /// Takes a signal; `true`: it is a press of its own, `false`: the other signal of one that was
    /// counted.
    ///
    /// A device either signals a press once or by both ways, and a person does not press one key
    /// here and there: so a signal of the one way belongs to the oldest signal of the other way
    /// with the same key, within 2 s, and each signal belongs to one other at most.
    pub fn take(&mut self, now: Tick, key: char, signal: Signal) -> bool {
        self.open.retain(|(at, ..)| now.since(*at) <= SAME_PRESS);
        let other = self
            .open
            .iter()
            .position(|(_, pressed, by)| *pressed == key && *by != signal);
        if let Some(other) = other {
            self.open.remove(other);
            return false;
        }
        if self.open.len() == MOST_OPEN {
            self.open.pop_front();
        }
        self.open.push_back((now, key, signal));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_press_by_both_signals_counts_once_and_a_second_press_counts_again() {
        let mut presses = PressPairs::default();
        for (ms, key, signal, counts) in [
            (0, '5', Signal::Rtp, true),
            (160, '5', Signal::Info, false),
            (300, '5', Signal::Rtp, true),
            (310, '6', Signal::Info, true),
            (320, '6', Signal::Rtp, false),
            (460, '5', Signal::Info, false),
            (500, '5', Signal::Info, true),
            (600, '5', Signal::Info, true),
            // Too late to be the other signal of the one at 500.
            (2_501, '5', Signal::Rtp, false),
            (2_601, '5', Signal::Rtp, true),
        ] {
            assert_eq!(presses.take(at(ms), key, signal), counts, "{ms} {key}");
        }
    }

    #[test]
    fn a_flood_of_signals_keeps_a_bounded_memory() {
        let mut presses = PressPairs::default();
        for ms in 0..1_000 {
            presses.take(at(ms), '1', Signal::Rtp);
        }
        assert_eq!(presses.open.len(), MOST_OPEN);
    }
}
