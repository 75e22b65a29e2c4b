//! Room for one that has nothing, whoever else has how much.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

/// So many sub-accounts whose events enter, leave, and at some time do so no more.
struct World {
    seed: u64,
    random: ChaCha8Rng,
    max_events: usize,
    room: Room,
    names: Vec<Arc<str>>,
    held: BTreeMap<Arc<str>, usize>,
}

impl World {
    fn new(seed: u64, owners: usize, max_events: usize) -> Self {
        Self {
            seed,
            random: ChaCha8Rng::seed_from_u64(seed),
            max_events,
            room: Room::new(max_events),
            names: (0..owners).map(|n| Arc::from(format!("{n}"))).collect(),
            held: BTreeMap::new(),
        }
    }

    fn any(&mut self) -> Arc<str> {
        let index = self.random.random_range(0..self.names.len());
        Arc::clone(&self.names[index])
    }

    /// One comes with so many events; gives how many found room.
    fn enter(&mut self, owner: &Arc<str>, events: usize) -> usize {
        for entered in 0..events {
            if !self.room.has_room(owner) {
                return entered;
            }
            self.room.enter(owner);
            *self.held.entry(Arc::clone(owner)).or_default() += 1;
            self.check();
        }
        events
    }

    fn leave(&mut self, owner: &Arc<str>, events: usize) {
        let Some(held) = self.held.get_mut(owner) else {
            return;
        };
        let leaves = events.min(*held);
        *held -= leaves;
        if *held == 0 {
            self.held.remove(owner);
        }
        self.room.leave(owner, leaves);
        self.check();
    }

    fn check(&self) {
        let (seed, owners, events) = (self.seed, self.held.len(), self.room.events());
        assert!(events <= self.max_events, "seed {seed}");
        let says = || format!("seed {seed}: {owners} have {events} of {}", self.max_events);
        if owners < self.max_events / 4 {
            assert!(self.room.has_room("new"), "{}", says());
            assert!(self.room.has_much_room("new"), "{}", says());
        }
        let few = (self.max_events / 64).clamp(1, 16);
        if owners * few < self.max_events / 4 {
            assert!(self.room.share() >= few, "{}", says());
        }
    }
}

#[test]
fn there_is_room_for_one_that_has_nothing_in_whatever_order_others_come_to_hold_theirs() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let max_events = random.random_range(1..6_000);
        let owners = random.random_range(1..=3_000);
        let leaves = random.random_range(0..50);
        // Some worlds are full of those that take what they can get, others of those with a few.
        let greed = 4_usize.pow(random.random_range(0..7));
        let mut world = World::new(seed, owners, max_events);
        for _ in 0..3_000 {
            let owner = world.any();
            let events = world.random.random_range(0..=greed);
            if world.random.random_range(0..100) < leaves {
                world.leave(&owner, events);
            } else {
                world.enter(&owner, events);
            }
        }
    }
}

#[test]
fn sub_accounts_that_die_one_after_the_other_leave_some_for_thousands_more() {
    const ROOM: usize = 100_000;
    for most in [1, 16, 990, 20_000, usize::MAX] {
        let mut world = World::new(0, ROOM, ROOM);
        let names = world.names.clone();
        let dead = ROOM / 4 - 1;
        for (n, owner) in names[..dead].iter().enumerate() {
            let found = world.enter(owner, most);
            assert!(found >= 1, "the {n}th found no room");
            assert!(n >= 1_562 || found >= most.min(16), "the {n}th: {found}");
        }
        // One that is well goes on with an event at a time.
        for _ in 0..1_000 {
            assert_eq!(world.enter(&names[dead], 1), 1);
            world.leave(&names[dead], 1);
        }
    }
}

#[test]
fn one_alone_has_a_quarter_and_those_that_grow_together_have_equally_much() {
    for (owners, each) in [(1, 25_000), (2, 16_667), (4, 10_000), (9, 5_000)] {
        let mut world = World::new(0, owners, 100_000);
        let names = world.names.clone();
        for _ in 0..50_000 {
            for owner in &names {
                world.enter(owner, 1);
            }
        }
        for owner in &names {
            assert!(world.held[owner].abs_diff(each) <= 1, "{:?}", world.held);
        }
    }
}
