//! Turns step by step, and a bound on waiting in worlds full of endpoints that hang.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::super::Schedule;
use super::super::policy::Rate;
use super::*;

mod busy;

const START: Timestamp = Timestamp::from_unix_ms(1_767_694_639_000);
const SECOND: i64 = 1_000;

struct Script {
    turns: Turns,
    now: Timestamp,
    running: BTreeMap<u64, Start>,
}

fn endpoint(name: &str) -> EndpointKey {
    (Arc::from(name), WebhookType::Vcs)
}

fn event(ordinal: u64) -> EventKey {
    EventKey {
        session: Uuid::nil(),
        ordinal,
    }
}

fn policy(cap: usize, rate: Option<Rate>) -> EndpointPolicy {
    EndpointPolicy {
        cap,
        rate,
        schedule: Schedule::default(),
    }
}

impl Script {
    fn new(per_endpoint: usize, in_all: usize) -> Self {
        let breaker = BreakerConfig::default();
        let mut turns = Turns::new(policy(per_endpoint, None), in_all, breaker);
        turns.elapsed(START);
        Self {
            turns,
            now: START,
            running: BTreeMap::new(),
        }
    }

    /// One where these endpoints are known to answer.
    fn proven(per_endpoint: usize, in_all: usize, endpoints: &[&EndpointKey]) -> Self {
        let mut script = Self::new(per_endpoint, in_all);
        for endpoint in endpoints {
            script.first(endpoint, [u64::MAX]);
            script.started();
            script.end(endpoint, u64::MAX, Health::Well);
        }
        script
    }

    fn first(&mut self, endpoint: &EndpointKey, ordinals: impl IntoIterator<Item = u64>) {
        for ordinal in ordinals {
            self.turns.enqueue(endpoint, event(ordinal), Class::First);
        }
    }

    fn retry(&mut self, endpoint: &EndpointKey, ordinals: impl IntoIterator<Item = u64>) {
        for ordinal in ordinals {
            self.turns.enqueue(endpoint, event(ordinal), Class::Retry);
        }
    }

    fn started(&mut self) -> Vec<u64> {
        let mut started = Vec::new();
        while let Some(start) = self.turns.next() {
            started.push(start.event.ordinal);
            self.running.insert(start.event.ordinal, start);
        }
        started
    }

    fn end(&mut self, endpoint: &EndpointKey, ordinal: u64, health: Health) {
        let start = self.running.remove(&ordinal).unwrap();
        self.turns.finished(endpoint, start, health, 0);
    }

    fn pass(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
        self.turns.elapsed(self.now);
    }
}

#[test]
fn endpoints_take_turns_however_much_one_has_waiting() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    let mut s = Script::proven(10, 100, &[&a, &b]);
    s.first(&a, 0..4);
    s.first(&b, 100..102);
    assert_eq!(s.started(), [0, 100, 1, 101, 2, 3]);
    assert_eq!((s.turns.in_flight(), s.turns.waiting()), (6, 0));
}

#[test]
fn an_endpoint_keeps_to_its_cap() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    let mut s = Script::proven(2, 3, &[&a, &b]);
    for ordinal in 0..5 {
        s.first(&a, [ordinal]);
        s.first(&b, [100 + ordinal]);
    }
    assert_eq!(s.started(), [0, 100, 1, 101]);
    s.end(&a, 0, Health::Well);
    assert_eq!(s.started(), [2]);
    s.end(&b, 100, Health::Well);
    s.end(&b, 101, Health::Well);
    assert_eq!(s.started(), [102, 103]);
}

#[test]
fn the_more_an_endpoint_has_under_way_the_more_places_must_be_free() {
    let names: Vec<EndpointKey> = ["a", "b", "c", "d", "e", "f", "g"].map(endpoint).into();
    let all: Vec<&EndpointKey> = names.iter().collect();
    // Sixteen places.
    let mut s = Script::proven(100, 8, &all);
    for (of, starts) in [(0, 8), (1, 4), (2, 1), (3, 1), (4, 1), (5, 1), (6, 0)] {
        s.first(&names[of], (0..50).map(|n| of as u64 * 100 + n));
        assert_eq!(s.started().len(), starts, "endpoint {of}");
    }
    assert_eq!(s.turns.in_flight(), 16);
    s.end(&names[0], 0, Health::Well);
    assert_eq!(s.started(), [600], "whoever has nothing goes first");
    for ordinal in 1..5 {
        s.end(&names[0], ordinal, Health::Well);
        assert!(s.started().is_empty(), "and the others wait for more");
    }
    s.end(&names[0], 5, Health::Well);
    assert_eq!(s.started(), [201], "then whoever has few, in turn");
}

