//! A call that one way to the callee does not take: it goes on to the next, and one phone rings.

use std::time::Duration;

use maskline_phone::{Callee, Caller, Manners, Outcome};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, OtherWay, Scenario};

use crate::crashes::crash_everywhere;
use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const ANSWERED: [&str; 8] = [
    "A CALL_RECEIVED",
    "B CALL_INITIATED",
    "B CALL_UPDATED RINGING",
    "B CALL_CONNECTED",
    "A CALL_CONNECTED",
    "A CALL_DISCONNECTED 200",
    "B CALL_DISCONNECTED 200",
    "SUMMARY COMPLETED COMPLETED COMPLETED",
];

fn callee(ring_after: Option<Duration>, outcome: Outcome) -> Callee {
    Callee {
        ring_after,
        outcome,
        hang_up_after: None,
    }
}

fn refuses(after: Duration, status: u16) -> Callee {
    callee(
        None,
        Outcome::Refuse {
            after,
            status,
            cause: None,
        },
    )
}

fn silent() -> Callee {
    callee(None, Outcome::Silence)
}

fn answers() -> Callee {
    CallPlan::default().callee
}

/// A call whose ways to B behave like this, the first first.
fn ways(own_trunk: bool, transport: Transport, callees: &[Callee]) -> CallPlan {
    let (first, others) = callees.split_first().unwrap();
    CallPlan {
        callee: first.clone(),
        callee_transport: transport,
        others: others
            .iter()
            .map(|callee| OtherWay {
                own_trunk,
                transport,
                callee: callee.clone(),
                manners: Manners::default(),
            })
            .collect(),
        ..CallPlan::default()
    }
}

/// What was told, and which of B's phones rang, answered, and got an INVITE.
#[track_caller]
fn seen(call: CallPlan) -> (Vec<String>, Vec<bool>, Vec<Option<u16>>, Vec<bool>) {
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
    let lines = &outcome.lines[0];
    (
        outcome.sessions[0].lines(),
        lines.iter().map(|it| it.rang).collect(),
        lines.iter().map(|it| it.final_status).collect(),
        lines.iter().map(|it| it.shows.is_some()).collect(),
    )
}

#[test]
fn a_503_a_408_or_silence_leads_to_the_next_way_and_is_not_told() {
    for first in [
        refuses(ms(100), 503),
        refuses(ms(100), 408),
        refuses(ms(6_000), 503),
        silent(),
    ] {
        for own_trunk in [false, true] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let plan = ways(own_trunk, transport, &[first.clone(), answers()]);
                let (told, rang, finals, _) = seen(plan);
                assert_eq!(told, ANSWERED, "{first:?}");
                assert_eq!(rang, [false, true]);
                assert_eq!(finals[1], Some(200));
            }
        }
    }
}

#[test]
fn other_refusals_end_the_call() {
    for status in [302, 404, 480, 486, 500, 504, 600, 603] {
        let plan = ways(true, Transport::Udp, &[refuses(ms(100), status), answers()]);
        let (told, rang, _, invited) = seen(plan);
        assert!(
            told.contains(&format!("B CALL_DISCONNECTED {status}")),
            "{told:?}"
        );
        assert_eq!((rang, invited), (vec![false, false], vec![true, false]));
    }
}

#[test]
fn a_503_that_says_that_the_callee_is_busy_ends_the_call() {
    let outcome = Outcome::Refuse {
        after: ms(100),
        status: 503,
        cause: Some(17),
    };
    let plan = ways(true, Transport::Udp, &[callee(None, outcome), answers()]);
    let (told, _, _, invited) = seen(plan);
    assert_eq!(told.last().unwrap(), "SUMMARY COMPLETED BUSY BUSY");
    assert_eq!(invited, [true, false]);
}

#[test]
fn a_callee_that_rang_is_not_called_by_another_way() {
    for status in [503, 408] {
        let outcome = Outcome::Refuse {
            after: ms(900),
            status,
            cause: None,
        };
        let rings = callee(Some(ms(200)), outcome);
        let (told, rang, _, invited) = seen(ways(true, Transport::Udp, &[rings, answers()]));
        assert!(
            told.contains(&format!("B CALL_DISCONNECTED {status}")),
            "{told:?}"
        );
        assert_eq!((rang, invited), (vec![true, false], vec![true, false]));
    }
}

