//! A trunk that registers with its carrier.

use std::time::Duration;

use sim::{CallPlan, CrashAt, CrashPlan, RegistrarFault, RegistrarPlan, Scenario};

use crate::holds;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn registers(registrar: RegistrarPlan) -> Scenario {
    Scenario {
        registrar: Some(registrar),
        drain: Some((s(100), s(5))),
        ..Scenario::calm(CallPlan::default())
    }
}

fn plain() -> RegistrarPlan {
    RegistrarPlan {
        count: 1,
        asks: false,
        least_seconds: 0,
        expires_seconds: 60,
        faults: Vec::new(),
    }
}

/// Who was asked for how long, in order, without times.
fn taken(scenario: &Scenario) -> Vec<(usize, u32)> {
    let log = holds(scenario).registrar;
    log.taken.iter().map(|(_, at, sec)| (*at, *sec)).collect()
}

#[test]
fn a_trunk_registers_refreshes_and_leaves_with_the_drain() {
    let outcome = holds(&registers(plain()));
    let log = outcome.registrar;
    let seconds: Vec<u32> = log.taken.iter().map(|(_, _, seconds)| *seconds).collect();
    // Half-way: after 30, 60 and 90 s; the drain ends after 105 s.
    assert_eq!(seconds, [60, 60, 60, 60, 0]);
    assert!(!log.bound);
    assert_eq!(log.asked, 0);
    // The call beside it is a call like any other.
    assert_eq!(outcome.sessions.len(), 1);
}

#[test]
fn a_registrar_that_asks_is_answered_once_and_then_no_more() {
    let outcome = holds(&registers(RegistrarPlan {
        asks: true,
        ..plain()
    }));
    assert_eq!(outcome.registrar.asked, 1);
    assert_eq!(outcome.registrar.taken.len(), 5);
    assert!(!outcome.registrar.bound);
}

#[test]
fn a_registrar_that_wants_longer_registrations_gets_them() {
    let scenario = registers(RegistrarPlan {
        asks: true,
        least_seconds: 80,
        ..plain()
    });
    assert_eq!(taken(&scenario), [(0, 80), (0, 80), (0, 80), (0, 0)]);
}

#[test]
fn the_next_registrar_takes_over_from_one_that_is_silent_or_overloaded() {
    for silent in [false, true] {
        let scenario = registers(RegistrarPlan {
            count: 2,
            asks: true,
            faults: vec![RegistrarFault {
                registrar: 0,
                from: s(0),
                to: s(1_000),
                silent,
            }],
            ..plain()
        });
        let taken = taken(&scenario);
        assert_eq!(taken.first(), Some(&(1, 60)), "silent: {silent}");
        assert_eq!(taken.last(), Some(&(1, 0)), "silent: {silent}");
    }
}

#[test]
fn a_registration_comes_back_after_the_registrar_was_away_and_after_a_crash() {
    let mut scenario = registers(RegistrarPlan {
        asks: true,
        faults: vec![RegistrarFault {
            registrar: 0,
            from: s(20),
            to: s(65),
            silent: true,
        }],
        ..plain()
    });
    scenario.drain = Some((s(200), s(5)));
    let log = holds(&scenario).registrar;
    assert!(log.taken.iter().any(|(at, _, _)| *at > s(65)));
    assert!(!log.bound);

    scenario.crashes = vec![CrashPlan {
        at: CrashAt::Time(s(130)),
        down_for: s(2),
        last_commit_survives: true,
    }];
    let log = holds(&scenario).registrar;
    // The restarted node registers at once, and not only when the binding is half-way.
    let mut pairs = log.taken.windows(2);
    assert!(pairs.any(|two| two[1].0 > s(130) && two[1].0 - two[0].0 < s(29)));
    assert!(!log.bound);
}

#[test]
fn a_carrier_with_bad_days_on_a_bad_network_never_sees_a_wrong_register() {
    for seed in 0..48 {
        let mut scenario = Scenario::random(80_000 + seed);
        let fault = |registrar, from, to| RegistrarFault {
            registrar,
            from: s(from),
            to: s(to),
            silent: seed % 2 == 0,
        };
        scenario.registrar = Some(RegistrarPlan {
            count: 2,
            asks: true,
            least_seconds: 40,
            expires_seconds: 30,
            faults: vec![fault(0, 10, 70), fault(1, 50, 60)],
        });
        scenario.drain = Some((s(150), s(5)));
        scenario.network.loss_per_mille = scenario.network.loss_per_mille.max(100);
        let outcome = holds(&scenario);
        assert!(!outcome.registrar.taken.is_empty(), "seed {seed}");
    }
}
