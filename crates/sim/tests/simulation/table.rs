//! One call for each row of the contract's summary table, with every event that a receiver gets.

use sim::{CallPlan, Scenario};

use crate::holds;

/// The lines of the one session of a run.
#[track_caller]
fn told(call: CallPlan) -> Vec<String> {
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(outcome.sessions.len(), 1, "{}", outcome.ladder);
    outcome
        .sessions
        .iter()
        .flat_map(|session| session.lines())
        .collect()
}

const BEGUN: [&str; 2] = ["A CALL_RECEIVED", "B CALL_INITIATED"];
const RINGING: &str = "B CALL_UPDATED RINGING";
const CONNECTED: [&str; 2] = ["B CALL_CONNECTED", "A CALL_CONNECTED"];

#[test]
fn both_speak_and_the_caller_hangs_up() {
    let expected = [
        &BEGUN[..],
        &[RINGING],
        &CONNECTED,
        &["A CALL_DISCONNECTED 200", "B CALL_DISCONNECTED 200"],
        &["SUMMARY COMPLETED COMPLETED COMPLETED"],
    ]
    .concat();
    assert_eq!(told(CallPlan::default()), expected);
}