#[test]
fn a_100_stops_the_clock_of_silence() {
    let quiet = callee(None, Outcome::Answer(ms(7_000)));
    let (told, _, finals, invited) = seen(ways(true, Transport::Udp, &[quiet, answers()]));
    assert!(told.contains(&"B CALL_CONNECTED".to_owned()));
    assert_eq!((finals[0], invited), (Some(200), vec![true, false]));
}

#[test]
fn the_last_way_decides_how_the_leg_ends() {
    let plan = ways(
        true,
        Transport::Udp,
        &[silent(), refuses(ms(100), 408), refuses(ms(100), 486)],
    );
    let (told, ..) = seen(plan);
    assert_eq!(
        told,
        [
            "A CALL_RECEIVED",
            "B CALL_INITIATED",
            "B CALL_DISCONNECTED 486",
            "A CALL_DISCONNECTED 486",
            "SUMMARY COMPLETED BUSY BUSY"
        ]
    );
    let (told, ..) = seen(ways(
        false,
        Transport::Udp,
        &[refuses(ms(1), 503), silent()],
    ));
    assert_eq!(
        told[2..],
        [
            "B CALL_DISCONNECTED 408 -2002",
            "A CALL_DISCONNECTED 500 -2002",
            "SUMMARY COMPLETED ERROR ERROR -2002"
        ]
    );
}

#[test]
fn four_ways_are_tried_at_most_and_none_after_twelve_seconds() {
    let quick: Vec<_> = (0..6).map(|_| refuses(ms(10), 503)).collect();
    let (told, _, _, invited) = seen(ways(true, Transport::Udp, &quick));
    assert_eq!(invited, [true, true, true, true, false, false]);
    assert!(told.contains(&"B CALL_DISCONNECTED 503".to_owned()));
    let slow: Vec<_> = (0..4).map(|_| refuses(ms(7_000), 503)).collect();
    let (_, _, _, invited) = seen(ways(true, Transport::Udp, &slow));
    assert_eq!(invited, [true, true, false, false]);
}

#[test]
fn a_trunk_without_a_free_place_is_passed_over() {
    let mut plan = ways(true, Transport::Udp, &[answers(), answers()]);
    plan.callee_trunk_calls = 0;
    let (told, rang, ..) = seen(plan);
    assert_eq!(told, ANSWERED);
    assert_eq!(rang, [false, true]);
    let mut plan = ways(false, Transport::Udp, &[answers(), answers()]);
    plan.callee_trunk_calls = 0;
    let (told, ..) = seen(plan);
    assert_eq!(told.last().unwrap(), "SUMMARY COMPLETED ERROR ERROR -2010");
}

/// What was silent for five seconds and then takes a repetition of its INVITE.
fn late(callee: Callee, answers_when_cancelled: bool) -> CallPlan {
    let mut plan = ways(true, Transport::Udp, &[callee, answers()]);
    plan.callee_manners = Manners {
        deaf_for: ms(5_000),
        answers_when_cancelled,
        ..Manners::default()
    };
    plan.others[0].callee.outcome = Outcome::Answer(ms(6_000));
    plan
}

#[test]
fn what_answers_late_is_cancelled_and_the_newer_way_goes_on() {
    for answers_when_cancelled in [false, true] {
        let plan = late(answers(), answers_when_cancelled);
        let (told, rang, finals, _) = seen(plan);
        assert_eq!(told, ANSWERED);
        assert_eq!(
            rang,
            [false, true],
            "the late one is stopped before it rings"
        );
        let first = if answers_when_cancelled { 200 } else { 487 };
        assert_eq!(finals, [Some(first), Some(200)]);
    }
    let (told, _, finals, _) = seen(late(callee(None, Outcome::Answer(Duration::ZERO)), false));
    assert_eq!(told, ANSWERED, "a late 200 is acknowledged and ended");
    assert_eq!(finals, [Some(200), Some(200)]);
}

