//! The simulation's tests: by seed, by the contract's table, by crash, and by sabotage.

mod crashes;
mod sabotage;
mod seeds;
mod table;

use sim::{Outcome, Scenario};

/// Runs a scenario that must hold.
#[track_caller]
fn holds(scenario: &Scenario) -> Outcome {
    match sim::run(scenario) {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{failure}"),
    }
}
