//! Sessions at the real daemon ([`real`], [`figures`]), and at one that answers as it is told ([`fake`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

mod fake;
mod figures;
mod leftovers;
mod real;
mod support;
