//! One party's key presses, whichever way they come: as RTP (RFC 4733) or by INFO.
//!
//! What lives elsewhere: which signals are one press ([`maskline_media::press_pairs`]).

use std::time::Duration;

use maskline_media::Tick;
use maskline_media::press_pairs::PressPairs;

/// Presses by INFO that may come at once, and how long it takes until there is room for one more:
/// the same bound as for RTP.
const BURST: u32 = 32;
const REFILL: Duration = Duration::from_millis(50);

/// What one party pressed lately.
#[derive(Clone, Debug)]
pub struct Presses {
    /// Those of which one signal came.
    pub pairs: PressPairs,
    room: u32,
    refilled: Tick,
}

impl Default for Presses {
    fn default() -> Self {
        Self {
            pairs: PressPairs::default(),
            room: BURST,
            refilled: Tick::ZERO,
        }
    }
}

impl Presses {
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
    fn presses_by_info_are_bounded_to_twenty_a_second() {
        let mut presses = Presses::default();
        let taken = |presses: &mut Presses, ms, tries| {
            (0..tries).filter(|_| presses.has_room(at(ms))).count()
        };
        assert_eq!(taken(&mut presses, 0, 100), 32);
        assert_eq!(taken(&mut presses, 1_000, 100), 20);
        assert_eq!(taken(&mut presses, 60_000, 100), 32);
    }
}
