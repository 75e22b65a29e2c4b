//! What is broken on purpose is noticed.

use sim::{CallPlan, Sabotage, Scenario};

#[track_caller]
fn noticed(sabotage: Sabotage) -> String {
    let mut scenario = Scenario::calm(CallPlan::default());
    scenario.sabotage = sabotage;
    sim::run(&scenario).expect_err("nobody noticed").what
}

#[test]
fn commits_that_are_reported_before_they_are_durable_are_noticed() {
    assert!(noticed(Sabotage::ReportCommitsEarly).contains("before CALL_RECEIVED was durable"));
}

#[test]
fn byes_that_never_leave_are_noticed() {
    assert!(noticed(Sabotage::SwallowByes).contains("had to give up a call that was over"));
}

#[test]
fn a_header_of_the_caller_that_reaches_the_callee_is_noticed() {
    assert!(noticed(Sabotage::LeakCallerName).contains("tells of the other party"));
}

#[test]
fn a_withheld_number_that_an_event_tells_is_noticed() {
    let mut scenario = Scenario::calm(CallPlan {
        withholds: true,
        ..CallPlan::default()
    });
    scenario.sabotage = Sabotage::RevealWithheld;
    let what = sim::run(&scenario).expect_err("nobody noticed").what;
    assert!(
        what.contains("the caller is Anonymous and told as"),
        "{what}"
    );
}

#[test]
fn a_parameter_that_an_event_lacks_is_noticed() {
    assert!(noticed(Sabotage::LoseParameters).contains("a parameter is not there"));
}

#[test]
fn a_parameter_that_takes_the_place_of_a_contract_field_is_noticed() {
    for (field, says) in [
        ("\"callStatus\":\"CALL_CONNECTED\"", "duplicate field"),
        (
            "\"sourceRefId\":\"x\"",
            "a parameter has changed the contract",
        ),
        ("\"more\":1", "a parameter has changed the contract"),
        ("\"tenant\":\"of callees\"", "a parameter is not there"),
    ] {
        let what = noticed(Sabotage::AddToEvents(field));
        assert!(what.contains(says), "{field}: {what}");
    }
}

#[test]
fn a_message_that_the_trace_of_its_call_lacks_is_noticed() {
    assert!(noticed(Sabotage::LoseTrace).contains("the trace misses"));
}
