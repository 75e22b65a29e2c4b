//! What the switch asks of a media engine, whichever carries the packets.

use std::fmt::Debug;

use crate::command::{MediaCommand, MediaEvent, MediaKey};
use crate::engine::{EngineCounters, MediaEngine};
use crate::report::MediaReport;

/// A media engine: the built-in one ([`crate::MediaEngine`]), or others behind the same words.
///
/// [`MediaCommand::Open`], [`MediaCommand::Resume`] and [`MediaCommand::Close`] are each answered by exactly
/// one event: returned, or sent to the shard's channel.
pub trait Engine: Debug + Send + Sync {
    /// Gives an order; never waits. May be called from any thread. The orders of a session are carried out in
    /// turn; of several programmings of one side that wait, the last counts. An answer that can be given at once is
    /// returned and does not come by the shard's channel.
    #[must_use = "an answer that is returned does not come by the channel"]
    fn command(&self, command: MediaCommand) -> Option<MediaEvent>;

    /// Every shard has resumed what it found: what else an engine still has of earlier runs is nobody's.
    fn adopted(&self) {}

    /// Everything that the engine counts, as of now.
    fn counters(&self) -> EngineCounters;

    /// How the audio of a session goes, as of some seconds ago; `None`: it is not known, or over.
    fn report(&self, key: MediaKey) -> Option<MediaReport>;
}

impl Engine for MediaEngine {
    fn command(&self, command: MediaCommand) -> Option<MediaEvent> {
        Self::command(self, command)
    }

    fn counters(&self) -> EngineCounters {
        Self::counters(self)
    }

    fn report(&self, key: MediaKey) -> Option<MediaReport> {
        Self::report(self, key)
    }
}
