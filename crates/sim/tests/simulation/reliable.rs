//! Reliable provisionals (RFC 3262) on either side, and key presses by INFO.

use std::time::Duration;

use maskline_media::Side;
use sim::{CallPlan, Outcome, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const ENDED_WELL: &str = "SUMMARY COMPLETED COMPLETED COMPLETED";

#[track_caller]
fn ends(outcome: &Outcome, summary: &str) {
    let lines = outcome.sessions[0].lines();
    assert_eq!(lines.last().unwrap(), summary, "{}", outcome.ladder);
}

/// A call whose phones speak 100rel on the given sides.
fn call(caller: bool, callee: bool) -> CallPlan {
    let mut call = CallPlan::default();
    call.caller_manners.reliable = caller;
    call.callee_manners.reliable = callee;
    call
}

fn times(outcome: &Outcome, step: &str) -> usize {
    outcome.ladder.matches(step).count()
}

#[test]
fn each_side_is_rung_reliably_by_itself() {
    for (caller, callee) in [(false, false), (true, false), (false, true), (true, true)] {
        let outcome = holds(&Scenario::calm(call(caller, callee)));
        let (a, b) = &outcome.phones[0];
        assert_eq!((a.pracks, b.pracks), (caller.into(), callee.into()));
        assert!(a.rang && a.talked && b.talked);
        ends(&outcome, ENDED_WELL);
    }
}

#[test]
fn a_caller_that_requires_reliable_provisionals_gets_them() {
    let mut call = call(false, false);
    call.caller_manners.requires_reliable = true;
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(outcome.phones[0].0.pracks, 1);
    ends(&outcome, ENDED_WELL);
}

#[test]
fn reliable_provisionals_get_through_a_lossy_network() {
    let mut pracks = (0, 0);
    for seed in 0..40 {
        let mut scenario = Scenario::calm(call(true, true));
        scenario.seed = seed;
        scenario.calls[0].callee.outcome = maskline_phone::Outcome::Answer(ms(20_000));
        scenario.network.loss_per_mille = 200;
        scenario.network.duplicates_per_mille = 100;
        scenario.network.latency_max = ms(300);
        let outcome = holds(&scenario);
        let (a, b) = &outcome.phones[0];
        if b.talked {
            assert!(a.rang && b.pracks == 1, "seed {seed}\n{}", outcome.ladder);
            pracks = (pracks.0 + a.pracks, pracks.1 + b.pracks);
        }
    }
    assert!(pracks.0 > 30 && pracks.1 > 30, "{pracks:?}");
}

#[test]
fn a_caller_that_sends_no_prack_is_refused_and_the_callee_cancelled() {
    let mut call = call(true, false);
    call.caller_manners.never_pracks = true;
    call.callee.outcome = maskline_phone::Outcome::Answer(ms(50_000));
    let mut scenario = Scenario::calm(call);
    scenario.no_answer = ms(60_000);
    let outcome = holds(&scenario);
    let told = outcome.sessions[0].lines();
    let expected = [
        "A CALL_RECEIVED",
        "B CALL_INITIATED",
        "B CALL_UPDATED RINGING",
        "B CALL_DISCONNECTED 487 -2002",
        "A CALL_DISCONNECTED 500 -2002",
        "SUMMARY COMPLETED ERROR ERROR -2002",
    ];
    assert_eq!(told, expected);
    assert_eq!(outcome.counts.get("never_pracked"), Some(&1));
    // T1, 2·T1, 4·T1 … up to 64·T1: sent seven times in all (RFC 3262 §3).
    assert_eq!(times(&outcome, "A <-- switch      180 to INVITE (1)"), 7);
    assert_eq!(outcome.phones[0].0.final_status, Some(500));
}

#[test]
fn a_prack_that_is_late_does_not_hold_an_answer_without_sdp() {
    let mut call = call(true, false);
    call.caller_manners.never_pracks = true;
    let outcome = holds(&Scenario::calm(call));
    assert!(outcome.phones[0].0.talked);
    ends(&outcome, ENDED_WELL);
}

#[test]
fn a_caller_that_gives_up_while_its_ringing_is_unacknowledged_leaves_nothing_behind() {
    let mut call = call(true, true);
    call.caller_manners.never_pracks = true;
    call.caller.cancel_after = Some(ms(1_500));
    let outcome = holds(&Scenario::calm(call));
    ends(&outcome, "SUMMARY CANCELED CANCELED CANCELED");
}

#[test]
fn a_crash_between_prack_and_answer_ends_the_callees_dialog_with_a_new_number() {
    let mut call = call(false, true);
    call.callee_manners.answers_when_cancelled = true;
    let mut scenario = Scenario::calm(call);
    scenario.crashes = vec![sim::CrashPlan {
        at: sim::CrashAt::Time(ms(1_000)),
        down_for: ms(300),
        last_commit_survives: true,
    }];
    let outcome = holds(&scenario);
    assert_eq!(outcome.phones[0].1.pracks, 1);
    // The BYE's number is above the PRACK's, although the restarted node knows of none.
    assert!(!outcome.ladder.contains("500 to BYE"), "{}", outcome.ladder);
    assert!(outcome.ladder.contains("200 to BYE"), "{}", outcome.ladder);
}

#[test]
fn a_key_by_info_is_told_and_passed_on() {
    let call = CallPlan {
        info_keys: vec![
            (ms(3_000), Side::Caller, '5'),
            (ms(3_500), Side::Callee, '#'),
            (ms(3_600), Side::Callee, '#'),
        ],
        ..CallPlan::default()
    };
    let outcome = holds(&Scenario::calm(call));
    let told = outcome.sessions[0].lines();
    assert_eq!(
        told[5..8],
        [
            "A DTMF_RECEIVED 5",
            "B DTMF_RECEIVED #",
            "B DTMF_RECEIVED #"
        ]
    );
    let (a, b) = &outcome.phones[0];
    assert_eq!(
        (a.info_digits.as_str(), b.info_digits.as_str()),
        ("##", "5")
    );
}

#[test]
fn a_key_by_info_is_played_to_a_party_that_takes_no_info() {
    for lacks_events in [false, true] {
        let mut call = CallPlan {
            info_keys: vec![
                (ms(3_000), Side::Caller, '5'),
                (ms(3_500), Side::Callee, '#'),
            ],
            ..CallPlan::default()
        };
        call.callee_manners.lacks_info = true;
        call.callee_manners.lacks_events = lacks_events;
        let outcome = holds(&Scenario::calm(call));
        let told = outcome.sessions[0].lines();
        assert_eq!(told[5..7], ["A DTMF_RECEIVED 5", "B DTMF_RECEIVED #"]);
        assert_eq!(outcome.phones[0].1.info_digits, "");
        assert_eq!(outcome.phones[0].0.info_digits, "#", "A takes INFO");
        let played = outcome.ladder.matches("is played").count();
        assert_eq!(played, 1, "{}", outcome.ladder);
        assert!(outcome.ladder.contains("relay: 5 of A is played"));
    }
}

#[test]
fn a_key_by_rtp_and_by_info_is_one_press() {
    let call = CallPlan {
        // The callee answers at about 2.05 s; the engine's keys count from there.
        keys: vec![(ms(900), Side::Caller, '7')],
        info_keys: vec![(ms(3_200), Side::Caller, '7')],
        ..CallPlan::default()
    };
    let outcome = holds(&Scenario::calm(call));
    let told = outcome.sessions[0].lines();
    let presses = told.iter().filter(|line| line.contains("DTMF")).count();
    assert_eq!(presses, 1, "{told:?}");
    assert_eq!(outcome.phones[0].1.info_digits, "");
}

#[test]
fn a_key_by_rtp_and_by_info_reaches_the_other_party_and_the_application_once_in_either_order() {
    // The callee answers at about 2.05 s; the engine's keys count from there. The INFO is sent at 3.2 s.
    for rtp_at in [700, 1_140, 1_160, 1_300, 2_000] {
        for told_after in [0, 40, 400] {
            for lacks_info in [false, true] {
                let mut call = CallPlan {
                    keys: vec![(ms(rtp_at), Side::Caller, '7')],
                    keys_told_after: ms(told_after),
                    info_keys: vec![(ms(3_200), Side::Caller, '7')],
                    ..CallPlan::default()
                };
                call.callee_manners.lacks_info = lacks_info;
                let outcome = holds(&Scenario::calm(call));
                let told = outcome.sessions[0].lines();
                let presses = told.iter().filter(|line| line.contains("DTMF")).count();
                assert_eq!(presses, 1, "{told:?}");
                let within = outcome.ladder.matches("7 of A reaches the other").count();
                let by_info = outcome.phones[0].1.info_digits.len();
                assert_eq!(within + by_info, 1, "{told_after}\n{}", outcome.ladder);
            }
        }
    }
}

#[test]
fn a_key_pressed_twice_of_which_rtp_loses_the_second_reaches_the_other_party_twice() {
    for told_after in [0, 40] {
        for lacks_info in [false, true] {
            let mut call = CallPlan {
                // At about 2.95 s; both presses come by INFO.
                keys: vec![(ms(900), Side::Caller, '7')],
                keys_told_after: ms(told_after),
                info_keys: vec![
                    (ms(3_200), Side::Caller, '7'),
                    (ms(3_900), Side::Caller, '7'),
                ],
                ..CallPlan::default()
            };
            call.callee_manners.lacks_info = lacks_info;
            let outcome = holds(&Scenario::calm(call));
            let told = outcome.sessions[0].lines();
            let presses = told.iter().filter(|line| line.contains("DTMF")).count();
            assert_eq!(presses, 2, "{told:?}");
            let ladder = &outcome.ladder;
            let within = ladder.matches("7 of A reaches the other").count();
            let by_info = outcome.phones[0].1.info_digits.len();
            assert_eq!(within + by_info, 2, "{told_after} {lacks_info}\n{ladder}");
        }
    }
}

#[test]
fn a_callee_that_describes_its_media_in_a_reliable_provisional_need_not_do_so_again() {
    for loss in [0, 150] {
        for seed in 0..10 {
            let mut call = call(false, true);
            call.callee_manners.answers_early = true;
            call.callee_manners.updates_early = true;
            let mut scenario = Scenario::calm(call);
            scenario.seed = seed;
            scenario.network.loss_per_mille = loss;
            let outcome = holds(&scenario);
            let (a, b) = &outcome.phones[0];
            assert!(a.talked && b.talked, "seed {seed}\n{}", outcome.ladder);
            assert!(b.early_update_status.is_none_or(|status| status == 200));
            assert!(loss > 0 || b.early_update_status == Some(200));
            ends(&outcome, ENDED_WELL);
        }
    }
}
