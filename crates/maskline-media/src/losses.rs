//! Which packets of a source never came: a window in which late ones may still come, and behind it
//! the runs and bursts of those that did not (RFC 3611 §4.7.2).
//!
//! What lives elsewhere: when a sequence begins anew ([`crate::quality`]).

/// How many packets behind the newest one may still come.
const WINDOW: u32 = 128;
/// RFC 3611 §4.7.2: so many packets in a row that came end a burst.
const GMIN: u64 = 16;

/// The packets of one source by their sequence, each decided when it leaves the window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// Bit 0 is the newest packet, bit n the one n before it.
    came: u128,
    /// How many of the bits are packets since the source began.
    held: u32,
    losses: Losses,
}

/// What is known of the packets that left the window.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    expected: u64,
    lost: u64,
    run: u64,
    runs: u64,
    longest_run: u64,
    /// Packets that came since the last lost one; before any was lost, all.
    came_since: u64,
    burst: Burst,
    /// Bursts that ended.
    bursts: u64,
    burst_packets: u64,
    burst_lost: u64,
}

/// From a lost packet to the last lost one that is near enough.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    packets: u64,
    lost: u64,
}

/// How the loss of a source is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossPattern {
    /// Packets that never came.
    pub lost: u64,
    /// The most packets lost in a row.
    pub longest_run: u64,
    /// The mean length of such a run, 0.0 without loss.
    pub mean_run: f64,
    /// Bursts (RFC 3611 §4.7.2 with Gmin 16) of two and more lost packets.
    pub bursts: u64,
    /// The mean length of a burst in packets, 0.0 without one.
    pub mean_burst_packets: f64,
    /// The fraction lost within bursts.
    pub burst_density: f64,
    /// The fraction lost outside of them.
    pub gap_density: f64,
}

/// What a packet behind the newest one is to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that was missing.
    Late,
    /// One that had come.
    Again,
}

impl Window {
    /// Takes the packet that is `ahead` of the newest one, which may be the first.
    pub(crate) fn advance(&mut self, ahead: u32) {
        if self.held == 0 {
            (self.came, self.held) = (1, 1);
            return;
        }
        let mut steps = ahead;
        while steps > 0 && self.came != 0 {
            self.shift();
            steps -= 1;
        }
        if steps > 0 {
            // The window holds nothing but lost packets: of them, so many more leave it.
            let leaving = (self.held + steps).saturating_sub(WINDOW);
            self.held = (self.held + steps).min(WINDOW);
            self.losses.on_lost(u64::from(leaving));
        }
        self.came |= 1;
    }

    /// Takes the packet that is `behind` the newest one.
    pub(crate) fn look_back(&mut self, behind: u32) -> Place {
        if behind >= WINDOW {
            return Place::Again;
        }
        let bit = 1 << behind;
        if self.came & bit != 0 {
            return Place::Again;
        }
        if behind >= self.held {
            // Before the first one that came: it is none of what was counted as expected.
            return Place::Late;
        }
        self.came |= bit;
        Place::Late
    }

    /// Decides about all that is still open: nothing of this source comes any more.
    pub(crate) fn settle(&mut self) {
        while self.held > 0 {
            self.held -= 1;
            let came = self.came & (1 << self.held) != 0;
            self.losses.on_packet(came);
        }
        self.came = 0;
        self.losses.end_run();
    }

    /// The pattern so far, what is still open counted as lost.
    pub(crate) fn pattern(&self) -> LossPattern {
        let mut settled = *self;
        settled.settle();
        settled.losses.end_burst();
        settled.losses.pattern()
    }

    fn shift(&mut self) {
        if self.held == WINDOW {
            let came = self.came & (1 << (WINDOW - 1)) != 0;
            self.losses.on_packet(came);
        } else {
            self.held += 1;
        }
        self.came <<= 1;
    }
}