#[test]
fn an_endpoint_alone_has_all_places_but_those_kept_for_others() {
    let a = endpoint("a");
    let mut s = Script::proven(600, 512, &[&a]);
    s.first(&a, 0..512);
    assert_eq!(s.started().len(), 512);
    s.first(&a, 512..1_200);
    assert!(s.started().is_empty());
    s.pass(SECOND);
    for ordinal in 0..512 {
        s.end(&a, ordinal, Health::Well);
    }
    assert_eq!(s.started().len(), 256, "slow answers are answers");
}

#[test]
fn retries_have_half_of_an_endpoint_s_places_and_alternate_with_first_tries() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    let mut s = Script::proven(4, 8, &[&a, &b]);
    for ordinal in 0..20 {
        s.retry(&a, [ordinal]);
        s.retry(&b, [100 + ordinal]);
    }
    assert_eq!(s.started(), [0, 100, 1, 101]);
    s.first(&a, 50..60);
    assert_eq!(s.started(), [50, 51]);
    s.end(&a, 50, Health::Well);
    assert_eq!(s.started(), [52], "it has half of them for retries");
    s.end(&a, 0, Health::Well);
    assert_eq!(s.started(), [2]);
    for (ended, started) in [([1, 2], [53, 3]), ([53, 3], [54, 4])] {
        for ordinal in ended {
            s.end(&a, ordinal, Health::Well);
        }
        assert_eq!(s.started(), started);
    }
}

#[test]
fn an_endpoint_that_has_not_answered_gets_few_places_while_half_of_all_are_free() {
    let (new, well) = (endpoint("new"), endpoint("well"));
    let mut s = Script::proven(100, 8, &[&well]);
    s.first(&new, 0..50);
    assert_eq!(s.started(), [0, 1, 2, 3]);
    for (name, starts) in [("b", 4), ("c", 1), ("d", 1)] {
        s.first(&endpoint(name), 100..150);
        assert_eq!(s.started().len(), starts, "{name}");
    }
    s.first(&well, 200..250);
    assert_eq!(
        s.started(),
        [200, 201],
        "of the quarter that is not for them"
    );
    s.end(&new, 0, Health::Silent);
    assert_eq!(s.started(), [202]);
    for ordinal in 200..204 {
        s.end(&well, ordinal, Health::Well);
        assert_eq!(s.started(), [ordinal + 3], "ahead of the others");
    }
    for ordinal in 1..3 {
        s.end(&new, ordinal, Health::Silent);
        assert!(s.started().iter().all(|it| *it >= 200), "silent since");
    }
    s.end(&new, 3, Health::Silent);
    assert!(
        s.started().contains(&4),
        "one at a time, whoever goes ahead"
    );
}

#[test]
fn an_endpoint_with_an_attempt_that_has_run_for_a_second_goes_ahead_of_nobody() {
    let (slow, well) = (endpoint("slow"), endpoint("well"));
    let mut s = Script::proven(32, 8, &[&slow, &well]);
    s.first(&slow, 0..100);
    assert_eq!(s.started().len(), 8);
    s.first(&well, 200..300);
    assert_eq!(s.started(), [200, 201, 202, 203]);
    s.pass(SECOND - 1);
    assert_eq!((s.turns.places().fast, s.turns.places().slow), (12, 0));
    assert_eq!(s.turns.deadline(), Some(START.plus_ms(SECOND)));
    for ordinal in 200..204 {
        s.end(&well, ordinal, Health::Well);
    }
    assert_eq!(s.started().len(), 4);
    s.pass(1);
    assert_eq!((s.turns.places().fast, s.turns.places().slow), (4, 8));
    for ordinal in 0..7 {
        s.end(&slow, ordinal, Health::Well);
        let started = s.started();
        assert!(started.iter().all(|it| *it >= 200), "{started:?}");
    }
    s.end(&slow, 7, Health::Well);
    // It has answered, if late: its only attempt needs no more than a place.
    assert!(s.started().contains(&8));
    s.end(&slow, 8, Health::Well);
    assert!(s.started().contains(&9), "quick again");
}