/// The first way is heard of again after 7.5 s.
#[test]
fn a_late_ring_stops_the_invite_that_waits_for_the_journal() {
    let at_once = || Some(Duration::ZERO);
    for late_one in [
        callee(at_once(), Outcome::Answer(ms(3_000))),
        callee(at_once(), Outcome::Ignore),
        callee(None, Outcome::Answer(Duration::ZERO)),
    ] {
        let mut scenario = Scenario::calm(late(late_one.clone(), false));
        scenario.store.failing = vec![(ms(2_000), ms(9_000))];
        let outcome = holds(&scenario);
        assert_eq!(
            outcome.sessions[0].lines()[2..],
            [
                "B CALL_DISCONNECTED 487 -2002",
                "A CALL_DISCONNECTED 500 -2002",
                "SUMMARY COMPLETED ERROR ERROR -2002"
            ],
            "{}",
            outcome.ladder
        );
        let invited: Vec<_> = outcome.lines[0]
            .iter()
            .map(|it| it.shows.is_some())
            .collect();
        assert_eq!(invited, [true, false], "{late_one:?}");
        assert_eq!(outcome.counts["failover_rang_meanwhile"], 1);
    }
    let mut scenario = Scenario::calm(late(callee(None, Outcome::Ignore), false));
    scenario.store.failing = vec![(ms(2_000), ms(9_000))];
    let outcome = holds(&scenario);
    assert_eq!(
        outcome.lines[0][1].final_status,
        Some(200),
        "a 100 stops nothing"
    );
}

#[test]
fn no_third_way_is_tried_behind_a_late_ring_of_the_first() {
    let mut plan = late(callee(Some(Duration::ZERO), Outcome::Ignore), false);
    plan.others[0].callee = silent();
    plan.others.push(plan.others[0].clone());
    plan.others[1].callee = answers();
    let (told, rang, _, invited) = seen(plan);
    assert_eq!(told[2], "B CALL_DISCONNECTED 408 -2002");
    assert_eq!(rang, [true, false, false]);
    assert_eq!(invited, [true, false, false]);
}

#[test]
fn a_caller_who_gives_up_stops_every_way() {
    for cancel_after in [ms(4_500), ms(8_000), ms(9_000)] {
        let mut plan = late(callee(Some(ms(200)), Outcome::Ignore), false);
        plan.others[0].callee = callee(Some(ms(200)), Outcome::Ignore);
        plan.caller = Caller {
            cancel_after: Some(cancel_after),
            hang_up_after: None,
        };
        let (told, _, finals, _) = seen(plan);
        assert_eq!(told.last().unwrap(), "SUMMARY CANCELED CANCELED CANCELED");
        assert!(finals.iter().all(|it| *it == Some(487)), "{finals:?}");
    }
}

#[test]
fn a_way_that_dies_after_its_100_leaves_nothing_behind() {
    let mut plan = ways(
        true,
        Transport::Udp,
        &[callee(None, Outcome::Ignore), answers()],
    );
    plan.callee_manners.dies_after = Some(ms(1_000));
    let (told, _, _, invited) = seen(plan);
    assert!(
        told.contains(&"B CALL_DISCONNECTED 487".to_owned()),
        "{told:?}"
    );
    assert_eq!(invited, [true, false]);
}

#[test]
fn a_crash_at_any_step_of_a_call_that_goes_on_elsewhere_ends_it_whole() {
    crash_everywhere(late(answers(), false));
    crash_everywhere(ways(
        false,
        Transport::Udp,
        &[refuses(ms(100), 503), answers()],
    ));
}

/// The call that goes on after the restart is the newer way's: what came of the older one is not
/// left ringing.
#[test]
fn a_crash_of_a_call_that_was_answered_elsewhere_leaves_no_phone_ringing() {
    let mut plan = late(callee(Some(ms(200)), Outcome::Ignore), false);
    plan.others[0].callee.outcome = Outcome::Answer(ms(500));
    plan.caller.hang_up_after = Some(ms(10_000));
    let calm = Scenario::calm(plan);
    let steps = holds(&calm).steps;
    let mut went_on = 0;
    for step in 1..=steps {
        let mut scenario = calm.clone();
        scenario.crashes = vec![CrashPlan {
            at: CrashAt::Step(step),
            down_for: ms(300),
            last_commit_survives: true,
        }];
        let outcome = holds(&scenario);
        let connected = |line: &String| line == "B CALL_CONNECTED";
        // One that was not durable is known to nobody.
        let told = outcome.sessions.first().map(sim::SessionLog::lines);
        if told.is_some_and(|told| told.iter().any(connected)) {
            went_on += 1;
            let left = outcome.lines[0].iter().any(|line| line.patience_ran_out);
            assert!(!left, "step {step}\n{}", outcome.ladder);
        }
    }
    assert!(went_on > 10, "{went_on}");
}
