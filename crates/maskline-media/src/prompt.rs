//! What a party is played instead of the other party: a sound, once or a few times, 20 ms by 20 ms.
//!
//! What lives elsewhere: the sound ([`crate::encoded`]), when and where packets leave
//! ([`crate::relay`]), what is to be played to whom (`maskline-switch`).

use std::sync::Arc;
use std::time::Duration;

use crate::codec::Voice;
use crate::encoded::EncodedSound;
use crate::tick::Tick;
use crate::tones::FRAME_OCTETS;

/// How much a packet plays.
const FRAME: Duration = Duration::from_millis(20);
/// A player that is further behind does not catch up.
const STALLED: Duration = Duration::from_millis(100);

/// Something to be played to a party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Named in what is told of it.
    pub id: u64,
    /// What is heard.
    pub sound: Arc<EncodedSound>,
    /// How often, one right after the other; 0 is nothing.
    pub times: u8,
}

/// What is played to one party.
#[derive(Debug, Default)]
pub(crate) struct PromptPlayer {
    playing: Option<Playing>,
}

#[derive(Debug)]
struct Playing {
    prompt: Prompt,
    /// The next octet.
    at: usize,
    /// When the next packet is due, or the end, after the last one.
    next: Tick,
    begins: bool,
}

impl PromptPlayer {
    /// Plays it from now on. What was played until now, and is not any more.
    pub(crate) fn start(&mut self, now: Tick, prompt: Prompt) -> Option<u64> {
        let before = self.stop();
        self.playing = Some(Playing {
            prompt,
            at: 0,
            next: now,
            begins: true,
        });
        before
    }

    /// What was played until now.
    pub(crate) fn stop(&mut self) -> Option<u64> {
        Some(self.playing.take()?.prompt.id)
    }

    pub(crate) const fn is_playing(&self) -> bool {
        self.playing.is_some()
    }

    /// When [`Self::play`] is to be called.
    pub(crate) fn due(&self) -> Option<Tick> {
        Some(self.playing.as_ref()?.next)
    }

    /// Adds the next 20 ms to `payload`, and says whether they do not go on from the ones before.
    /// `Err`: this prompt has been played to its end, which is 20 ms after its last packet.
    pub(crate) fn play(
        &mut self,
        now: Tick,
        voice: Voice,
        payload: &mut Vec<u8>,
    ) -> Result<bool, u64> {
        let Some(playing) = &mut self.playing else {
            return Ok(false);
        };
        let octets = playing.prompt.sound.octets(voice);
        if playing.at >= octets.len() {
            playing.prompt.times = playing.prompt.times.saturating_sub(1);
            playing.at = 0;
        }
        if playing.prompt.times == 0 || octets.is_empty() {
            let id = playing.prompt.id;
            self.playing = None;
            return Err(id);
        }
        let stalled = now.since(playing.next) > STALLED;
        let due = if stalled { now } else { playing.next };
        playing.next = due + FRAME;
        let rest = octets.get(playing.at..).unwrap_or_default();
        let part = rest.get(..FRAME_OCTETS).unwrap_or(rest);
        payload.extend_from_slice(part);
        playing.at += part.len();
        Ok(std::mem::take(&mut playing.begins) || stalled)
    }
}
