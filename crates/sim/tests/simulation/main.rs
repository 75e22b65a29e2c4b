//! The simulation's tests: by seed, by the contract's table, by crash, and by sabotage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails is the point of a test"
)]

mod adoption;
mod changes;
mod codecs;
mod crashes;
mod credentials;
mod early_media;
mod failover;
mod families;
mod identity;
mod keys;
mod overload;
mod registration;
mod reliable;
mod repeated;
mod sabotage;
mod seeds;
mod supervision;
mod table;
mod timers;

use sim::{Outcome, Scenario};

/// Runs a scenario that must hold.
#[track_caller]
fn holds(scenario: &Scenario) -> Outcome {
    match sim::run(scenario) {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{failure}"),
    }
}
