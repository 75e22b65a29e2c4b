//! The whole switch on a virtual clock and a virtual network, from one seed.
//!
//! [`run`] plays a [`Scenario`]: shards, dispatcher and admission as they are shipped, with
//! everything around them made up: phones, packets that get lost, a store that fails, a callflow
//! endpoint, a media engine, crashes. After each step the invariants of [`checks`] hold, or the run
//! ends with a [`Failure`] that says how to see it again.
//!
//! What is decided by chance comes from the scenario's seed only: the same scenario gives the same
//! trace.

pub mod checks;
mod engine;
pub mod fuzzed;
mod ladder;
mod ledger;
mod network;
mod numbering;
mod parameters;
mod queue;
mod registrar;
pub mod scenario;
mod site;
mod store;
mod supervision;
mod traces;
mod wire;
mod world;

pub use ladder::Failure;
pub use ledger::{EventLine, SessionLog};
pub use numbering::Numbering;
pub use registrar::RegistrarLog;
pub use scenario::{
    CallPlan, CalleeAsks, CrashAt, CrashPlan, OtherWay, Outage, QueuePlan, RegistrarFault,
    RegistrarPlan, Sabotage, Scenario, SupervisionPlan, VcaAnswer,
};
pub use site::ipv6_media;
pub use world::{Outcome, run};
