//! Who is to start an attempt, in turn, and for whom there is a place.
//!
//! There are twice `in_all` places. An endpoint that has nothing under way may have any of them, one
//! with a [`Few`](Held::Few) starts another while a quarter of all is free, one with more while half
//! is. One that is not known to answer quickly wants a quarter more to be free, but for its only
//! attempt.
//!
//! So the last quarter is taken by one attempt of each endpoint: as long as fewer endpoints than that
//! hang, whatever they did before, one that has nothing under way waits for no place.

use std::collections::BTreeMap;

use super::turns::EndpointKey;

/// Most attempts at once that are few; also the most to an endpoint that is not known to answer.
pub(super) const FEW: usize = 4;

/// Which endpoints go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Those that are known to answer quickly.
    Ahead,
    Behind,
}

/// How much an endpoint has under way when it is to start one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    Nothing,
    /// One more makes at most [`FEW`].
    Few,
    Many,
}

impl Held {
    pub(super) const fn of(in_flight: usize) -> Self {
        match in_flight {
            0 => Self::Nothing,
            1..FEW => Self::Few,
            FEW.. => Self::Many,
        }
    }
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    rank: Rank,
    held: Held,
    number: u64,
}

impl Turn {
    pub(super) fn is(self, rank: Rank, held: Held) -> bool {
        self.rank == rank && self.held == held
    }
}

/// The endpoints that would start something, by what they hold. Each operation takes time
/// logarithmic in their number.
#[derive(Debug, Default)]
pub(super) struct Rings {
    next: u64,
    ahead: BTreeMap<(Held, u64), EndpointKey>,
    behind: BTreeMap<(Held, u64), EndpointKey>,
}

impl Rings {
    fn of(&mut self, rank: Rank) -> &mut BTreeMap<(Held, u64), EndpointKey> {
        match rank {
            Rank::Ahead => &mut self.ahead,
            Rank::Behind => &mut self.behind,
        }
    }

    /// Puts an endpoint behind those of its rank that hold as much.
    pub(super) fn join(&mut self, endpoint: &EndpointKey, rank: Rank, held: Held) -> Turn {
        let number = self.next;
        self.next += 1;
        self.of(rank).insert((held, number), endpoint.clone());
        Turn { rank, held, number }
    }

    pub(super) fn leave(&mut self, turn: Turn) {
        self.of(turn.rank).remove(&(turn.held, turn.number));
    }

    /// Whose turn it is with so many places taken, and out of the ring with it: of those ahead and
    /// then of those behind, whoever holds least.
    pub(super) fn pop(&mut self, in_all: usize, taken: usize) -> Option<EndpointKey> {
        [Rank::Ahead, Rank::Behind].into_iter().find_map(|rank| {
            // If there is no place for who holds least, there is none for those with more.
            let least = self.of(rank).first_entry()?;
            let (held, _) = *least.key();
            (taken < places(rank, held, in_all)).then(|| least.remove())
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.behind.is_empty()
    }
}

/// How many places there are for endpoints of this rank that hold so much.
fn places(rank: Rank, held: Held, in_all: usize) -> usize {
    let quarter = in_all / 2;
    let places = match (rank, held) {
        (Rank::Ahead | Rank::Behind, Held::Nothing) => 2 * in_all,
        (Rank::Ahead, Held::Few) => in_all + quarter,
        (Rank::Ahead, Held::Many) | (Rank::Behind, Held::Few) => in_all,
        (Rank::Behind, Held::Many) => quarter,
    };
    places.max(1)
}
