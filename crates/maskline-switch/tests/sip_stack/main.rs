//! What Maskline relies on in the library beneath its SIP: each test is one sentence that has to
//! stay true.
//!
//! Whole exchanges run between two transaction layers over a simulated wire with a simulated
//! clock, every message travelling as bytes; then framing, digest and hostile input. Tests named
//! `trap_*` pin behaviour that is worked around.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm
)]

mod dialogs;
mod digest;
mod forks;
mod framing;
mod messages;
mod reading;
mod torture;
mod transactions;
mod traps;
mod verdict;
mod world;
