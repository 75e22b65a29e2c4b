//! A connected call goes on after a short restart, and no event says anything of it.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Callee, Caller, Outcome};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, Scenario};

use crate::holds;

const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Connected after two seconds; ended by the caller seven seconds after the dialling.
fn call(transport: Transport) -> CallPlan {
    CallPlan {
        caller_transport: transport,
        callee_transport: transport,
        ..CallPlan::default()
    }
}

fn crashing(call: CallPlan, at: Duration, down_for: Duration) -> Scenario {
    let mut scenario = Scenario::calm(call);
    scenario.crashes = vec![crash(at, down_for)];
    scenario
}

const fn crash(at: Duration, down_for: Duration) -> CrashPlan {
    CrashPlan {
        at: CrashAt::Time(at),
        down_for,
        last_commit_survives: true,
    }
}

#[track_caller]
fn lines(scenario: &Scenario) -> Vec<String> {
    let outcome = holds(scenario);
    for (a, b) in &outcome.phones {
        let alone = a.patience_ran_out || b.patience_ran_out;
        assert!(!alone, "a party is left alone\n{}", outcome.ladder);
    }
    outcome.sessions[0].lines()
}

#[test]
fn a_call_that_was_cut_off_is_told_as_if_nothing_had_happened() {
    for transport in TRANSPORTS {
        let expected = lines(&Scenario::calm(call(transport)));
        for at in (2_400..7_100).step_by(100) {
            let scenario = crashing(call(transport), ms(at), ms(900));
            assert_eq!(lines(&scenario), expected, "{transport:?} at {at} ms");
        }
    }
}

#[test]
fn it_is_so_for_the_callee_that_hangs_up_and_after_two_crashes() {
    let plan = || CallPlan {
        caller: Caller::default(),
        callee: Callee {
            ring_after: Some(ms(200)),
            outcome: Outcome::Answer(ms(500)),
            hang_up_after: Some(ms(9_000)),
        },
        ..CallPlan::default()
    };
    let expected = lines(&Scenario::calm(plan()));
    let mut scenario = crashing(plan(), ms(2_000), ms(300));
    // The second comes while the first one's questions are under way.
    scenario.crashes.push(crash(ms(2_306), ms(300)));
    scenario.crashes.push(crash(ms(5_000), ms(4_900)));
    assert_eq!(lines(&scenario), expected);
}

#[test]
fn a_hold_that_began_before_the_crash_is_ended_after_it() {
    for transport in TRANSPORTS {
        let mut plan = call(Transport::Udp);
        plan.caller_transport = transport;
        plan.hold = Some((Side::Callee, ms(3_000), ms(2_000)));
        let expected = lines(&Scenario::calm(plan.clone()));
        assert!(expected.iter().any(|line| line.ends_with("RESUMED")));
        for at in [3_100, 3_500, 4_000] {
            let scenario = crashing(plan.clone(), ms(at), ms(500));
            assert_eq!(lines(&scenario), expected, "{transport:?} at {at} ms");
        }
    }
}

#[test]
fn a_call_lasts_no_longer_than_it_may_from_its_answer() {
    let mut plan = call(Transport::Udp);
    plan.caller.hang_up_after = None;
    let mut scenario = crashing(plan, ms(40_000), ms(3_000));
    scenario.max_duration = Duration::from_secs(60);
    let outcome = holds(&scenario);
    assert!(outcome.counts.contains_key("max_duration"));
    // What is left after the end takes 64·T1; a new hour glass would have begun at 43 s.
    assert!(
        outcome.rested_at < Duration::from_secs(100),
        "{:?}\n{}",
        outcome.rested_at,
        outcome.ladder
    );
}

#[test]
fn a_longer_absence_ends_the_call_in_error() {
    let scenario = crashing(call(Transport::Udp), ms(4_000), ms(5_100));
    let told = lines(&scenario);
    assert_eq!(
        told.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED ERROR -2001"
    );
}

#[test]
fn a_call_whose_ports_are_another_s_is_ended_in_error() {
    let mut plan = call(Transport::Udp);
    plan.ports_lost = true;
    let told = lines(&crashing(plan, ms(4_000), ms(500)));
    assert_eq!(
        told.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED ERROR -2001"
    );
}

/// The BYE was answered and the process died before it was durable: the party that is asked does
/// not know its dialog any more.
#[test]
fn a_party_that_hung_up_unheard_ends_the_call() {
    let mut unheard = 0;
    let steps = holds(&Scenario::calm(call(Transport::Udp))).steps;
    for step in 1..=steps {
        let mut scenario = Scenario::calm(call(Transport::Udp));
        scenario.crashes = vec![CrashPlan {
            at: CrashAt::Step(step),
            down_for: ms(700),
            last_commit_survives: false,
        }];
        let outcome = holds(&scenario);
        if outcome.counts.contains_key("hung_up_unheard") {
            unheard += 1;
            let told = outcome.sessions[0].lines();
            assert_eq!(
                told.last().unwrap(),
                "SUMMARY COMPLETED COMPLETED COMPLETED"
            );
        }
    }
    assert!(unheard > 0, "no crash came at such a moment");
}
