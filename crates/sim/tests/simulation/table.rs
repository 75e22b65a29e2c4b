//! One call for each row of the contract's summary table, with every event that a receiver gets.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Callee, Caller, Manners, Outcome};
use sim::{CallPlan, CrashAt, CrashPlan, Scenario, VcaAnswer};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The lines of the one session of a run.
#[track_caller]
fn lines(scenario: &Scenario) -> Vec<String> {
    let outcome = holds(scenario);
    assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
    outcome
        .sessions
        .iter()
        .flat_map(|session| session.lines())
        .collect()
}

/// A call ends as `expected` says, whatever of `opening` came before.
#[track_caller]
fn told(call: CallPlan, opening: &[&[&str]], end: &[&str]) {
    let mut expected = opening.concat();
    expected.extend_from_slice(end);
    assert_eq!(lines(&Scenario::calm(call)), expected);
}

const RECEIVED: &[&str] = &["A CALL_RECEIVED"];
const BEGUN: &[&str] = &["A CALL_RECEIVED", "B CALL_INITIATED"];
const RINGING: &[&str] = &["B CALL_UPDATED RINGING"];
const CONNECTED: &[&str] = &["B CALL_CONNECTED", "A CALL_CONNECTED"];

fn answered() -> CallPlan {
    CallPlan::default()
}

fn refused(ring_after: Option<Duration>, status: u16, cause: Option<u8>) -> CallPlan {
    let outcome = Outcome::Refuse {
        after: ms(900),
        status,
        cause,
    };
    CallPlan {
        callee: Callee {
            ring_after,
            outcome,
            hang_up_after: None,
        },
        ..answered()
    }
}

fn callee(ring_after: Option<Duration>, outcome: Outcome) -> CallPlan {
    CallPlan {
        callee: Callee {
            ring_after,
            outcome,
            hang_up_after: None,
        },
        ..answered()
    }
}

fn vca(vca: VcaAnswer) -> CallPlan {
    CallPlan { vca, ..answered() }
}

#[test]
fn both_speak_and_the_caller_hangs_up() {
    let end = [
        "A CALL_DISCONNECTED 200",
        "B CALL_DISCONNECTED 200",
        "SUMMARY COMPLETED COMPLETED COMPLETED",
    ];
    told(answered(), &[BEGUN, RINGING, CONNECTED], &end);
}

#[test]
fn both_speak_and_the_callee_hangs_up_also_right_behind_the_ack() {
    for after in [0, 1, 4_000] {
        let mut call = answered();
        call.callee.hang_up_after = Some(ms(after));
        let end = [
            "B CALL_DISCONNECTED 200",
            "A CALL_DISCONNECTED 200",
            "SUMMARY COMPLETED COMPLETED COMPLETED",
        ];
        told(call, &[BEGUN, RINGING, CONNECTED], &end);
    }
}

#[test]
fn both_speak_until_the_longest_duration() {
    let mut call = answered();
    call.caller.hang_up_after = None;
    let expected = [
        BEGUN,
        RINGING,
        CONNECTED,
        &[
            "A CALL_DISCONNECTED 200",
            "B CALL_DISCONNECTED 200",
            "SUMMARY COMPLETED COMPLETED COMPLETED",
        ],
    ]
    .concat();
    assert_eq!(lines(&Scenario::calm(call)), expected);
}

#[test]
fn both_hang_up_at_once() {
    let mut call = answered();
    call.both_hang_up = Some(ms(4_000));
    let lines = lines(&Scenario::calm(call));
    let ends = |leg: &str| lines.iter().filter(|line| line.starts_with(leg)).count();
    assert_eq!(
        (
            ends("A CALL_DISCONNECTED 200"),
            ends("B CALL_DISCONNECTED 200")
        ),
        (1, 1)
    );
    assert_eq!(
        lines.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED COMPLETED"
    );
}

#[test]
fn keys_and_holds_are_told_on_the_leg_of_the_party() {
    let mut call = answered();
    call.keys = vec![(ms(500), Side::Caller, '5'), (ms(600), Side::Callee, '#')];
    call.hold = Some((Side::Callee, ms(3_500), ms(1_000)));
    let end = [
        "A DTMF_RECEIVED 5",
        "B DTMF_RECEIVED #",
        "B CALL_UPDATED HELD",
        "B CALL_UPDATED RESUMED",
        "A CALL_DISCONNECTED 200",
        "B CALL_DISCONNECTED 200",
        "SUMMARY COMPLETED COMPLETED COMPLETED",
    ];
    told(call, &[BEGUN, RINGING, CONNECTED], &end);
}

