//! The process dies at each step of a call.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Callee, Caller, Manners, Outcome};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[track_caller]
pub(crate) fn crash_everywhere(call: CallPlan) {
    crash_everywhere_in(&Scenario::calm(call));
}

/// With a restart after which connected calls go on, and with one after which they are ended.
#[track_caller]
pub(crate) fn crash_everywhere_in(calm: &Scenario) {
    crash_everywhere_for(calm, ms(700));
    crash_everywhere_for(calm, ms(5_100));
}

#[track_caller]
fn crash_everywhere_for(calm: &Scenario, down_for: Duration) {
    let steps = holds(calm).steps;
    for last_commit_survives in [false, true] {
        for step in 1..=steps {
            let mut scenario = calm.clone();
            let at = CrashAt::Step(step);
            scenario.crashes = vec![CrashPlan {
                at,
                down_for,
                last_commit_survives,
            }];
            let outcome = holds(&scenario);
            let (a, b) = &outcome.phones[0];
            let durable = |line: &str| {
                outcome
                    .sessions
                    .iter()
                    .any(|session| session.lines().iter().any(|it| it == line))
            };
            // A call that was not durable yet is not known to anyone after the crash, and so is an
            // answer: only then a user is left alone. So is one whose BYE its stream took along.
            let ladder = &outcome.ladder;
            let on_streams = scenario.calls[0].caller_transport == Transport::Tcp;
            let cut_off = |talked: bool| on_streams && talked;
            if durable("A CALL_RECEIVED") && !cut_off(a.talked) {
                assert!(
                    !a.patience_ran_out,
                    "step {step}: A is left alone\n{ladder}"
                );
            }
            let known = durable("B CALL_CONNECTED") || !b.talked;
            if known && !cut_off(b.talked) {
                assert!(
                    !b.patience_ran_out,
                    "step {step}: B is left alone\n{ladder}"
                );
            }
        }
    }
}

#[test]
fn a_crash_at_any_step_of_an_answered_call_ends_it_whole() {
    crash_everywhere(CallPlan::default());
}

#[test]
fn a_crash_at_any_step_of_a_call_with_keys_and_a_hold_ends_it_whole() {
    crash_everywhere(CallPlan {
        keys: vec![(ms(500), Side::Caller, '5'), (ms(600), Side::Callee, '#')],
        hold: Some((Side::Caller, ms(3_000), ms(1_000))),
        ..CallPlan::default()
    });
}

#[test]
fn a_crash_at_any_step_of_a_refused_call_ends_it_whole() {
    let outcome = Outcome::Refuse {
        after: ms(900),
        status: 486,
        cause: None,
    };
    let callee = Callee {
        ring_after: Some(ms(200)),
        outcome,
        hang_up_after: None,
    };
    crash_everywhere(CallPlan {
        callee,
        ..CallPlan::default()
    });
}

#[test]
fn a_crash_at_any_step_of_a_cancelled_call_ends_it_whole() {
    for answers_when_cancelled in [false, true] {
        crash_everywhere(CallPlan {
            caller: Caller {
                cancel_after: Some(ms(1_000)),
                hang_up_after: None,
            },
            callee_manners: Manners {
                answers_when_cancelled,
                ..Manners::default()
            },
            ..CallPlan::default()
        });
    }
}

#[test]
fn a_crash_at_any_step_of_a_call_that_is_never_acknowledged_ends_it_whole() {
    crash_everywhere(CallPlan {
        caller_manners: Manners {
            never_acknowledges: true,
            ..Manners::default()
        },
        ..CallPlan::default()
    });
}

#[test]
fn a_crash_at_any_step_of_a_call_over_streams_ends_it_whole() {
    crash_everywhere(CallPlan {
        caller_transport: Transport::Tcp,
        callee_transport: Transport::Tcp,
        ..CallPlan::default()
    });
}

#[test]
fn a_crash_while_a_cancel_waits_for_the_callees_first_answer_does_not_leave_it_ringing() {
    let mut scenario = Scenario::calm(CallPlan {
        caller: Caller {
            cancel_after: Some(ms(500)),
            hang_up_after: None,
        },
        callee: Callee {
            ring_after: Some(ms(200)),
            outcome: Outcome::Ignore,
            hang_up_after: None,
        },
        ..CallPlan::default()
    });
    scenario.network.latency_min = ms(300);
    scenario.network.latency_max = ms(300);
    crash_everywhere_in(&scenario);
}
