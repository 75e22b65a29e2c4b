//! Soaks a running switch: reports calls of "another switch" to it, receives its webhooks, and has a ledger
//! of every event, while it is killed or its endpoints misbehave.
//!
//! [`kills`] ends it again and again; [`hung`] looks at a healthy endpoint beside many that hang;
//! [`million`] has endpoints fail in every way. What they share: the [`ledger`], the
//! [`load`], the [`receiver`], the process ([`subject`]), what the switch itself says afterwards ([`history`]).
//! Never shipped. Short runs are among the end-to-end tests of `maskline`.
#![allow(clippy::print_stderr, reason = "a long run says how far it is")]

mod call;
mod client;
mod history;
pub mod hung;
pub mod kills;
mod ledger;
mod load;
pub mod million;
mod receiver;
pub mod report;
pub mod subject;

/// Says how far a run is.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("  {text}");
}
