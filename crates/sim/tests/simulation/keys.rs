//! A callee whose media are protected: which answers to our keys are taken (RFC 4568 §5.1.3).

use std::time::Duration;

use maskline_events::EarlyMedia;
use maskline_media::Side;
use maskline_phone::{Announcement, KeyLine, Keys, Then, What};
use maskline_switch::sip::Transport;
use sim::{CallPlan, Outcome, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const WRONG: [KeyLine; 3] = [KeyLine::OtherTag, KeyLine::OtherSuite, KeyLine::Both];

fn call(first: KeyLine, later: KeyLine) -> CallPlan {
    let mut call = CallPlan {
        callee_transport: Transport::Tls,
        ..CallPlan::default()
    };
    call.callee_manners.keys = Some(Keys { first, later });
    call
}

fn refused(outcome: &Outcome) -> u64 {
    let counted = outcome.counts.get("answer_with_other_key");
    counted.copied().unwrap_or_default()
}

#[track_caller]
fn ends(outcome: &Outcome, summary: &str) {
    let lines = outcome.sessions[0].lines();
    assert_eq!(lines.last().unwrap(), summary, "{}", outcome.ladder);
}

const COMPLETED: &str = "SUMMARY COMPLETED COMPLETED COMPLETED";

#[test]
fn a_callee_takes_either_key_of_an_offer_and_goes_on_with_it() {
    for first in [KeyLine::First, KeyLine::Second] {
        for side in [Side::Caller, Side::Callee] {
            let mut call = call(first, KeyLine::First);
            call.changes = vec![
                (side, ms(3_000), What::Hold.by_invite()),
                (side, ms(4_000), What::Resume.by_update()),
            ];
            let outcome = holds(&Scenario::calm(call));
            assert_eq!(refused(&outcome), 0, "{}", outcome.ladder);
            assert_eq!(outcome.phones[0].0.refused_change, None);
            let remote = outcome.phones[0].1.remote.clone().unwrap();
            // What is in use is what we offer again; a change of its own has a number of its own.
            let tag = match (first, side) {
                (KeyLine::Second, Side::Caller) => 2,
                _ => 1,
            };
            assert_eq!(remote.srtp.unwrap().tag, tag);
            ends(&outcome, COMPLETED);
        }
    }
}

#[test]
fn an_answer_by_a_key_that_was_not_offered_is_no_answer() {
    for wrong in WRONG {
        let outcome = holds(&Scenario::calm(call(wrong, wrong)));
        assert_eq!(refused(&outcome), 1, "{}", outcome.ladder);
        let (a, b) = &outcome.phones[0];
        assert_eq!(a.final_status, Some(500), "{wrong:?}");
        assert!(!a.talked, "{wrong:?}");
        assert_eq!(b.dialogs, 1, "it was acknowledged and ended");
        ends(&outcome, "SUMMARY COMPLETED ERROR ERROR -2002");
    }
}

#[test]
fn a_change_that_is_answered_by_another_key_is_refused_and_the_call_goes_on() {
    for wrong in WRONG {
        let mut call = call(KeyLine::First, wrong);
        call.changes = vec![(Side::Caller, ms(3_000), What::Hold.by_invite())];
        let outcome = holds(&Scenario::calm(call));
        assert!(refused(&outcome) >= 1, "{}", outcome.ladder);
        assert_eq!(outcome.phones[0].0.refused_change, Some(488));
        let told = outcome.sessions[0].lines();
        assert!(!told.iter().any(|line| line.contains("HELD")), "{told:#?}");
        ends(&outcome, COMPLETED);
    }
}

#[test]
fn early_media_by_another_key_are_not_heard() {
    for reliable in [false, true] {
        for wrong in WRONG {
            let mut call = CallPlan {
                early_media: EarlyMedia::PassThrough,
                ..call(wrong, KeyLine::First)
            };
            call.callee_manners.reliable = reliable;
            call.callee_manners.announces = Some(Announcement {
                after: ms(300),
                then: Then::Same,
            });
            let outcome = holds(&Scenario::calm(call));
            assert!(refused(&outcome) >= 1, "{}", outcome.ladder);
            assert_eq!(outcome.phones[0].0.early, None);
            assert_eq!(outcome.counts.get("early_media"), None);
            ends(&outcome, COMPLETED);
        }
    }
}