#[test]
fn an_attempt_that_is_put_off_takes_no_endpoint_s_turn_however_long_it_waited() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    for (health, first) in [
        (Health::Unknown, [10, 20]),
        (Health::Absent, [10, 20]),
        (Health::Failing, [20, 10]),
        (Health::Answered, [20, 10]),
        (Health::Silent, [20, 10]),
        (Health::Well, [20, 10]),
    ] {
        let mut s = Script::proven(32, 8, &[&a, &b]);
        s.first(&a, [0, 1]);
        assert_eq!(s.started(), [0, 1]);
        s.pass(2 * SECOND);
        assert_eq!(s.turns.places().slow, 2);
        // One more that is put off changes nothing of what the other one says.
        s.end(&a, 0, health);
        s.end(&a, 1, Health::Unknown);
        s.first(&a, [10]);
        s.first(&b, [20]);
        assert_eq!(s.started(), first, "{health:?}");
    }
}

#[test]
fn an_open_breaker_starts_nothing_and_a_half_open_one_a_single_attempt() {
    let dead = endpoint("dead");
    let mut s = Script::new(32, 100);
    s.first(&dead, 0..20);
    for ordinal in 0..8 {
        s.started();
        s.end(&dead, ordinal, Health::Silent);
    }
    // What had been started before it opened ends, and changes nothing.
    s.started();
    for ordinal in 8..11 {
        s.end(&dead, ordinal, Health::Silent);
    }
    assert_eq!(s.turns.places().open, 1);
    assert_eq!(
        s.turns.waiting(),
        0,
        "what it holds back waits for no place"
    );
    for (round, seconds) in [1, 2, 4, 8].into_iter().enumerate() {
        s.pass(seconds * SECOND - 1);
        assert!(s.started().is_empty());
        s.pass(1);
        let probe = 11 + round as u64;
        assert_eq!(s.started(), [probe]);
        assert_eq!(s.turns.places().half_open, 1);
        s.end(&dead, probe, Health::Failing);
    }
    s.pass(16 * SECOND);
    assert_eq!(s.started(), [15]);
    s.end(&dead, 15, Health::Well);
    assert_eq!(s.started(), [16, 17, 18, 19], "few at first");
    assert_eq!((s.turns.places().open, s.turns.places().half_open), (0, 0));
}

#[test]
fn a_changed_endpoint_is_tried_at_once() {
    let dead = endpoint("dead");
    let mut s = Script::new(32, 100);
    s.first(&dead, 0..20);
    for ordinal in 0..8 {
        s.started();
        s.end(&dead, ordinal, Health::Silent);
    }
    for ordinal in 8..11 {
        s.end(&dead, ordinal, Health::Silent);
    }
    assert!(s.started().is_empty());
    s.turns.changed(&dead);
    assert_eq!(s.started(), [11, 12, 13, 14]);
}

#[test]
fn another_policy_opens_no_breaker_early_and_takes_no_proof_away() {
    let (dead, well) = (endpoint("dead"), endpoint("well"));
    let mut s = Script::proven(32, 100, &[&well]);
    s.first(&dead, 0..20);
    for ordinal in 0..8 {
        s.started();
        s.end(&dead, ordinal, Health::Silent);
    }
    for ordinal in 8..11 {
        s.end(&dead, ordinal, Health::Silent);
    }
    for own in [Some(policy(20, None)), Some(policy(21, None)), None] {
        s.turns.set_policy(&dead, own.clone());
        s.turns.set_policy(&well, own);
        assert!(s.started().is_empty());
        assert_eq!(s.turns.places().open, 1);
    }
    s.pass(SECOND - 1);
    assert!(s.started().is_empty());
    s.pass(1);
    assert_eq!(s.started(), [11], "its probe, when it was due");
    s.first(&well, 100..110);
    assert_eq!(s.started().len(), 10, "it has answered before");
}

#[test]
fn an_endpoint_s_rate_is_kept_whatever_is_free() {
    let a = endpoint("a");
    let mut s = Script::proven(100, 100, &[&a]);
    s.turns
        .set_policy(&a, Some(policy(50, Rate::per_1000_seconds(2_000))));
    s.first(&a, 0..10);
    assert_eq!(s.started(), [0, 1]);
    assert_eq!(s.turns.wakes.first().unwrap().0, s.now.plus_ms(500));
    for ordinal in 2..10 {
        s.pass(499);
        assert!(s.started().is_empty());
        s.pass(1);
        assert_eq!(s.started(), [ordinal]);
    }
    s.turns.set_policy(&a, None);
    s.first(&a, 10..14);
    s.pass(0);
    assert_eq!(s.started().len(), 4);
}

