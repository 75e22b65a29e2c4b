//! Text to speech.
//!
//! An engine is slow beside a call: it is asked from a task of its own, so many at once, with a deadline.
//! What it says is an ordinary input: bounded, and read like a file of somebody else.

use std::time::Duration;

use async_trait::async_trait;

use crate::sound::{Sound, SoundFault};
use crate::voices::SpeechProfile;

/// What is to be said.
#[derive(Clone, PartialEq)]
pub struct Speech {
    /// The text. Markup is not looked at, and read out.
    pub text: String,
    /// An engine's [`SpeechProfile::code`].
    pub profile: String,
    /// 1: as it usually speaks; 0.5 to 2.
    pub speed: f32,
}

/// Why something can't be said. Its text holds nothing of what was to be said.
#[derive(Debug, thiserror::Error)]
pub enum SpeechFault {
    /// The engine has no such voice.
    #[error("the engine has no such voice")]
    Voice,
    /// The engine could not be asked.
    #[error("the engine could not be started: {0}")]
    Start(std::io::Error),
    /// It gave no sound.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// It took too long.
    #[error("the engine took longer than {0:?}")]
    Late(Duration),
    /// What it said is no sound.
    #[error("what the engine said {0}")]
    Sound(#[from] SoundFault),
}

/// What speaks.
#[async_trait]
pub trait SpeechEngine: Send + Sync + 'static {
    /// Its voices, by code.
    fn profiles(&self) -> &[SpeechProfile];

    /// Says it. Whoever no longer waits for it ends it.
    async fn speak(&self, speech: &Speech) -> Result<Sound, SpeechFault>;
}
