//! Media of Maskline: RTP and RTCP packets, the relay between two parties, and what it measures.
//!
//! Everything but [`engine`] is pure: no clock, no IO, no randomness; time is a [`Tick`] and seeds
//! come in as inputs. [`engine`] holds the sockets.
//!
//! What lives elsewhere: SDP and the decision what to relay where (`maskline-switch`).

pub mod command;
pub mod tick;

pub use command::{
    CalleeMedia, CallerMedia, MediaCommand, MediaEvent, MediaKey, OpenFailure, PayloadMap, Quality,
    RemoteMedia, Side,
};
pub use tick::Tick;