#[test]
fn another_rate_goes_from_now_on_and_gives_nothing_away() {
    let a = endpoint("a");
    let mut s = Script::proven(100, 100, &[&a]);
    let rate = |per_1000| Some(policy(50, Rate::per_1000_seconds(per_1000)));
    s.turns.set_policy(&a, rate(100));
    s.first(&a, 0..40);
    assert_eq!(s.started(), [0], "one in 10 s");
    s.turns.set_policy(&a, rate(10_000));
    assert!(
        s.started().is_empty(),
        "ten a second, of which it has earned none"
    );
    for ordinal in 1..5 {
        s.pass(100);
        assert_eq!(s.started(), [ordinal]);
    }
    for per_1000 in [9_000, 10_000, 9_000, 10_000] {
        s.turns.set_policy(&a, rate(per_1000));
        assert!(s.started().is_empty());
    }
    assert_eq!(s.turns.wakes.len(), 1);
}

#[test]
fn an_endpoint_s_own_cap_is_kept() {
    let a = endpoint("a");
    let mut s = Script::proven(100, 100, &[&a]);
    s.turns.set_policy(&a, Some(policy(3, None)));
    assert_eq!(s.turns.policy(&a).cap, 3);
    s.first(&a, 0..10);
    assert_eq!(s.started(), [0, 1, 2]);
    s.turns.set_policy(&a, None);
    assert_eq!(s.started().len(), 7);
}

#[test]
fn what_is_known_of_an_endpoint_is_forgotten_when_it_is_not_used() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    let mut s = Script::new(4, 4);
    s.first(&b, [1]);
    assert_eq!(s.started(), [1]);
    s.end(&b, 1, Health::Answered);
    assert!(s.turns.lines.is_empty(), "there is nothing to know");
    s.first(&a, [1]);
    assert_eq!(s.started(), [1]);
    s.end(&a, 1, Health::Well);
    s.pass(9 * 60 * SECOND);
    s.first(&a, [2]);
    assert_eq!(s.started(), [2]);
    s.end(&a, 2, Health::Well);
    s.pass(9 * 60 * SECOND);
    assert!(s.turns.lines.contains_key(&a));
    s.pass(10 * 60 * SECOND);
    assert!(s.turns.lines.is_empty() && s.turns.remembered.is_empty());
    assert!(s.turns.rings.is_empty() && s.turns.wakes.is_empty());
}

#[test]
fn an_endpoint_is_remembered_once_however_often_it_is_changed_and_used() {
    let (a, b) = (endpoint("a"), endpoint("b"));
    let mut s = Script::new(4, 4);
    for ordinal in 0..10_000 {
        for (of, ordinal) in [(&a, ordinal), (&b, 10_000 + ordinal)] {
            s.turns.changed(of);
            s.first(of, [ordinal]);
            assert_eq!(s.started(), [ordinal]);
            s.end(of, ordinal, Health::Well);
        }
        assert_eq!(s.turns.remembered.len(), 2);
        s.pass(SECOND);
    }
    s.turns.changed(&a);
    assert_eq!((s.turns.lines.len(), s.turns.remembered.len()), (1, 1));
    s.pass(20 * 60 * SECOND);
    assert_eq!((s.turns.lines.len(), s.turns.remembered.len()), (0, 0));
}

/// Endpoints in virtual time: the first `hung` answer nothing for 10 s, one answers within 5 ms.
struct World {
    random: ChaCha8Rng,
    turns: Turns,
    now: Timestamp,
    /// By when it ends: endpoint, start, health.
    ends: BTreeMap<(Timestamp, u64), (usize, Start, Health)>,
    due: BTreeMap<u64, Timestamp>,
    endpoints: Vec<EndpointKey>,
    next: u64,
    waited: i64,
    served: u64,
    /// Those that hang answer well after all.
    late: bool,
    /// They answer quickly every other time, each at other times.
    moody: bool,
}

const HANGS_MS: i64 = 10_000;

