//! `rtpengine` as the media engine: the packets of all calls are carried by daemons of that name,
//! on this machine or on others, and this crate tells them what to do by their `ng` protocol.
//!
//! The pure parts are [`protocol`] (requests and answers) and [`description`] (SDP that only
//! `rtpengine` reads). [`instance`] asks one daemon and knows whether it answers; [`engine`] has a
//! task per session and chooses the daemon.
//!
//! **What differs from the built-in engine.** The figures of a leg are what its party reports by
//! RTCP of what it hears; without such reports there are none. A press is reported when it ends. There is no latching on
//! networks: packets count only from the very address and port of the SDP, unless the trunk names
//! further media sources, and then from wherever the first ones come. Direction (hold) is not
//! enforced on who sends against it. Payload numbers are not mapped: the switch
//! offers each party the other's, and what is answered by another number all the same is not heard.

mod description;
mod engine;
mod instance;
mod leftovers;
mod naming;
mod presses;
mod protocol;
mod session;

pub use engine::{Installation, InstanceStatus, Rtpengine, RtpengineConfig, RtpengineError};
