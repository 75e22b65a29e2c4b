//! What a caller is played: files and speech, made into sound that a call can carry.
//!
//! What lives elsewhere: which action plays what (`maskline-switch`), the packets and their pace
//! (`maskline-media`).

mod resample;
pub mod sound;

pub use sound::{Sound, SoundFault};