/// RFC 3261 §13.2.2.4: an answer that is repeated wants its ACK again, and no second BYE.
#[test]
fn another_forks_answer_that_is_repeated_is_acknowledged_again_and_ended_once() {
    let mut repeated = 0;
    for seed in 0..40 {
        let mut call = answered();
        call.callee_manners.forks = true;
        let mut scenario = Scenario::calm(call);
        scenario.seed = seed;
        scenario.network.loss_per_mille = 500;
        let counts = holds(&scenario).counts;
        repeated += u64::from(counts.get("forked_answer") > Some(&1));
    }
    assert!(repeated > 0, "{repeated}");
}

#[test]
fn a_forked_callee_is_one_callee() {
    let mut call = answered();
    call.callee_manners = Manners {
        forks: true,
        ..Manners::default()
    };
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(outcome.phones[0].1.dialogs, 2);
    assert_eq!(outcome.counts.get("forked_answer"), Some(&1));
    let lines = outcome.sessions[0].lines();
    assert_eq!(
        lines.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED COMPLETED"
    );
}

#[test]
fn a_callflow_hangs_up() {
    for answer in [VcaAnswer::Hangup, VcaAnswer::Empty] {
        let end = [
            "A CALL_DISCONNECTED 603",
            "SUMMARY COMPLETED none COMPLETED",
        ];
        told(vca(answer), &[RECEIVED], &end);
    }
}

#[test]
fn a_callee_that_rings_out_does_not_answer() {
    let end = [
        "B CALL_DISCONNECTED 487",
        "A CALL_DISCONNECTED 480",
        "SUMMARY COMPLETED NO_ANSWER NO_ANSWER",
    ];
    told(
        callee(Some(ms(200)), Outcome::Ignore),
        &[BEGUN, RINGING],
        &end,
    );
}

#[test]
fn a_480_or_408_after_ringing_is_no_answer() {
    for status in [408, 480] {
        let b = format!("B CALL_DISCONNECTED {status}");
        let end = [
            &b,
            "A CALL_DISCONNECTED 480",
            "SUMMARY COMPLETED NO_ANSWER NO_ANSWER",
        ];
        told(
            refused(Some(ms(200)), status, None),
            &[BEGUN, RINGING],
            &end,
        );
    }
}

#[test]
fn a_busy_or_declining_callee_is_busy_and_a_decline_is_heard_as_one() {
    for (status, heard) in [(486, 486), (600, 486), (603, 603)] {
        let b = format!("B CALL_DISCONNECTED {status}");
        let a = format!("A CALL_DISCONNECTED {heard}");
        let end = [&b, &a, "SUMMARY COMPLETED BUSY BUSY"];
        told(refused(None, status, None), &[BEGUN], &end);
    }
}

#[test]
fn any_other_refusal_is_a_failure_that_a_hears_as_480() {
    for status in [302, 404, 408, 410, 480, 484, 488, 500, 503, 604] {
        let b = format!("B CALL_DISCONNECTED {status}");
        let end = [
            &b,
            "A CALL_DISCONNECTED 480",
            "SUMMARY COMPLETED FAILED FAILED",
        ];
        told(refused(None, status, None), &[BEGUN], &end);
    }
}

#[test]
fn a_q850_cause_outranks_the_status() {
    for (status, cause, heard, outcome) in [
        (480, 17, 486, "BUSY"),
        (503, 21, 486, "BUSY"),
        (486, 19, 480, "NO_ANSWER"),
        (486, 1, 480, "FAILED"),
        (603, 16, 603, "BUSY"),
    ] {
        let b = format!("B CALL_DISCONNECTED {status}");
        let a = format!("A CALL_DISCONNECTED {heard}");
        let summary = format!("SUMMARY COMPLETED {outcome} {outcome}");
        told(
            refused(None, status, Some(cause)),
            &[BEGUN],
            &[&b, &a, &summary],
        );
    }
}

#[test]
fn a_congested_network_is_the_platforms_error() {
    let end = [
        "B CALL_DISCONNECTED 503 -2002",
        "A CALL_DISCONNECTED 500 -2002",
        "SUMMARY COMPLETED ERROR ERROR -2002",
    ];
    told(refused(None, 503, Some(34)), &[BEGUN], &end);
}

#[test]
fn a_caller_that_gives_up_while_it_rings_cancels_both() {
    let mut call = answered();
    call.caller = Caller {
        cancel_after: Some(ms(1_000)),
        hang_up_after: None,
    };
    let end = [
        "A CALL_DISCONNECTED 487",
        "B CALL_DISCONNECTED 487",
        "SUMMARY CANCELED CANCELED CANCELED",
    ];
    told(call, &[BEGUN, RINGING], &end);
}

