//! Trunks that ask for credentials, on either side.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Caller, Change, What};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CalleeAsks, Outcome, Scenario};

use crate::crashes::crash_everywhere_in;
use crate::holds;

const COMPLETED: [&str; 8] = [
    "A CALL_RECEIVED",
    "B CALL_INITIATED",
    "B CALL_UPDATED RINGING",
    "B CALL_CONNECTED",
    "A CALL_CONNECTED",
    "A CALL_DISCONNECTED 200",
    "B CALL_DISCONNECTED 200",
    "SUMMARY COMPLETED COMPLETED COMPLETED",
];

fn lines(outcome: &Outcome) -> Vec<String> {
    let sessions = outcome.sessions.iter();
    sessions.flat_map(|session| session.lines()).collect()
}

fn asked(asks: CalleeAsks) -> Scenario {
    Scenario::calm(CallPlan {
        callee_asks: Some(asks),
        ..CallPlan::default()
    })
}

fn all_ways_to_ask() -> Vec<CalleeAsks> {
    let both = [false, true];
    let mut ways = Vec::new();
    for proxy in both {
        for only_md5 in both {
            for stale_once in both {
                for asks_bye in both {
                    ways.push(CalleeAsks {
                        proxy,
                        only_md5,
                        stale_once,
                        asks_bye,
                        wrong_password: false,
                        asks_changes: false,
                    });
                }
            }
        }
    }
    ways
}

#[test]
fn a_callee_that_asks_is_answered_and_nobody_is_told_twice() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for asks in all_ways_to_ask() {
            let mut scenario = asked(asks);
            scenario.calls[0].callee_transport = transport;
            let outcome = holds(&scenario);
            assert_eq!(lines(&outcome), COMPLETED, "{asks:?}");
            let callee = &outcome.phones[0].1;
            // The BYE carries credentials before it is asked.
            assert_eq!(callee.asked, 1 + usize::from(asks.stale_once), "{asks:?}");
            assert_eq!(callee.final_status, Some(200), "{asks:?}");
        }
    }
}

#[test]
fn a_change_that_the_callee_asks_for_is_sent_again_and_its_ack_proves_as_much() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for by_update in [false, true] {
            for proxy in [false, true] {
                let mut scenario = asked(CalleeAsks {
                    proxy,
                    asks_changes: true,
                    ..CalleeAsks::default()
                });
                let call = &mut scenario.calls[0];
                call.callee_transport = transport;
                call.changes = [(3_000, What::Hold), (4_000, What::Resume)]
                    .map(|(at, what)| {
                        let change = Change {
                            what,
                            by_update,
                            cancel_after: None,
                        };
                        (Side::Caller, Duration::from_millis(at), change)
                    })
                    .to_vec();
                let outcome = holds(&scenario);
                let told = lines(&outcome);
                for what in ["HELD", "RESUMED"] {
                    let line = format!("A CALL_UPDATED {what}");
                    assert!(told.contains(&line), "{told:#?}\n{}", outcome.ladder);
                }
                assert_eq!(told.last().unwrap(), COMPLETED[7]);
                // The answer to an earlier question is given at once; it is stale.
                assert_eq!(outcome.phones[0].1.asked_changes, 2, "{}", outcome.ladder);
            }
        }
    }
}

#[test]
fn a_callee_that_we_cannot_convince_ends_the_call_as_failed() {
    for proxy in [false, true] {
        let status = if proxy { 407 } else { 401 };
        let outcome = holds(&asked(CalleeAsks {
            proxy,
            wrong_password: true,
            ..CalleeAsks::default()
        }));
        assert_eq!(
            lines(&outcome),
            [
                "A CALL_RECEIVED",
                "B CALL_INITIATED",
                &format!("B CALL_DISCONNECTED {status}"),
                "A CALL_DISCONNECTED 480",
                "SUMMARY COMPLETED FAILED FAILED",
            ]
        );
        assert_eq!(outcome.counts.get("credentials_refused"), Some(&1));
        assert_eq!(outcome.phones[0].1.asked, 2);
    }
}

#[test]
fn a_caller_that_gives_up_cancels_the_invite_that_is_out() {
    for after in (0..600).step_by(7) {
        let mut scenario = asked(CalleeAsks {
            stale_once: true,
            ..CalleeAsks::default()
        });
        scenario.calls[0].caller = Caller {
            cancel_after: Some(Duration::from_millis(after)),
            hang_up_after: None,
        };
        let outcome = holds(&scenario);
        let lines = lines(&outcome);
        let summary = lines.last().map(String::as_str).unwrap_or_default();
        let ladder = &outcome.ladder;
        assert!(
            summary.starts_with("SUMMARY CANCELED "),
            "after {after} ms\n{ladder}"
        );
    }
}

#[test]
fn a_crash_at_any_step_of_a_call_with_credentials_ends_it_whole() {
    let mut scenario = asked(CalleeAsks {
        stale_once: true,
        asks_bye: true,
        ..CalleeAsks::default()
    });
    crash_everywhere_in(&scenario);
    scenario.callers_asked = true;
    crash_everywhere_in(&scenario);
}

#[test]
fn a_caller_that_knows_the_password_gets_through() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut scenario = Scenario::calm(CallPlan {
            caller_transport: transport,
            ..CallPlan::default()
        });
        scenario.callers_asked = true;
        let outcome = holds(&scenario);
        assert_eq!(lines(&outcome), COMPLETED);
        assert_eq!(outcome.counts.get("auth_asked"), Some(&1));
    }
}

#[test]
fn a_caller_that_guesses_is_refused_and_makes_no_session() {
    let mut scenario = Scenario::calm(CallPlan {
        caller_guesses: true,
        ..CallPlan::default()
    });
    scenario.callers_asked = true;
    scenario.max_calls = 0;
    let outcome = holds(&scenario);
    assert!(outcome.sessions.is_empty());
    assert_eq!(outcome.phones[0].0.final_status, Some(401));
    assert_eq!(outcome.counts.get("auth_wrong"), Some(&1));
    assert_eq!(outcome.counts.get("trunk_calls"), None);
}

#[test]
fn calls_with_credentials_on_both_sides_hold_over_a_bad_network() {
    for seed in 0..48 {
        let mut scenario = Scenario::random(90_000 + seed);
        scenario.callers_asked = true;
        let ways = all_ways_to_ask();
        for call in &mut scenario.calls {
            call.callee_asks = ways.get(seed as usize % ways.len()).copied();
        }
        scenario.network.loss_per_mille = scenario.network.loss_per_mille.max(50);
        holds(&scenario);
    }
}
