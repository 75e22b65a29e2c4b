//! What a party hears on hold: when it is played, and to whom.
//!
//! What lives elsewhere: the sound, and where in it a party is ([`crate::hold`]).

use super::Relay;
use crate::command::Side;
use crate::tick::Tick;

impl Relay {
    /// When the next packet of what a side hears on hold is due. It waits for presses.
    pub(super) fn hold_due(&self, side: Side) -> Option<Tick> {
        self.hold.as_ref()?;
        let (party, other) = (self.party(side), self.party(side.other()));
        let held = other.media()?.holds && party.media()?.receives;
        if !held
            || party.player.is_playing()
            || party.prompt.is_playing()
            || party.voice().is_none()
        {
            return None;
        }
        Some(party.hold.due())
    }

    /// Sends what is due of it.
    pub(super) fn play_hold(&mut self, now: Tick, side: Side) {
        while self.hold_due(side).is_some_and(|due| due <= now) {
            let Some(audio) = self.hold.clone() else {
                return;
            };
            let party = self.party_mut(side);
            let datagram = party.next_of_hold(now, &audio);
            self.send_own(side, datagram);
        }
    }
}
