//! The process dies at each step of a call.

use std::time::Duration;

use sim::{CallPlan, CrashPlan, Scenario};

use crate::holds;

#[test]
fn a_crash_at_any_step_of_an_answered_call_ends_it_whole() {
    let calm = Scenario::calm(CallPlan::default());
    let steps = holds(&calm).steps;
    for last_commit_survives in [false, true] {
        for at_step in 1..=steps {
            let mut scenario = calm.clone();
            scenario.crashes = vec![CrashPlan {
                at_step,
                down_for: Duration::from_millis(700),
                last_commit_survives,
            }];
            holds(&scenario);
        }
    }
}
