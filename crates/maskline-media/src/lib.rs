//! Media of Maskline: RTP and RTCP packets, the relay between two parties, and what it measures.
//!
//! Everything but [`engine`] is pure: no clock, no IO, no randomness; time is a [`Tick`] and seeds
//! come in as inputs. [`engine`] holds the sockets.
//!
//! What lives elsewhere: SDP and the decision what to relay where (`maskline-switch`).

pub mod addresses;
mod allowance;
mod any_engine;
pub mod codec;
pub mod command;
pub mod counters;
pub mod dtmf;
pub mod emodel;
pub mod encoded;
pub mod engine;
pub mod hold;
mod keys;
mod latch;
mod losses;
pub mod one_way;
mod party;
pub mod press_pairs;
pub mod press_player;
pub mod prompt;
pub mod quality;
pub mod relay;
pub mod report;
mod round_trip;
pub mod rtcp;
pub mod rtp;
pub mod srtp;
pub mod stream;
pub mod tick;
pub mod tone;
pub mod tone_listener;
pub mod tones;
pub mod transcode;

pub use addresses::MediaAddresses;
pub use any_engine::Engine;
pub use codec::Voice;
pub use command::{
    CalleeMedia, CallerMedia, Carriage, MediaCommand, MediaEvent, MediaKey, OpenFailure,
    PayloadMap, Quality, RemoteMedia, Side,
};
pub use counters::{DropCounts, DropReason, RelayCounters};
pub use emodel::VoiceCodec;
pub use encoded::EncodedSound;
pub use engine::{EngineConfig, EngineCounters, EngineError, MediaEngine};
pub use hold::HoldAudio;
pub use losses::LossPattern;
pub use one_way::OneWay;
pub use prompt::Prompt;
pub use quality::Received;
pub use relay::{Relay, RelayOutput, RelayTimer, Verdict};
pub use report::{CarriedBy, MediaReport, SideReport};
pub use round_trip::{FarReport, RoundTrip};
pub use srtp::{SrtpKey, SrtpKeys, SrtpSuite};
pub use tick::Tick;
