//! The pure core of Maskline: what decides.
//!
//! No clock, no IO, no randomness: time, seeds and the results of IO come in as inputs, what is to
//! be done comes out as actions. Every failing run of the simulation replays from one number.

pub mod country;
pub mod numbers;
pub mod sdp;
