//! What A hears before the answer: B's early media where the number's policy says so.

use std::time::Duration;

use maskline_events::EarlyMedia;
use maskline_media::Side;
use maskline_phone::{Announcement, Then};
use sim::{CallPlan, CrashAt, CrashPlan, Outcome, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Where the relay is told that B's announcement comes from, and its answer if that is elsewhere.
const ANNOUNCES: &str = "relay: B at 203.0.113.10:40000 does not hear";
const ANSWERS: &str = "relay: B at 203.0.113.10:40000 hears";
const ANSWERS_ELSEWHERE: &str = "relay: B at 203.0.113.10:40002 hears";

/// A call through a number that passes early media on. B announces by a 183 after 300 ms, rings not,
/// and answers after 2 s.
fn call(then: Then) -> CallPlan {
    let mut call = CallPlan {
        early_media: EarlyMedia::PassThrough,
        ..CallPlan::default()
    };
    call.callee.ring_after = None;
    call.callee_manners.announces = Some(Announcement {
        after: ms(300),
        then,
    });
    call
}

fn with_reliable(mut call: CallPlan, caller: bool, callee: bool) -> CallPlan {
    call.caller_manners.reliable = caller;
    call.callee_manners.reliable = callee;
    call
}

fn times(outcome: &Outcome, step: &str) -> usize {
    outcome.ladder.matches(step).count()
}

#[track_caller]
fn ends(outcome: &Outcome, summary: &str) {
    let lines = outcome.sessions[0].lines();
    assert_eq!(lines.last().unwrap(), summary, "{}", outcome.ladder);
}

const COMPLETED: &str = "SUMMARY COMPLETED COMPLETED COMPLETED";
const EACH_WAY: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

#[test]
fn a_hears_b_before_the_answer_and_its_200_says_the_same() {
    for (caller, callee) in EACH_WAY {
        let plan = with_reliable(call(Then::Same), caller, callee);
        let outcome = holds(&Scenario::calm(plan));
        let (a, b) = &outcome.phones[0];
        assert!(a.early.is_some(), "{}", outcome.ladder);
        assert_eq!(a.early, a.answer, "{}", outcome.ladder);
        assert_eq!((a.pracks, b.pracks), (caller.into(), callee.into()));
        assert_eq!(a.early_is_answer, caller);
        assert_eq!(times(&outcome, "A <-- switch      183 to INVITE"), 1);
        assert_eq!(times(&outcome, ANNOUNCES), 1, "{}", outcome.ladder);
        assert_eq!(times(&outcome, ANSWERS), 1, "{}", outcome.ladder);
        // Nothing is left to be told within the call.
        assert!(!outcome.ladder.contains("INVITE (2)"));
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn early_media_is_no_answer_and_no_ringing() {
    let outcome = holds(&Scenario::calm(call(Then::Same)));
    let expected = [
        "A CALL_RECEIVED",
        "B CALL_INITIATED",
        "B CALL_CONNECTED",
        "A CALL_CONNECTED",
        "A CALL_DISCONNECTED 200",
        "B CALL_DISCONNECTED 200",
        COMPLETED,
    ];
    assert_eq!(outcome.sessions[0].lines(), expected);
    assert!(!outcome.phones[0].0.rang);
}

#[test]
fn a_number_whose_policy_is_ringback_passes_nothing_on() {
    for (caller, callee) in EACH_WAY {
        for ring_after in [None, Some(ms(100)), Some(ms(600))] {
            let mut plan = with_reliable(call(Then::Same), caller, callee);
            plan.early_media = EarlyMedia::Ringback;
            plan.callee.ring_after = ring_after;
            let outcome = holds(&Scenario::calm(plan));
            let (a, _) = &outcome.phones[0];
            assert_eq!((a.early.as_ref(), a.rang), (None, ring_after.is_some()));
            assert_eq!(times(&outcome, "A <-- switch      183"), 0);
            assert_eq!(times(&outcome, ANNOUNCES), 0, "{}", outcome.ladder);
            ends(&outcome, COMPLETED);
        }
    }
}

#[test]
fn a_180_without_a_description_is_ringing_before_and_behind_early_media() {
    for (caller, callee) in EACH_WAY {
        for ring_after in [ms(100), ms(600)] {
            let mut plan = with_reliable(call(Then::Same), caller, callee);
            plan.callee.ring_after = Some(ring_after);
            let outcome = holds(&Scenario::calm(plan));
            let (a, _) = &outcome.phones[0];
            assert!(a.rang && a.early.is_some(), "{}", outcome.ladder);
            assert_eq!(a.early, a.answer);
            assert_eq!(a.pracks, if caller { 2 } else { 0 });
            assert_eq!(outcome.sessions[0].lines()[2], "B CALL_UPDATED RINGING");
            ends(&outcome, COMPLETED);
        }
    }
}

#[test]
fn a_180_with_a_description_rings_and_is_heard() {
    for caller in [false, true] {
        let mut plan = CallPlan {
            early_media: EarlyMedia::PassThrough,
            ..with_reliable(CallPlan::default(), caller, true)
        };
        plan.callee_manners.answers_early = true;
        let outcome = holds(&Scenario::calm(plan));
        let (a, b) = &outcome.phones[0];
        assert!(a.rang && a.early.is_some() && a.early == a.answer);
        assert_eq!((a.pracks, b.pracks), (caller.into(), 1));
        assert_eq!(times(&outcome, "A <-- switch      180 to INVITE"), 1);
        assert_eq!(times(&outcome, "A <-- switch      183 to INVITE"), 0);
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn an_answer_from_another_port_moves_the_relay_and_is_no_news_for_a() {
    for caller in [false, true] {
        let outcome = holds(&Scenario::calm(with_reliable(
            call(Then::Moves),
            caller,
            false,
        )));
        let (a, _) = &outcome.phones[0];
        assert_eq!(a.early, a.answer, "the port towards A is our own");
        assert_eq!(times(&outcome, ANNOUNCES), 1, "{}", outcome.ladder);
        assert_eq!(times(&outcome, ANSWERS_ELSEWHERE), 1, "{}", outcome.ladder);
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn an_answer_with_other_codecs_than_an_unreliable_preview_is_in_as_200() {
    let outcome = holds(&Scenario::calm(call(Then::OnlyPcmu)));
    let (a, _) = &outcome.phones[0];
    let (early, answer) = (a.early.clone().unwrap(), a.answer.clone().unwrap());
    assert!(early.contains("PCMA") && answer.contains("PCMU") && !answer.contains("PCMA"));
    let version = |sdp: &str| sdp.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
    assert_eq!(version(&answer), version(&early) + 1, "RFC 3264 §8");
    ends(&outcome, COMPLETED);
}

#[test]
fn what_a_reliable_provisional_answered_stands_and_a_is_told_of_the_rest_by_a_reinvite() {
    for then in [Then::OnlyPcmu, Then::OtherDialog] {
        let outcome = holds(&Scenario::calm(with_reliable(call(then), true, false)));
        let (a, _) = &outcome.phones[0];
        assert!(a.early_is_answer);
        assert_eq!(a.early, a.answer, "{}", outcome.ladder);
        let codecs = &a.remote.as_ref().unwrap().codecs;
        assert!(
            codecs
                .iter()
                .all(|codec| codec.name != maskline_switch::sdp::CodecName::Pcma),
            "{}",
            outcome.ladder
        );
        assert_eq!(outcome.counts.get("align_refused"), None);
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn what_bs_reliable_provisional_answered_stands_whatever_its_200_says() {
    for then in [Then::Moves, Then::OnlyPcmu] {
        for caller in [false, true] {
            let outcome = holds(&Scenario::calm(with_reliable(call(then), caller, true)));
            let (a, _) = &outcome.phones[0];
            assert_eq!(a.early, a.answer, "{}", outcome.ladder);
            assert_eq!(times(&outcome, ANSWERS), 1, "{}", outcome.ladder);
            ends(&outcome, COMPLETED);
        }
    }
}

#[test]
fn another_phone_of_a_fork_that_answers_is_the_one_that_the_relay_goes_on_with() {
    for (caller, callee) in EACH_WAY {
        let plan = with_reliable(call(Then::OtherDialog), caller, callee);
        let outcome = holds(&Scenario::calm(plan));
        let (a, b) = &outcome.phones[0];
        assert!(a.talked && b.talked && b.dialogs == 1);
        assert_eq!(times(&outcome, ANNOUNCES), 1, "{}", outcome.ladder);
        assert!(
            times(&outcome, ANSWERS_ELSEWHERE) >= 1,
            "{}",
            outcome.ladder
        );
        assert_eq!(times(&outcome, ANSWERS), 0, "{}", outcome.ladder);
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn a_refusal_behind_an_announcement_is_told_as_ever() {
    for (status, cause, heard, summary) in [
        (404, None, 480, "SUMMARY COMPLETED FAILED FAILED"),
        (486, None, 486, "SUMMARY COMPLETED BUSY BUSY"),
        (480, Some(19), 480, "SUMMARY COMPLETED NO_ANSWER NO_ANSWER"),
        // No other way is tried once B's side was heard.
        (503, None, 480, "SUMMARY COMPLETED FAILED FAILED"),
    ] {
        for (caller, callee) in EACH_WAY {
            let mut plan = with_reliable(call(Then::Same), caller, callee);
            plan.callee.outcome = maskline_phone::Outcome::Refuse {
                after: ms(2_000),
                status,
                cause,
            };
            plan.others.push(sim::OtherWay {
                own_trunk: true,
                transport: maskline_switch::sip::Transport::Udp,
                callee: CallPlan::default().callee,
                manners: maskline_phone::Manners::default(),
            });
            let outcome = holds(&Scenario::calm(plan));
            let (a, _) = &outcome.phones[0];
            assert!(a.early.is_some() && !a.talked);
            assert_eq!(a.final_status, Some(heard));
            let told = outcome.sessions[0].lines();
            assert_eq!(told[2], format!("B CALL_DISCONNECTED {status}"));
            assert_eq!(told[3], format!("A CALL_DISCONNECTED {heard}"));
            ends(&outcome, summary);
        }
    }
}

#[test]
fn nobody_counts_as_silent_before_the_answer_and_no_key_is_told() {
    let mut plan = call(Then::Same);
    // The engine counts from the programming, which is early here.
    plan.silence = Some((ms(500), Side::Callee));
    plan.keys = vec![(ms(700), Side::Caller, '5')];
    let outcome = holds(&Scenario::calm(plan));
    assert!(outcome.ladder.contains("media: silence"));
    assert_eq!(outcome.counts.get("press_too_early"), Some(&1));
    ends(&outcome, COMPLETED);
}

#[test]
fn a_caller_that_gives_up_while_it_hears_b_leaves_nothing_behind() {
    for (caller, callee) in EACH_WAY {
        let mut plan = with_reliable(call(Then::Same), caller, callee);
        plan.caller.cancel_after = Some(ms(1_000));
        let outcome = holds(&Scenario::calm(plan));
        assert!(outcome.phones[0].0.early.is_some());
        ends(&outcome, "SUMMARY CANCELED CANCELED CANCELED");
    }
}

#[test]
fn a_caller_that_sends_no_prack_to_early_media_is_refused() {
    let mut plan = with_reliable(call(Then::Same), true, false);
    plan.caller_manners.never_pracks = true;
    plan.callee.outcome = maskline_phone::Outcome::Answer(ms(50_000));
    let mut scenario = Scenario::calm(plan);
    scenario.no_answer = ms(60_000);
    let outcome = holds(&scenario);
    assert_eq!(outcome.counts.get("never_pracked"), Some(&1));
    ends(&outcome, "SUMMARY COMPLETED ERROR ERROR -2002");
}

#[test]
fn a_caller_that_sends_no_prack_although_b_answers_is_gone_like_one_that_sends_no_ack() {
    let mut plan = with_reliable(call(Then::Same), true, false);
    plan.caller_manners.never_pracks = true;
    let outcome = holds(&Scenario::calm(plan));
    let told = outcome.sessions[0].lines();
    let ends = [
        "B CALL_CONNECTED",
        "A CALL_CONNECTED",
        "A CALL_DISCONNECTED 408 -2002",
        "B CALL_DISCONNECTED 200 -2002",
        "SUMMARY COMPLETED COMPLETED ERROR -2002",
    ];
    assert_eq!(told[2..], ends);
    assert_eq!(outcome.phones[0].0.final_status, Some(500));
    assert!(outcome.phones[0].1.talked);
}

#[test]
fn early_media_is_acknowledged_by_a_caller_and_a_callee_that_proved_who_they_are() {
    let mut plan = with_reliable(call(Then::Same), true, true);
    plan.callee_asks = Some(sim::CalleeAsks::default());
    let mut scenario = Scenario::calm(plan);
    scenario.callers_asked = true;
    let outcome = holds(&scenario);
    let (a, b) = &outcome.phones[0];
    assert!(a.early_is_answer && a.early == a.answer);
    assert_eq!((a.pracks, b.pracks), (1, 1));
    assert!(
        !outcome.ladder.contains("481 to PRACK"),
        "{}",
        outcome.ladder
    );
    ends(&outcome, COMPLETED);
}

#[test]
fn an_answer_waits_for_the_prack_of_early_media() {
    let mut plan = with_reliable(call(Then::Same), true, false);
    plan.callee_manners.announces = Some(Announcement {
        after: ms(1_990),
        then: Then::Same,
    });
    let mut scenario = Scenario::calm(plan);
    scenario.network.latency_min = ms(60);
    scenario.network.latency_max = ms(60);
    let outcome = holds(&scenario);
    let (a, b) = &outcome.phones[0];
    assert!(a.talked && b.talked && a.early_is_answer && a.early == a.answer);
    let at = |step: &str| outcome.ladder.find(step).unwrap();
    assert!(at("A --> switch      PRACK") < at("A <-- switch      200 to INVITE"));
    ends(&outcome, COMPLETED);
}

#[test]
fn a_caller_without_an_offer_is_only_rung() {
    let mut plan = call(Then::Same);
    plan.caller_manners.dials_without_offer = true;
    plan.callee.ring_after = Some(ms(100));
    let outcome = holds(&Scenario::calm(plan));
    let (a, _) = &outcome.phones[0];
    assert!(a.rang && a.early.is_none() && a.talked);
    assert_eq!(times(&outcome, ANNOUNCES), 0);
    ends(&outcome, COMPLETED);
}

#[test]
fn a_crash_during_early_media_ends_both_sides() {
    for (caller, callee) in EACH_WAY {
        let plan = with_reliable(call(Then::Same), caller, callee);
        let mut scenario = Scenario::calm(plan);
        scenario.crashes = vec![CrashPlan {
            at: CrashAt::Time(ms(1_200)),
            down_for: ms(200),
            last_commit_survives: true,
        }];
        let outcome = holds(&scenario);
        assert!(outcome.phones[0].0.early.is_some(), "{}", outcome.ladder);
        ends(&outcome, "SUMMARY COMPLETED ERROR ERROR -2001");
    }
}

/// A's 200 and the re-INVITE behind it left, or not, when the process died: A is told of what is in
/// use, and not only of what a reliable provisional answered.
#[test]
fn a_crash_right_behind_the_answer_leaves_a_with_what_is_in_use() {
    let plan = || with_reliable(call(Then::OnlyPcmu), true, false);
    let calm = holds(&Scenario::calm(plan()));
    let names = |outcome: &Outcome| {
        let remote = outcome.phones[0].0.remote.clone().unwrap();
        let names: Vec<_> = remote.codecs.iter().map(|codec| codec.name).collect();
        names
    };
    let mut went_on = 0;
    for step in 1..=calm.steps {
        let mut scenario = Scenario::calm(plan());
        scenario.crashes = vec![CrashPlan {
            at: CrashAt::Step(step),
            down_for: ms(200),
            last_commit_survives: true,
        }];
        let outcome = holds(&scenario);
        if outcome.counts.contains_key("call_revived") && outcome.phones[0].0.talked {
            went_on += 1;
            assert_eq!(names(&outcome), names(&calm), "{}", outcome.ladder);
        }
    }
    assert!(went_on > 5, "{went_on}");
}

#[test]
fn early_media_gets_through_a_lossy_network() {
    let mut heard = [0; 4];
    for seed in 0..60_u64 {
        let then = [Then::Same, Then::Moves, Then::OnlyPcmu, Then::OtherDialog];
        let (caller, callee) = EACH_WAY[(seed % 4) as usize];
        let mut plan = with_reliable(call(then[(seed / 4 % 4) as usize]), caller, callee);
        plan.callee.ring_after = (seed % 3 == 0).then_some(ms(200));
        plan.callee.outcome = maskline_phone::Outcome::Answer(ms(9_000));
        let mut scenario = Scenario::calm(plan);
        scenario.seed = seed;
        scenario.network.loss_per_mille = 150;
        scenario.network.duplicates_per_mille = 100;
        scenario.network.latency_max = ms(300);
        let outcome = holds(&scenario);
        heard[(seed % 4) as usize] += usize::from(outcome.phones[0].0.early.is_some());
    }
    let [_, _, _, both] = heard;
    assert!(both >= 13, "reliable on both sides, nearly all: {heard:?}");
}
