//! Parties whose media are of different address families: what each is told, and what happens where we
//! have no address of one.

use std::net::IpAddr;
use std::time::Duration;

use maskline_media::Side;
use maskline_phone::What;
use sim::{CallPlan, Outcome, Scenario, ipv6_media};

use crate::holds;

/// An IPv4 callee, and a caller of IPv6 if `caller_over_ipv6`.
fn between(caller_over_ipv6: bool, both_families: bool) -> Scenario {
    Scenario {
        both_families,
        ..Scenario::calm(CallPlan {
            caller_over_ipv6,
            ..CallPlan::default()
        })
    }
}

/// Where each phone was told to send at last.
fn told(outcome: &Outcome) -> (IpAddr, IpAddr) {
    let (caller, callee) = &outcome.phones[0];
    let at = |report: &maskline_phone::Report| report.remote.as_ref().unwrap().rtp.ip();
    (at(caller), at(callee))
}

fn ends_well(outcome: &Outcome) {
    assert!(outcome.phones[0].0.talked && outcome.phones[0].1.talked);
    let last = outcome.sessions[0].lines().last().cloned();
    assert_eq!(
        last.as_deref(),
        Some("SUMMARY COMPLETED COMPLETED COMPLETED"),
        "{}",
        outcome.ladder
    );
}

#[test]
fn a_caller_of_ipv6_and_a_callee_of_ipv4_are_each_told_our_address_of_their_own() {
    let outcome = holds(&between(true, true));
    let (caller, callee) = told(&outcome);
    assert!(caller.is_ipv6() && callee.is_ipv4(), "{caller} {callee}");
    ends_well(&outcome);
    let outcome = holds(&between(false, true));
    let (caller, callee) = told(&outcome);
    assert!(caller.is_ipv4() && callee.is_ipv4(), "{caller} {callee}");
}

#[test]
fn a_caller_of_a_family_that_we_lack_is_refused_and_nobody_is_called() {
    let outcome = holds(&between(true, false));
    assert_eq!(outcome.phones[0].0.final_status, Some(488));
    assert_eq!(outcome.counts.get("address_family"), Some(&1));
    assert!(
        outcome
            .sessions
            .iter()
            .all(|session| session.lines().is_empty())
    );
    assert!(outcome.phones[0].1.shows.is_none(), "nobody is called");
}

#[test]
fn a_party_that_moves_to_the_other_family_is_told_our_address_there_and_the_other_party_is_not() {
    for side in [Side::Caller, Side::Callee] {
        let mut scenario = between(false, true);
        let moves = What::Move(ipv6_media(0, side)).by_invite();
        scenario.calls[0].changes = vec![(side, Duration::from_secs(3), moves)];
        let outcome = holds(&scenario);
        let (caller, callee) = told(&outcome);
        assert_eq!(caller.is_ipv6(), side == Side::Caller, "{caller}");
        assert_eq!(callee.is_ipv6(), side == Side::Callee, "{callee}");
        ends_well(&outcome);
    }
}

#[test]
fn a_party_that_moves_to_a_family_that_we_lack_hears_488_and_goes_on_as_before() {
    for side in [Side::Caller, Side::Callee] {
        let mut scenario = between(false, false);
        let moves = What::Move(ipv6_media(0, side)).by_invite();
        scenario.calls[0].changes = vec![(side, Duration::from_secs(3), moves)];
        let outcome = holds(&scenario);
        let (caller, callee) = told(&outcome);
        assert!(caller.is_ipv4() && callee.is_ipv4(), "{caller} {callee}");
        assert_eq!(outcome.counts.get("address_family"), Some(&1));
        ends_well(&outcome);
    }
}