impl World {
    fn new(seed: u64, endpoints: usize, in_all: usize) -> Self {
        let breaker = BreakerConfig::default();
        let mut turns = Turns::new(policy(32, None), in_all, breaker);
        turns.elapsed(START);
        let names = (0..endpoints).map(|n| endpoint(&format!("{n:04}")));
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            turns,
            now: START,
            ends: BTreeMap::new(),
            due: BTreeMap::new(),
            endpoints: names.collect(),
            next: 0,
            waited: 0,
            served: 0,
            late: false,
            moody: false,
        }
    }

    fn put(&mut self, of: usize, class: Class) {
        let key = EventKey {
            session: Uuid::from_u128(of as u128),
            ordinal: self.next,
        };
        self.next += 1;
        let healthy = of == self.endpoints.len() - 1;
        if healthy {
            self.due.insert(key.ordinal, self.now);
        }
        self.turns.enqueue(&self.endpoints[of], key, class);
    }

    fn run(&mut self, hangs: bool) {
        let last = self.endpoints.len() - 1;
        while let Some(start) = self.turns.next() {
            let of = start.event.session.as_u128() as usize;
            let moment = self.now.unix_ms() + of as i64 * 4_567;
            let quick = self.moody && moment / (HANGS_MS + 1_000) % 2 == 0;
            let (ms, health) = if of == last || !hangs || quick {
                (self.random.random_range(1..=5), Health::Well)
            } else {
                let late = if self.late {
                    Health::Well
                } else {
                    Health::Silent
                };
                (HANGS_MS, late)
            };
            if let Some(due) = self.due.remove(&start.event.ordinal) {
                self.waited = self.waited.max(self.now.unix_ms() - due.unix_ms());
                self.served += 1;
            }
            let at = self.now.plus_ms(ms);
            self.ends.insert((at, start.number), (of, start, health));
        }
    }

    /// The next thing that happens by itself, not later than `until`.
    fn go_on(&mut self, until: Timestamp, hangs: bool) {
        loop {
            self.run(hangs);
            let ends = self.ends.first_key_value().map(|((at, _), _)| *at);
            let next = ends.into_iter().chain(self.turns.deadline()).min();
            let Some(at) = next.filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            self.turns.elapsed(self.now);
            while let Some(end) = self.ends.first_entry()
                && end.key().0 <= self.now
            {
                let (of, start, health) = end.remove();
                let jitter = self.random.random_range(-100..=100);
                self.turns
                    .finished(&self.endpoints[of], start, health, jitter);
                if health == Health::Silent {
                    // It is tried again, like all that fails.
                    self.turns
                        .enqueue(&self.endpoints[of], start.event, Class::Retry);
                }
            }
            let places = self.turns.places();
            assert!(places.fast + places.slow <= 2 * self.turns.in_all);
        }
        self.now = until;
        self.turns.elapsed(self.now);
        self.run(hangs);
    }
}

#[test]
fn endpoints_that_answer_late_again_and_again_cost_the_others_no_wait() {
    // With the places that one has by default, and with more than there are for all.
    for (seed, late, cap) in [(0, 40, 32), (1, 200, 32), (2, 4, 256), (3, 8, 600)] {
        let mut world = World::new(seed, late + 1, 512);
        world.late = true;
        for of in 0..=late {
            let name = world.endpoints[of].clone();
            world.turns.set_policy(&name, Some(policy(cap, None)));
            world.put(of, Class::First);
        }
        world.go_on(START.plus_ms(100), false);
        for step in 0..4_000 {
            // All of them at once, when what they had before has ended.
            if step % 1_100 == 0 {
                for of in (0..late).cycle().take(late * cap) {
                    world.put(of, Class::First);
                }
            }
            world.put(late, Class::First);
            world.go_on(START.plus_ms(100 + (step + 1) * 20), true);
        }
        assert!(world.served > 3_900, "seed {seed}: {}", world.served);
        assert_eq!(world.waited, 0, "seed {seed}");
    }
}

#[test]
fn no_order_in_which_others_answer_and_hang_makes_one_with_nothing_under_way_wait() {
    for seed in 0..2 {
        for (others, late) in [(200, false), (200, true), (255, false), (255, true)] {
            let mut world = World::new(seed, others + 1, 512);
            (world.late, world.moody) = (late, true);
            let mut most = 0;
            for step in 1..=1_500 {
                for _ in 0..world.random.random_range(0..4) {
                    let of = world.random.random_range(0..others);
                    for _ in 0..world.random.random_range(1..40) {
                        world.put(of, Class::First);
                    }
                }
                if world.random.random_range(0..2) == 0 {
                    // What is known of it goes for nothing.
                    let name = world.endpoints[others].clone();
                    world.turns.changed(&name);
                }
                world.put(others, Class::First);
                world.go_on(START.plus_ms(step * 20), true);
                most = most.max(world.turns.in_flight());
            }
            assert_eq!(world.served, 1_500);
            assert_eq!(world.waited, 0, "seed {seed}, {others}");
            assert!(most > 600, "they take what they can: {most}");
        }
    }
}

