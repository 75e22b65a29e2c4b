//! Phones that know different codecs: what each is told, and that they talk.

use std::time::Duration;

use maskline_media::{Side, Voice};
use maskline_phone::{Manners, What};
use maskline_switch::sdp::CodecName::{self, G722, Pcma, Pcmu, TelephoneEvent};
use sim::{CallPlan, Outcome, Scenario};

use crate::holds;

/// A call of phones that know one codec each.
fn between(caller: Voice, callee: Voice) -> CallPlan {
    let only = |voice| Manners {
        only: Some(voice),
        ..Manners::default()
    };
    CallPlan {
        caller_manners: only(caller),
        callee_manners: only(callee),
        ..CallPlan::default()
    }
}

/// The codecs that a side's far end named last.
fn hears(outcome: &Outcome, side: Side) -> Vec<CodecName> {
    let (caller, callee) = &outcome.phones[0];
    let report = match side {
        Side::Caller => caller,
        Side::Callee => callee,
    };
    let remote = report.remote.clone().unwrap();
    remote.codecs.iter().map(|codec| codec.name).collect()
}

fn ends_well(outcome: &Outcome) {
    assert!(outcome.phones[0].0.talked && outcome.phones[0].1.talked);
    assert_eq!(
        outcome.sessions[0].lines().last().unwrap(),
        "SUMMARY COMPLETED COMPLETED COMPLETED",
        "{}",
        outcome.ladder
    );
}

#[test]
fn a_phone_of_pcma_alone_talks_to_one_of_pcmu_alone() {
    let outcome = holds(&Scenario::calm(between(Voice::Pcma, Voice::Pcmu)));
    assert_eq!(hears(&outcome, Side::Caller), [Pcma, TelephoneEvent]);
    assert_eq!(
        hears(&outcome, Side::Callee),
        [Pcma, TelephoneEvent, Pcmu, G722]
    );
    ends_well(&outcome);
}

#[test]
fn a_caller_that_offers_nothing_is_offered_its_codec_too() {
    let mut call = between(Voice::Pcma, Voice::Pcmu);
    call.caller_manners.dials_without_offer = true;
    let outcome = holds(&Scenario::calm(call));
    assert!(hears(&outcome, Side::Caller).contains(&Pcma));
    ends_well(&outcome);
}

#[test]
fn a_hold_and_its_end_reach_a_party_of_another_codec() {
    let ms = Duration::from_millis;
    for side in [Side::Caller, Side::Callee] {
        for by_update in [false, true] {
            let mut call = between(Voice::Pcmu, Voice::Pcma);
            let (hold, resume) = if by_update {
                (What::Hold.by_update(), What::Resume.by_update())
            } else {
                (What::Hold.by_invite(), What::Resume.by_invite())
            };
            call.changes = vec![(side, ms(3_000), hold), (side, ms(4_000), resume)];
            let outcome = holds(&Scenario::calm(call));
            let told = outcome.sessions[0].lines();
            for update in ["HELD", "RESUMED"] {
                assert!(told.iter().any(|line| line.contains(update)), "{told:#?}");
            }
            assert!(hears(&outcome, Side::Caller).contains(&Pcmu));
            assert!(hears(&outcome, Side::Callee).contains(&Pcma));
            ends_well(&outcome);
        }
    }
}

#[test]
fn a_party_that_changes_its_codec_in_the_call_goes_on_talking() {
    let mut call = between(Voice::Pcma, Voice::Pcma);
    let at = Duration::from_secs(3);
    call.changes = vec![(Side::Caller, at, What::OnlyPcmu.by_invite())];
    let outcome = holds(&Scenario::calm(call));
    assert!(hears(&outcome, Side::Caller).contains(&Pcmu));
    assert!(hears(&outcome, Side::Callee).contains(&Pcma));
    ends_well(&outcome);
}

#[test]
fn a_caller_that_knows_key_presses_is_answered_with_them_whatever_the_callee_knows() {
    let mut call = CallPlan::default();
    call.callee_manners.lacks_events = true;
    let outcome = holds(&Scenario::calm(call));
    assert!(hears(&outcome, Side::Caller).contains(&TelephoneEvent));
    ends_well(&outcome);
}

#[test]
fn a_callee_is_offered_no_key_presses_in_place_of_a_caller_that_knows_none() {
    let mut call = CallPlan::default();
    call.caller_manners.lacks_events = true;
    let outcome = holds(&Scenario::calm(call));
    for side in [Side::Caller, Side::Callee] {
        assert!(!hears(&outcome, side).contains(&TelephoneEvent));
    }
    ends_well(&outcome);
}