#[test]
fn an_answer_that_crosses_the_cancel_stays_cancelled() {
    let mut call = answered();
    call.caller = Caller {
        cancel_after: Some(ms(1_000)),
        hang_up_after: None,
    };
    call.callee_manners = Manners {
        answers_when_cancelled: true,
        ..Manners::default()
    };
    let outcome = holds(&Scenario::calm(call));
    let end = [
        "A CALL_DISCONNECTED 487",
        "B CALL_DISCONNECTED 487",
        "SUMMARY CANCELED CANCELED CANCELED",
    ];
    assert_eq!(outcome.sessions[0].lines(), [BEGUN, RINGING, &end].concat());
    assert!(outcome.phones[0].1.talked, "B picked up and was hung up");
}

#[test]
fn a_caller_that_gives_up_before_there_is_a_callee_is_cancelled_alone() {
    let mut call = answered();
    call.caller = Caller {
        cancel_after: Some(ms(100)),
        hang_up_after: None,
    };
    call.vca_after = Some(ms(2_000));
    let end = ["A CALL_DISCONNECTED 487", "SUMMARY CANCELED none CANCELED"];
    told(call, &[RECEIVED], &end);
}

#[test]
fn a_callflow_endpoint_that_fails_ends_the_call_in_error() {
    for (answer, heard, code) in [
        (VcaAnswer::Unreachable, 500, -2002),
        (VcaAnswer::Invalid, 500, -2003),
        (VcaAnswer::Unsupported, 500, -2003),
        (VcaAnswer::MakeCallFromElsewhere, 403, -2008),
    ] {
        let a = format!("A CALL_DISCONNECTED {heard} {code}");
        let summary = format!("SUMMARY ERROR none ERROR {code}");
        told(vca(answer), &[RECEIVED], &[&a, &summary]);
    }
}

#[test]
fn a_callflow_that_never_comes_ends_the_call_in_error() {
    let call = CallPlan {
        vca_after: None,
        ..answered()
    };
    let end = [
        "A CALL_DISCONNECTED 500 -2002",
        "SUMMARY ERROR none ERROR -2002",
    ];
    told(call, &[RECEIVED], &end);
}

#[test]
fn a_destination_that_may_not_be_called_is_no_coverage() {
    for answer in [VcaAnswer::MakeCallAbroad, VcaAnswer::MakeCallToVirtual] {
        let end = [
            "B CALL_DISCONNECTED 403 -2004",
            "A CALL_DISCONNECTED 403 -2004",
            "SUMMARY COMPLETED ERROR ERROR -2004",
        ];
        told(vca(answer), &[BEGUN], &end);
    }
}

#[test]
fn a_trunk_from_which_nothing_comes_back_is_an_error_with_408() {
    let end = [
        "B CALL_DISCONNECTED 408 -2002",
        "A CALL_DISCONNECTED 500 -2002",
        "SUMMARY COMPLETED ERROR ERROR -2002",
    ];
    told(callee(None, Outcome::Silence), &[BEGUN], &end);
}

#[test]
fn without_a_media_port_the_platform_has_failed() {
    let call = CallPlan {
        no_ports: true,
        ..answered()
    };
    let end = [
        "B CALL_DISCONNECTED 500 -2001",
        "A CALL_DISCONNECTED 500 -2001",
        "SUMMARY COMPLETED ERROR ERROR -2001",
    ];
    told(call, &[BEGUN], &end);
}

#[test]
fn media_that_stops_ends_both_legs_in_error() {
    let mut call = answered();
    call.silence = Some((ms(1_000), Side::Callee));
    let end = [
        "A CALL_DISCONNECTED 200 -2002",
        "B CALL_DISCONNECTED 200 -2002",
        "SUMMARY COMPLETED COMPLETED ERROR -2002",
    ];
    told(call, &[BEGUN, RINGING, CONNECTED], &end);
}

#[test]
fn media_that_stops_during_a_hold_ends_nothing() {
    let mut call = answered();
    call.hold = Some((Side::Callee, ms(3_000), ms(3_000)));
    call.silence = Some((ms(1_500), Side::Callee));
    let end = [
        "B CALL_UPDATED HELD",
        "B CALL_UPDATED RESUMED",
        "A CALL_DISCONNECTED 200",
        "B CALL_DISCONNECTED 200",
        "SUMMARY COMPLETED COMPLETED COMPLETED",
    ];
    told(call, &[BEGUN, RINGING, CONNECTED], &end);
}

