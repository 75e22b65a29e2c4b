//! For receivers: whether a session's events came in order, twice, or with one missing, and
//! putting them back in order.
//!
//! Deliveries are at least once and in order per session; `webhook-gap: true` announces that an
//! earlier event is late, or lost unless it is replayed. What lives elsewhere: the order on the sending side (`maskline-webhook`).

use std::collections::BTreeMap;

/// What one `sequence` means after those that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next one.
    InOrder,
    /// Seen before: acknowledge it, do nothing.
    Duplicate,
    /// New, but these before it (first and last) have not come.
    Gap {
        /// First missing.
        first: u64,
        /// Last missing.
        last: u64,
    },
    /// One of those that were missing: new, but late.
    Late,
    /// So old a gap that it was forgotten: it may be new or not; the `eventId` decides.
    Forgotten,
}

/// Follows one session's `sequence`, which starts at 1.
///
/// Memory: at most [`SequenceChecker::MAX_GAPS`] ranges of missing numbers, whatever arrives.
#[derive(Clone, Debug, Default)]
pub struct SequenceChecker {
    highest: u64,
    /// First to last of each missing range, disjoint, all below `highest`.
    missing: BTreeMap<u64, u64>,
    /// Up to here gaps were forgotten.
    forgotten: u64,
}

impl SequenceChecker {
    /// Most gaps that are remembered; with one more the oldest is forgotten.
    pub const MAX_GAPS: usize = 64;

    /// A session of which nothing was seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of an event and says what it is. 0 is no sequence and counts as a duplicate.
    pub fn observe(&mut self, sequence: u64) -> Verdict {
        let expected = self.highest.saturating_add(1);
        if sequence == expected && sequence > self.highest {
            self.highest = sequence;
            return Verdict::InOrder;
        }
        if sequence > expected {
            let (first, last) = (expected, sequence - 1);
            self.highest = sequence;
            self.missing.insert(first, last);
            if self.missing.len() > Self::MAX_GAPS
                && let Some((_, oldest)) = self.missing.pop_first()
            {
                self.forgotten = oldest;
            }
            return Verdict::Gap { first, last };
        }
        let range = self.missing.range(..=sequence).next_back();
        match range.map(|(first, last)| (*first, *last)) {
            Some((first, last)) if sequence <= last => {
                self.missing.remove(&first);
                if first < sequence {
                    self.missing.insert(first, sequence - 1);
                }
                if sequence < last {
                    self.missing.insert(sequence + 1, last);
                }
                Verdict::Late
            }
            Some(_) | None if sequence != 0 && sequence <= self.forgotten => Verdict::Forgotten,
            Some(_) | None => Verdict::Duplicate,
        }
    }

    /// The highest sequence that came; 0: none yet.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether everything up to [`SequenceChecker::highest`] has come, as far as is remembered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.forgotten == 0
    }

    /// The missing ranges (first, last), lowest first.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.missing.iter().map(|(first, last)| (*first, *last))
    }
}

/// Puts one session's events back in order: holds what came too early until the gap is filled.
///
/// Memory: at most `capacity` events; with one more the gap is given up, and what is held comes
/// out in order without it.
#[derive(Clone, Debug)]
pub struct InOrder<T> {
    next: u64,
    held: BTreeMap<u64, T>,
    capacity: usize,
}

impl<T> InOrder<T> {
    /// Holds at most `capacity` events back.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            next: 1,
            held: BTreeMap::new(),
            capacity,
        }
    }

    /// Takes an event and gives those that are due now, in order. One that was given out, held,
    /// or given up before is dropped.
    pub fn push(&mut self, sequence: u64, event: T) -> Vec<T> {
        if sequence < self.next || self.held.contains_key(&sequence) {
            return Vec::new();
        }
        self.held.insert(sequence, event);
        if self.held.len() > self.capacity
            && let Some((first, _)) = self.held.first_key_value()
        {
            self.next = *first;
        }
        let mut due = Vec::new();
        while let Some(event) = self.held.remove(&self.next) {
            due.push(event);
            self.next = self.next.saturating_add(1);
        }
        due
    }

    /// How many are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_arrival_is_told_apart() {
        let mut checker = SequenceChecker::new();
        for (sequence, verdict) in [
            (1, Verdict::InOrder),
            (1, Verdict::Duplicate),
            (2, Verdict::InOrder),
            (6, Verdict::Gap { first: 3, last: 5 }),
            (7, Verdict::InOrder),
            (4, Verdict::Late),
            (4, Verdict::Duplicate),
            (9, Verdict::Gap { first: 8, last: 8 }),
            (5, Verdict::Late),
            (3, Verdict::Late),
            (2, Verdict::Duplicate),
            (0, Verdict::Duplicate),
        ] {
            assert_eq!(checker.observe(sequence), verdict, "{sequence}");
        }
        assert_eq!(checker.missing().collect::<Vec<_>>(), [(8, 8)]);
        assert!(!checker.is_complete());
        assert_eq!(checker.observe(8), Verdict::Late);
        assert!(checker.is_complete());
        assert_eq!(checker.highest(), 9);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut checker = SequenceChecker::new();
        let gap = checker.observe(u64::MAX);
        assert_eq!(
            gap,
            Verdict::Gap {
                first: 1,
                last: u64::MAX - 1
            }
        );
        assert_eq!(checker.observe(u64::MAX), Verdict::Duplicate);
        assert_eq!(checker.observe(u64::MAX - 1), Verdict::Late);
    }

    #[test]
    fn a_stream_full_of_gaps_keeps_memory_bounded_and_says_what_was_forgotten() {
        let mut checker = SequenceChecker::new();
        for sequence in (2..=2_000).step_by(2) {
            checker.observe(sequence);
        }
        assert_eq!(checker.missing().count(), SequenceChecker::MAX_GAPS);
        assert_eq!(checker.observe(1), Verdict::Forgotten);
        assert_eq!(checker.observe(1_999), Verdict::Late);
        assert!(!checker.is_complete());
    }

    #[test]
    fn events_come_out_in_order_and_once() {
        let mut order = InOrder::new(10);
        assert_eq!(order.push(1, 'a'), ['a']);
        assert_eq!(order.push(3, 'c'), []);
        assert_eq!(order.push(3, 'c'), []);
        assert_eq!(order.push(4, 'd'), []);
        assert_eq!(order.push(2, 'b'), ['b', 'c', 'd']);
        assert_eq!(order.push(2, 'b'), []);
        assert_eq!(order.held(), 0);
    }

    #[test]
    fn a_gap_that_never_fills_is_given_up_when_the_capacity_is_reached() {
        let mut order = InOrder::new(2);
        assert_eq!(order.push(3, 'c'), []);
        assert_eq!(order.push(2, 'b'), []);
        assert_eq!(order.push(5, 'e'), ['b', 'c']);
        assert_eq!(order.push(1, 'a'), []);
        assert_eq!(order.held(), 1);
    }
}