#[test]
fn endpoints_that_hang_one_after_the_other_right_after_an_answer_leave_a_place() {
    let mut world = World::new(0, 256, 512);
    for of in 0..255 {
        world.put(of, Class::First);
        world.go_on(world.now.plus_ms(10), false);
        for _ in 0..100 {
            world.put(of, Class::First);
        }
        world.go_on(world.now.plus_ms(1), true);
    }
    assert!(world.turns.in_flight() > 900);
    world.put(255, Class::First);
    world.go_on(world.now.plus_ms(1), true);
    assert_eq!((world.served, world.waited), (1, 0));
}

#[test]
fn a_healthy_endpoint_waits_for_its_own_attempts_only_however_many_others_hang() {
    for seed in 0..6 {
        for (hung, known) in [(100, false), (100, true), (250, false), (250, true)] {
            let mut world = World::new(seed, hung + 1, 512);
            if known {
                // All have answered until now, and stop at the same moment.
                for of in 0..=hung {
                    world.put(of, Class::First);
                }
                world.go_on(START.plus_ms(100), false);
            } else {
                world.put(hung, Class::First);
                world.go_on(START.plus_ms(100), false);
            }
            for of in 0..hung {
                for _ in 0..world.random.random_range(1..100) {
                    world.put(of, Class::First);
                }
            }
            for step in 1..=1_500 {
                for _ in 0..world.random.random_range(0..3) {
                    world.put(hung, Class::First);
                }
                let of = world.random.random_range(0..hung);
                world.put(of, Class::First);
                world.go_on(START.plus_ms(100 + step * 20), true);
            }
            let World { waited, served, .. } = world;
            assert!(served > 1_000, "seed {seed}: {served}");
            // Two at once: the second goes when the first has ended, if not before.
            assert!(waited <= 5, "seed {seed}, {hung} hang: {waited} ms");
        }
    }
}

#[test]
fn an_endpoint_that_is_new_starts_at_once_beside_two_hundred_that_hang() {
    for seed in 0..12 {
        let mut world = World::new(seed, 201, 512);
        for of in 0..200 {
            for _ in 0..50 {
                world.put(of, Class::First);
            }
        }
        world.go_on(START.plus_ms(10), true);
        world.put(200, Class::First);
        world.go_on(START.plus_ms(5_000), true);
        assert_eq!((world.served, world.waited), (1, 0), "seed {seed}");
    }
}

#[test]
fn nothing_stays_behind_when_all_answer_again() {
    for seed in 0..12 {
        let mut world = World::new(seed, 40, 16);
        for step in 0..400 {
            let of = world.random.random_range(0..40);
            let class = if world.random.random_range(0..3) == 0 {
                Class::Retry
            } else {
                Class::First
            };
            world.put(of, class);
            world.go_on(START.plus_ms(step * 100), step % 100 < 60);
        }
        world.go_on(world.now.plus_ms(600_000), false);
        assert_eq!(world.turns.waiting, 0, "seed {seed}");
        assert_eq!((world.turns.held, world.turns.in_flight()), (0, 0));
        let places = world.turns.places();
        assert_eq!(places, Places::default(), "seed {seed}");
        world.go_on(world.now.plus_ms(3 * REMEMBERED_MS), false);
        assert!(
            world.turns.lines.is_empty() && world.turns.rings.is_empty(),
            "seed {seed}"
        );
    }
}

#[test]
fn the_rate_and_the_breaker_together_let_all_through_in_the_end() {
    let mut s = Script::new(4, 4);
    let a = endpoint("a");
    s.turns
        .set_policy(&a, Some(policy(4, Rate::per_1000_seconds(500))));
    s.first(&a, 0..12);
    let mut done = Vec::new();
    let mut failures = 9;
    for _ in 0..400 {
        for ordinal in s.started() {
            let health = if failures > 0 {
                failures -= 1;
                Health::Failing
            } else {
                Health::Well
            };
            s.end(&a, ordinal, health);
            if health == Health::Failing {
                s.retry(&a, [ordinal]);
            } else {
                done.push(ordinal);
            }
        }
        let until = s
            .turns
            .deadline()
            .map_or(0, |at| at.unix_ms() - s.now.unix_ms());
        s.pass(until.min(Duration::from_secs(60).as_millis() as i64));
    }
    done.sort_unstable();
    assert_eq!(done, (0..12).collect::<Vec<_>>());
}
