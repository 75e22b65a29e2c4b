//! The pure core of Maskline: what decides.
//!
//! No clock, no IO, no randomness: time, seeds and the results of IO come in as inputs, what is to
//! be done comes out as actions. Every failing run of the simulation replays from one number.

pub mod admission;
pub mod attempts;
mod body;
pub mod config;
pub mod country;
pub mod credentials;
mod debug;
pub mod dialog;
pub mod directory;
pub mod dispatch;
mod doorkeeper;
pub mod identity;
pub mod io;
pub mod living;
pub mod modification;
pub mod numbers;
mod outcome;
pub mod overload;
pub mod probing;
pub mod registration;
pub mod reported;
pub mod routes;
pub mod sdp;
pub mod session;
pub mod shard;
pub mod sip;
pub mod snapshot;
pub mod targets;
pub mod trace;

pub use admission::Admission;
pub use config::{
    Fingerprint, Keepalive, Listener, PeerCertificate, SwitchConfig, Trunk, TrunkId, TrunkTls,
};
pub use credentials::{InboundAuth, OutboundAuth, Password, TrunkAuth};
pub use directory::{Directory, NumberEntry};
pub use dispatch::{Arrival, Dispatcher, Verdict};
pub use identity::IdentityRules;
pub use io::{
    Action, CallflowAnswer, CommitId, Input, JournalRecord, Now, RecordedEvent, SessionKey,
};
pub use maskline_media::Tick;
pub use registration::{RegistrationFailure, RegistrationState, TrunkRegistration};
pub use routes::Route;
pub use shard::Shard;
pub use targets::{Target, TargetKey, TrunkAddress, TrunkTargets};
pub use trace::{TraceEntry, TraceLimits};
