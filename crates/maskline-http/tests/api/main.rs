//! The API on a real listener, with a real store and a real HTTP client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod access;
mod admin;
mod bodies;
mod call_events;
mod document;
mod event_parameters;
mod events;
mod media;
mod number_change;
mod numbers;
mod readers;
mod schema;
mod serving;
mod settings;
mod settings_order;
mod store;
mod support;
mod system;
mod traces;
mod trunks;
mod webhooks;
