//! What a caller is played: files and speech, made into sound that a call can carry.
//!
//! What lives elsewhere: which action plays what (`maskline-switch`), the packets and their pace
//! (`maskline-media`).

mod espeak;
mod resample;
pub mod sound;
mod speech;
mod voices;

pub use espeak::Espeak;
pub use sound::{Sound, SoundFault};
pub use speech::{Speech, SpeechEngine, SpeechFault};
pub use voices::{Gender, SpeechProfile};
