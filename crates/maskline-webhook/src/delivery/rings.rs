//! Who is to start an attempt, in turn, and for whom there is a place.
//!
//! There are twice `in_all` places. An endpoint that has nothing under way may have any of them, one
//! with a [`Few`](Held::Few) starts another while a quarter of all is free, one with more while half
//! is. Retries, and all that goes to an endpoint that is not known to answer quickly, want a quarter
//! more to be free, but for an endpoint's only attempt.
//!
//! So the last quarter is taken by one attempt of each endpoint: as long as fewer endpoints than that
//! hang, whatever they did before, one that has nothing under way waits for no place.

use std::collections::BTreeMap;

use super::turns::{Class, EndpointKey};

/// Most attempts at once that are few; also the most to an endpoint that is not known to answer.
pub(super) const FEW: usize = 4;

/// How much an endpoint has under way when it is to start one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    const ALL: [Self; 3] = [Self::Nothing, Self::Few, Self::Many];
}

/// Where an endpoint stands in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    held: Held,
    number: u64,
}

impl Turn {
    pub(super) const fn held(self) -> Held {
        self.held
    }
}

/// The endpoints that would start something of one class, by what they hold. Each operation takes
/// time logarithmic in their number.
#[derive(Debug, Default)]
pub(super) struct Rings {
    next: u64,
    nothing: BTreeMap<u64, EndpointKey>,
    few: BTreeMap<u64, EndpointKey>,
    many: BTreeMap<u64, EndpointKey>,
}

impl Rings {
    fn of(&mut self, held: Held) -> &mut BTreeMap<u64, EndpointKey> {
        match held {
            Held::Nothing => &mut self.nothing,
            Held::Few => &mut self.few,
            Held::Many => &mut self.many,
        }
    }

    /// Puts an endpoint behind those that hold as much.
    pub(super) fn join(&mut self, endpoint: &EndpointKey, held: Held) -> Turn {
        let number = self.next;
        self.next += 1;
        self.of(held).insert(number, endpoint.clone());
        Turn { held, number }
    }

    pub(super) fn leave(&mut self, turn: Turn) {
        self.of(turn.held).remove(&turn.number);
    }

    /// Whose turn it is with so many places taken, and out of the ring with it: whoever holds least
    /// goes first.
    pub(super) fn pop(&mut self, class: Class, in_all: usize, taken: usize) -> Option<EndpointKey> {
        Held::ALL
            .into_iter()
            .filter(|held| taken < places(class, *held, in_all))
            .find_map(|held| self.of(held).pop_first())
            .map(|(_, endpoint)| endpoint)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nothing.is_empty() && self.few.is_empty() && self.many.is_empty()
    }
}

/// How many places there are for attempts of this class to endpoints that hold so much.
fn places(class: Class, held: Held, in_all: usize) -> usize {
    let quarter = in_all / 2;
    let places = match (class, held) {
        (Class::First | Class::Retry, Held::Nothing) => 2 * in_all,
        (Class::First, Held::Few) => in_all + quarter,
        (Class::First, Held::Many) | (Class::Retry, Held::Few) => in_all,
        (Class::Retry, Held::Many) => quarter,
    };
    places.max(1)
}
