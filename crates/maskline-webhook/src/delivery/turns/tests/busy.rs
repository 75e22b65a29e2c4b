//! How long a retry that is due waits, and how places are shared, in virtual time while all are busy.

use super::*;

const MS_OF_AN_ANSWER: i64 = 250;
/// The schedule's first delay.
const RETRY_MS: i64 = SECOND;

#[derive(Clone, Copy)]
enum Answers {
    /// 200 after 150 to 250 ms, and 503 to one in a hundred.
    Quickly,
    /// 200 after so many ms, and 503 to one in a hundred.
    After(i64),
    /// At once for a second, and then nothing for 10 s.
    ThenHangs,
}

struct Tenant {
    answers: Answers,
    cap: usize,
    per_second: i64,
    /// The retries that are due: since when, and how many first tries may start before.
    due: BTreeMap<u64, (Timestamp, usize)>,
    waited: i64,
    retried: usize,
    /// What it started from that second on.
    started: usize,
}

fn tenants(count: usize, answers: Answers, cap: usize, per_second: i64) -> Vec<Tenant> {
    (0..count)
        .map(|_| Tenant {
            answers,
            cap,
            per_second,
            due: BTreeMap::new(),
            waited: 0,
            retried: 0,
            started: 0,
        })
        .collect()
}

/// So many seconds; gives the fewest attempts that ran at once from a second on.
fn run(tenants: &mut [Tenant], seconds: i64, from: i64, seed: u64) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut turns = Turns::new(policy(32, None), 512, BreakerConfig::default());
    turns.elapsed(START);
    let name = |of: usize| endpoint(&format!("{of:04}"));
    for (of, tenant) in tenants.iter().enumerate() {
        turns.set_policy(&name(of), Some(policy(tenant.cap, None)));
    }
    let mut ends: BTreeMap<(i64, u64), (usize, Start, Health)> = BTreeMap::new();
    let mut retries: BTreeSet<(i64, usize, u64)> = BTreeSet::new();
    let (mut ordinal, mut fewest) = (0, usize::MAX);
    for ms in 0..seconds * SECOND {
        let now = START.plus_ms(ms);
        turns.elapsed(now);
        while let Some(end) = ends.first_entry()
            && end.key().0 <= ms
        {
            let (of, start, health) = end.remove();
            turns.finished(&name(of), start, health, 0);
            if health != Health::Well {
                retries.insert((ms + RETRY_MS, of, start.event.ordinal));
            }
        }
        while let Some((at, of, ordinal)) = retries.first().copied()
            && at <= ms
        {
            retries.pop_first();
            let due = &mut tenants[of].due;
            due.insert(ordinal, (now, due.len() + 1));
            let key = EventKey {
                session: Uuid::from_u128(of as u128),
                ordinal,
            };
            turns.enqueue(&name(of), key, Class::Retry);
        }
        for (of, tenant) in tenants.iter().enumerate() {
            let arrive = |ms: i64| ms * tenant.per_second / SECOND;
            for _ in arrive(ms)..arrive(ms + 1) {
                ordinal += 1;
                let key = EventKey {
                    session: Uuid::from_u128(of as u128),
                    ordinal,
                };
                turns.enqueue(&name(of), key, Class::First);
            }
        }
        while let Some(start) = turns.next() {
            let of = start.event.session.as_u128() as usize;
            let tenant = &mut tenants[of];
            tenant.started += usize::from(ms > from * SECOND);
            if let Some((since, _)) = tenant.due.remove(&start.event.ordinal) {
                tenant.waited = tenant.waited.max(now.unix_ms() - since.unix_ms());
                tenant.retried += 1;
            } else {
                for (_, left) in tenant.due.values_mut() {
                    *left = left.checked_sub(1).unwrap_or_else(|| {
                        panic!("{of}: first tries go on while a retry waits, at {ms} ms")
                    });
                }
            }
            let fails = random.random_range(0..100) == 0;
            let well = if fails { Health::Failing } else { Health::Well };
            let (takes, health) = match tenant.answers {
                Answers::Quickly => (random.random_range(150..=MS_OF_AN_ANSWER), well),
                Answers::After(ms) => (ms, well),
                Answers::ThenHangs if ms < SECOND => (5, Health::Well),
                Answers::ThenHangs => (HANGS_MS, Health::Silent),
            };
            ends.insert((ms + takes, start.number), (of, start, health));
        }
        for tenant in tenants.iter_mut() {
            for (since, _) in tenant.due.values() {
                tenant.waited = tenant.waited.max(now.unix_ms() - since.unix_ms());
            }
        }
        if ms > from * SECOND {
            fewest = fewest.min(turns.in_flight());
        }
    }
    fewest
}

#[test]
fn a_retry_of_a_busy_endpoint_waits_no_longer_than_for_an_answer_of_its_own() {
    for seed in 0..2 {
        // Each has more to send than its places let through.
        let mut busy = tenants(8, Answers::Quickly, 32, 200);
        let fewest = run(&mut busy, 20, 2, seed);
        assert!(fewest >= 250, "all are busy: {fewest}");
        for (of, tenant) in busy.iter().enumerate() {
            assert!(tenant.retried > 10, "{of}: {}", tenant.retried);
            assert!(tenant.waited <= MS_OF_AN_ANSWER, "{of}: {}", tenant.waited);
        }
    }
}

#[test]
fn a_retry_beside_endpoints_that_answer_late_waits_for_nothing() {
    let mut all = tenants(4, Answers::After(9 * SECOND), 64, 20);
    all.extend(tenants(1, Answers::Quickly, 64, 100));
    let fewest = run(&mut all, 60, 20, 0);
    let steady = &all[4];
    assert!(fewest >= 250, "{fewest}");
    assert!(steady.retried > 30, "{}", steady.retried);
    assert_eq!(steady.waited, 0);
}

#[test]
fn a_retry_while_all_places_for_many_are_taken_waits_for_two_answers_of_its_own_at_most() {
    let mut all = tenants(17, Answers::ThenHangs, 32, 50);
    all.extend(tenants(1, Answers::Quickly, 32, 100));
    let fewest = run(&mut all, 10, 2, 0);
    assert!(fewest >= 512, "{fewest}");
    let steady = &all[17];
    assert!(steady.retried > 3, "{}", steady.retried);
    assert!(steady.waited <= 2 * MS_OF_AN_ANSWER, "{}", steady.waited);
}

#[test]
fn one_that_answers_sooner_gets_as_many_places_as_those_that_hold_theirs_for_long() {
    for (seed, late) in [(0, 8), (1, 16)] {
        // They have taken all that there is for them when it comes.
        let mut all = tenants(late, Answers::After(9 * SECOND), 32, 20);
        all.extend(tenants(1, Answers::After(1_200), 32, 100));
        let fewest = run(&mut all, 80, 20, seed);
        assert!(fewest >= 250, "{fewest}");
        let share = fewest as i64 / (late as i64 + 1);
        let of_share = share * 60 * SECOND / 1_200;
        let started = all[late].started as i64;
        assert!(started * 10 >= of_share * 9, "{started} of {of_share}");
    }
}