impl Losses {
    fn on_packet(&mut self, came: bool) {
        if came {
            self.expected += 1;
            self.end_run();
            self.came_since += 1;
        } else {
            self.on_lost(1);
        }
    }

    fn on_lost(&mut self, packets: u64) {
        if packets == 0 {
            return;
        }
        self.expected += packets;
        self.lost += packets;
        self.run += packets;
        self.longest_run = self.longest_run.max(self.run);
        if self.burst.lost > 0 && self.came_since < GMIN {
            self.burst.packets += self.came_since;
        } else {
            self.end_burst();
        }
        self.burst.packets += packets;
        self.burst.lost += packets;
        self.came_since = 0;
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            self.runs += 1;
            self.run = 0;
        }
    }

    /// One lost packet alone is no burst.
    fn end_burst(&mut self) {
        let Burst { packets, lost } = std::mem::take(&mut self.burst);
        if lost > 1 {
            self.bursts += 1;
            self.burst_packets += packets;
            self.burst_lost += lost;
        }
    }

    fn pattern(&self) -> LossPattern {
        LossPattern {
            lost: self.lost,
            longest_run: self.longest_run,
            mean_run: share(self.lost, self.runs),
            bursts: self.bursts,
            mean_burst_packets: share(self.burst_packets, self.bursts),
            burst_density: share(self.burst_lost, self.burst_packets),
            gap_density: share(
                self.lost - self.burst_lost,
                self.expected - self.burst_packets,
            ),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pattern of packets that come (`1`) or do not (`0`); the first one comes.
    fn of(packets: impl IntoIterator<Item = bool>) -> LossPattern {
        let mut window = Window::default();
        let mut ahead = 0;
        for came in packets {
            ahead += 1;
            if came {
                window.advance(ahead);
                ahead = 0;
            }
        }
        window.pattern()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn lone_losses_are_gaps_and_near_ones_a_burst() {
        // Lost: 50; 100 and 101; 110: the latter three are one burst of eleven packets.
        let pattern = of((0..1_000).map(|n| ![50, 100, 101, 110].contains(&n)));
        assert_eq!(
            (pattern.lost, pattern.longest_run, pattern.bursts),
            (4, 2, 1)
        );
        close(pattern.mean_run, 4.0 / 3.0);
        close(pattern.mean_burst_packets, 11.0);
        close(pattern.burst_density, 3.0 / 11.0);
        close(pattern.gap_density, 1.0 / 989.0);
    }

    #[test]
    fn sixteen_packets_that_came_part_two_bursts_and_fifteen_do_not() {
        for (between, bursts) in [(15, 1), (16, 2)] {
            let second = 102 + between;
            let lost = [100, 101, second, second + 1];
            assert_eq!(of((0..500).map(|n| !lost.contains(&n))).bursts, bursts);
        }
    }

    #[test]
    fn a_long_outage_is_one_run_and_one_burst_however_long() {
        let pattern = of((0..5_000).map(|n| !(1_000..3_500).contains(&n)));
        assert_eq!(
            (pattern.lost, pattern.longest_run, pattern.bursts),
            (2_500, 2_500, 1)
        );
        close(pattern.mean_run, 2_500.0);
        close(pattern.burst_density, 1.0);
        close(pattern.gap_density, 0.0);
    }

    #[test]
    fn what_comes_late_is_not_lost_and_what_comes_twice_is_told() {
        let mut window = Window::default();
        window.advance(1);
        window.advance(3);
        assert_eq!(window.look_back(1), Place::Late);
        assert_eq!(window.look_back(1), Place::Again);
        assert_eq!(window.look_back(0), Place::Again);
        assert_eq!(window.look_back(3), Place::Again);
        assert_eq!(window.look_back(4), Place::Late, "before the first one");
        assert_eq!(window.pattern().lost, 1);
        assert_eq!(window.look_back(2), Place::Late);
        (0..1_000).for_each(|_| window.advance(1));
        assert_eq!(window.pattern(), LossPattern::default());
    }
}
