//! What a party is played instead of the other: when a packet of it leaves, and when it is over.
//!
//! What lives elsewhere: where in it a party is ([`crate::prompt`]).

use super::{Relay, RelayOutput};
use crate::command::Side;
use crate::prompt::Prompt;
use crate::tick::Tick;

impl Relay {
    /// Plays a prompt to a side's party in place of what the other party sends, from now on and instead
    /// of one that is played already. Each prompt is told of once: [`RelayOutput::Played`].
    ///
    /// To a party that is not programmed, or does not receive, or knows no codec that is made here, it
    /// can't be played, which is told at once.
    pub fn play_prompt(&mut self, now: Tick, side: Side, prompt: Prompt) {
        let id = prompt.id;
        let party = self.party_mut(side);
        let can_hear = party.media().is_some_and(|media| media.receives) && party.voice().is_some();
        let before = if can_hear {
            party.prompt.start(now, prompt)
        } else {
            Some(id)
        };
        self.ended(side, before, false);
    }

    /// Ends the prompt that is played to a side's party, if one is.
    pub fn stop_prompt(&mut self, side: Side) {
        let before = self.party_mut(side).prompt.stop();
        self.ended(side, before, false);
    }

    /// Sends what is due of a prompt.
    pub(super) fn play_prompts(&mut self, now: Tick, side: Side) {
        while self.party(side).prompt.due().is_some_and(|due| due <= now) {
            match self.party_mut(side).next_of_prompt(now) {
                Ok(datagram) => self.send_own(side, Some(datagram)),
                Err((id, whole)) => return self.ended(side, Some(id), whole),
            }
        }
    }

    fn ended(&mut self, side: Side, id: Option<u64>, whole: bool) {
        if let Some(id) = id {
            self.outputs
                .push_back(RelayOutput::Played { side, id, whole });
        }
    }
}
