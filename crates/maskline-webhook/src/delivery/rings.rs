//! Who is to start an attempt, in turn, and for whom there is a place.
//!
//! There are twice `in_all` places. An endpoint that has nothing under way may have any of them, one
//! with less than [`FEW`] starts another while a quarter of all is free, one with more while half is.
//! One that is not known to answer quickly wants a quarter more to be free, but for its only attempt.
//! Whoever holds least goes first: so those that want more than there is come to hold equally much,
//! however long each of their attempts takes.
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

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    rank: Rank,
    place: Place,
}

/// How many attempts it has under way when it is to start one more, and its turn among those with as
/// many.
type Place = (usize, u64);

impl Turn {
    pub(super) fn is(self, rank: Rank, held: usize) -> bool {
        self.rank == rank && self.place.0 == held
    }
}

/// The endpoints that would start something, by what they hold. Each operation takes time
/// logarithmic in their number.
#[derive(Debug, Default)]
pub(super) struct Rings {
    next: u64,
    ahead: BTreeMap<Place, EndpointKey>,
    behind: BTreeMap<Place, EndpointKey>,
}

impl Rings {
    fn of(&mut self, rank: Rank) -> &mut BTreeMap<Place, EndpointKey> {
        match rank {
            Rank::Ahead => &mut self.ahead,
            Rank::Behind => &mut self.behind,
        }
    }

    /// Puts an endpoint behind those of its rank that hold as much.
    pub(super) fn join(&mut self, endpoint: &EndpointKey, rank: Rank, held: usize) -> Turn {
        let place = (held, self.next);
        self.next += 1;
        self.of(rank).insert(place, endpoint.clone());
        Turn { rank, place }
    }

    pub(super) fn leave(&mut self, turn: Turn) {
        self.of(turn.rank).remove(&turn.place);
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
fn places(rank: Rank, held: usize, in_all: usize) -> usize {
    let quarter = in_all / 2;
    let places = match (rank, held) {
        (Rank::Ahead | Rank::Behind, 0) => 2 * in_all,
        (Rank::Ahead, 1..FEW) => in_all + quarter,
        (Rank::Ahead, FEW..) | (Rank::Behind, 1..FEW) => in_all,
        (Rank::Behind, FEW..) => quarter,
    };
    places.max(1)
}