#[test]
fn a_caller_that_never_acknowledges_ends_with_408_although_connected() {
    let mut call = answered();
    call.caller_manners = Manners {
        never_acknowledges: true,
        ..Manners::default()
    };
    let end = [
        "A CALL_DISCONNECTED 408 -2002",
        "B CALL_DISCONNECTED 200 -2002",
        "SUMMARY COMPLETED COMPLETED ERROR -2002",
    ];
    told(call, &[BEGUN, RINGING, CONNECTED], &end);
}

#[test]
fn a_crash_after_which_no_call_goes_on_ends_both_legs_in_error() {
    let mut scenario = Scenario::calm(answered());
    scenario.adopt_within = Duration::ZERO;
    scenario.crashes = vec![CrashPlan {
        at: CrashAt::Time(ms(4_000)),
        down_for: ms(500),
        last_commit_survives: true,
    }];
    let end = [
        "A CALL_DISCONNECTED 200 -2001",
        "B CALL_DISCONNECTED 200 -2001",
        "SUMMARY COMPLETED COMPLETED ERROR -2001",
    ];
    assert_eq!(lines(&scenario), [BEGUN, RINGING, CONNECTED, &end].concat());
}

#[test]
fn a_number_that_nobody_has_is_refused_and_nobody_is_told() {
    let outcome = holds(&Scenario::calm(CallPlan {
        unassigned: true,
        ..answered()
    }));
    assert!(outcome.sessions.is_empty());
    assert_eq!(outcome.phones[0].0.final_status, Some(404));
}

#[test]
fn a_full_trunk_refuses_a_second_call_and_tells_nobody() {
    let mut scenario = Scenario::calm(answered());
    scenario.calls.push(CallPlan {
        starts: ms(500),
        ..answered()
    });
    scenario.max_calls = 1;
    let outcome = holds(&scenario);
    assert_eq!(outcome.sessions.len(), 1);
    assert_eq!(outcome.phones[1].0.final_status, Some(480));
}

#[test]
fn a_failing_store_refuses_new_calls_and_keeps_live_ones() {
    let mut scenario = Scenario::calm(answered());
    scenario.calls.push(CallPlan {
        starts: ms(5_000),
        ..answered()
    });
    scenario.calls.push(CallPlan {
        starts: ms(12_000),
        ..answered()
    });
    // The first call's key makes the first commit that fails.
    scenario.calls[0].keys = vec![(ms(1_000), Side::Caller, '1')];
    scenario.calls[0].callee.outcome = Outcome::Answer(ms(500));
    scenario.store.failing = vec![(ms(1_000), ms(9_000))];
    let outcome = holds(&scenario);
    assert_eq!(outcome.phones[1].0.final_status, Some(503));
    let told: Vec<String> = outcome
        .sessions
        .iter()
        .filter_map(|session| session.lines().pop())
        .collect();
    assert_eq!(told, ["SUMMARY COMPLETED COMPLETED COMPLETED"; 2]);
}

#[test]
fn a_call_over_streams_is_told_like_one_over_datagrams() {
    let mut call = answered();
    call.caller_transport = maskline_switch::sip::Transport::Tcp;
    call.callee_transport = maskline_switch::sip::Transport::Tcp;
    assert_eq!(
        lines(&Scenario::calm(call)),
        lines(&Scenario::calm(answered()))
    );
}

#[test]
fn a_call_whose_event_cannot_be_stored_ends_whichever_event_it_is() {
    for commit in 0..6 {
        let mut scenario = Scenario::calm(answered());
        scenario.store.rejects = Some(commit);
        let outcome = holds(&scenario);
        let (a, b) = &outcome.phones[0];
        assert!(
            !a.patience_ran_out && !b.patience_ran_out,
            "{}",
            outcome.ladder
        );
    }
}

#[test]
fn a_cancel_at_whichever_moment_finds_a_callee_that_was_begun_or_none() {
    let alone = ["A CALL_DISCONNECTED 487", "SUMMARY CANCELED none CANCELED"];
    let both = [
        "A CALL_DISCONNECTED 487",
        "B CALL_DISCONNECTED 487",
        "SUMMARY CANCELED CANCELED CANCELED",
    ];
    for tenths in 250..450 {
        let mut call = answered();
        call.caller.cancel_after = Some(Duration::from_micros(tenths * 100));
        let told = lines(&Scenario::calm(call));
        assert!(
            told == [RECEIVED, &alone].concat() || told == [BEGUN, &both].concat(),
            "{told:?}"
        );
    }
}
