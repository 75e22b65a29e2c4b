//! INVITEs that are no new call: copies by another way, and calls of ours that come back.

use std::time::Duration;

use maskline_phone::Outcome as Pickup;
use maskline_switch::sip::Transport;
use sim::{CallPlan, Scenario};

use crate::holds;

fn call(transport: Transport) -> CallPlan {
    CallPlan {
        caller_transport: transport,
        callee_transport: transport,
        ..CallPlan::default()
    }
}

#[test]
fn a_call_that_arrives_by_two_ways_is_one_call() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut call = call(transport);
        call.caller_manners.merges = true;
        let outcome = holds(&Scenario::calm(call));
        assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
        assert_eq!(outcome.phones[0].0.copies, [482], "{}", outcome.ladder);
        assert!(outcome.phones[0].1.talked, "{}", outcome.ladder);
        assert_eq!(outcome.counts["merged_request"], 1);
    }
}

#[test]
fn a_copy_that_comes_when_its_call_is_over_is_no_new_call() {
    let mut call = call(Transport::Udp);
    call.caller_manners.merges = true;
    call.callee.outcome = Pickup::Refuse {
        after: Duration::ZERO,
        status: 486,
        cause: None,
    };
    let mut scenario = Scenario::calm(call);
    // So many packets are lost that copies are repeated.
    scenario.network.loss_per_mille = 300;
    let mut copies = 0;
    for seed in 0..20 {
        scenario.seed = seed;
        let outcome = holds(&scenario);
        assert!(outcome.sessions.len() <= 1, "{}", outcome.ladder);
        copies += outcome.phones[0].0.copies.len();
    }
    assert!(copies > 10, "{copies} copies were answered");
}

#[test]
fn an_invite_with_a_tag_of_ours_is_a_loop() {
    let mut call = call(Transport::Udp);
    call.caller_manners.echoes = true;
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
    assert_eq!(outcome.phones[0].0.copies, [482], "{}", outcome.ladder);
    assert_eq!(outcome.counts["loop"], 1);
}

#[test]
fn a_call_from_a_virtual_number_is_a_loop() {
    let mut scenario = Scenario::calm(call(Transport::Udp));
    scenario.calls.push(CallPlan {
        forwarded: true,
        ..call(Transport::Udp)
    });
    let outcome = holds(&scenario);
    assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
    assert_eq!(outcome.phones[1].0.final_status, Some(482));
    assert_eq!(outcome.counts["loop_of_number"], 1);
}
