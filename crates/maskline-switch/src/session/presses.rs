//! One party's key presses, whichever way they come: as RTP (RFC 4733) or by INFO.

use std::collections::VecDeque;
use std::time::Duration;

use maskline_media::Tick;

/// How far apart the two signals of one press may be: a long press is signalled by RTP when it
/// begins and by INFO when it ends, and a lost INFO is sent again after 0.5 s and 1.5 s.
const SAME_PRESS: Duration = Duration::from_secs(2);
/// Presses that wait for their other signal; the oldest is forgotten first.
const MOST_OPEN: usize = 32;
/// Presses by INFO that may come at once, and how long it takes until there is room for one more:
/// the same bound as for RTP.
const BURST: u32 = 32;
const REFILL: Duration = Duration::from_millis(50);

/// How a press was signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// By RTP.
    Rtp,
    /// By INFO.
    Info,
}

/// What one party pressed lately.
#[derive(Clone, Debug)]
pub struct Presses {
    /// Presses of which one signal came: when, which key, by which signal.
    open: VecDeque<(Tick, char, Signal)>,
    room: u32,
    refilled: Tick,
}

impl Default for Presses {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            room: BURST,
            refilled: Tick::ZERO,
        }
    }
}

impl Presses {
    /// Takes a signal; `true`: it is a press of its own, `false`: the other signal of one that was
    /// counted.
    ///
    /// A device either signals a press once or by both ways, and a person does not press one key
    /// here and there: so a signal of the one way belongs to the oldest signal of the other way
    /// with the same key, within [`SAME_PRESS`], and each signal belongs to one other at most.
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

    /// Whether one more press by INFO is within the bound.
    pub fn has_room(&mut self, now: Tick) -> bool {
        let gained = now.since(self.refilled).as_nanos() / REFILL.as_nanos();
        if gained > 0 {
            let gained = u32::try_from(gained).unwrap_or(u32::MAX);
            self.room = self.room.saturating_add(gained).min(BURST);
            self.refilled = now;
        }
        let has = self.room > 0;
        self.room = self.room.saturating_sub(1);
        has
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
        let mut presses = Presses::default();
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
    fn presses_by_info_are_bounded_to_twenty_a_second() {
        let mut presses = Presses::default();
        let taken = |presses: &mut Presses, ms, tries| {
            (0..tries).filter(|_| presses.has_room(at(ms))).count()
        };
        assert_eq!(taken(&mut presses, 0, 100), 32);
        assert_eq!(taken(&mut presses, 1_000, 100), 20);
        assert_eq!(taken(&mut presses, 60_000, 100), 32);
    }

    #[test]
    fn a_flood_of_signals_keeps_a_bounded_memory() {
        let mut presses = Presses::default();
        for ms in 0..1_000 {
            presses.take(at(ms), '1', Signal::Rtp);
        }
        assert_eq!(presses.open.len(), MOST_OPEN);
    }
}
