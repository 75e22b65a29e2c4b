//! The node on loopback: real sockets, a real journal in SQLite, the real media engine. Only the
//! customer's answer is the test's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod binding;
mod calls;
mod certificates;
mod datagrams;
mod faults;
mod keepalives;
mod large;
mod phone;
mod streams;
mod tls;
mod world;
