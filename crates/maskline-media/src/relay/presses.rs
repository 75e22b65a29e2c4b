//! Key presses between the two parties: which are told, and which are played to the other one instead of being
//! passed on.
//!
//! What lives elsewhere: what one party pressed lately (`keys.rs`), playing
//! ([`crate::press_player`]).

use std::time::Duration;

use super::{Relay, RelayOutput};
use crate::codec::Voice;
use crate::command::{Carriage, Side};
use crate::dtmf::TelephoneEvent;
use crate::party::Accepted;
use crate::press_player::{TakesPresses, USUAL_VOLUME};
use crate::tick::Tick;
use crate::tone_listener::Heard;

/// How long a press is played that came without a length.
const TOLD_PRESS: Duration = Duration::from_millis(160);

impl Relay {
    /// Takes a key that a side's party pressed by other means than RTP. If RTP has brought it, that is all. Else
    /// RTP passes it on no more: it is played to the other party if that is wanted and possible, and where it is not
    /// wanted [`RelayOutput::NotInRtp`] says that it is to be passed on by the other means.
    pub fn press(&mut self, now: Tick, side: Side, digit: char, play: bool) {
        let (sender, receiver) = self.both(side);
        let takes = receiver.takes_presses().is_some();
        if takes && !sender.keys.is_new_to_rtp(now, digit) {
            return;
        }
        if !play {
            self.outputs
                .push_back(RelayOutput::NotInRtp { side, digit });
        } else if takes {
            receiver
                .player
                .press_for(now, digit, USUAL_VOLUME, TOLD_PRESS);
            self.play(now, side.other());
        }
    }

    /// Takes a telephone-event: tells which keys it presses, and plays them to the other party where
    /// they are not passed on as they are.
    pub(super) fn on_event(&mut self, now: Tick, side: Side, accepted: &Accepted<'_>) {
        let packet = &accepted.packet;
        let (sender, receiver) = self.both(side);
        // What is passed on beside a press of ours would be lost within it.
        let anew = accepted.payload.carriage == Carriage::Anew || receiver.player.is_playing();
        let plays = anew && receiver.takes_presses().is_some();
        let volume = packet.payload.first_chunk().map_or(USUAL_VOLUME, |bytes| {
            TelephoneEvent::from_bytes(*bytes).volume
        });
        let pressed = sender
            .keys
            .events
            .on_event(packet.ssrc, packet.timestamp, packet.payload);
        for digit in pressed {
            let (sender, receiver) = self.both(side);
            let reported = sender.keys.allows(now);
            if reported && !sender.keys.is_new(now, digit) {
                sender.keys.withhold(packet.timestamp);
            } else if reported && plays {
                receiver.player.press(now, digit, volume);
            }
            self.tell_press(side, digit, reported);
        }
        let (sender, receiver) = self.both(side);
        if anew {
            sender.keys.withhold(packet.timestamp);
        } else {
            sender.keys.withhold_what_goes_on(packet.timestamp);
        }
        if let Some((digit, ticks, over)) = sender.keys.events.latest()
            && plays
        {
            let seconds = f64::from(ticks) / f64::from(accepted.payload.clock_rate.max(1));
            let lasts = Duration::from_secs_f64(seconds);
            receiver.player.update(now, digit, lasts, over);
        }
    }

    /// Listens for keys in a party's audio. To a party that knows telephone-events they are played
    /// as such; another hears them anyway.
    pub(super) fn listen(&mut self, now: Tick, side: Side, accepted: &Accepted<'_>, voice: Voice) {
        let (sender, _) = self.both(side);
        let Some(mut listener) = sender.keys.listener.take() else {
            return;
        };
        if let Some(silence) = listener.goes_on(&accepted.packet) {
            for _ in 0..silence {
                if let Some(heard) = listener.hear_silence() {
                    self.on_heard(now, side, heard);
                }
            }
            for octet in accepted.packet.payload {
                if let Some(heard) = listener.hear(voice, *octet) {
                    self.on_heard(now, side, heard);
                }
            }
        }
        let (sender, receiver) = self.both(side);
        if let Some(digit) = listener.pressed() {
            receiver.player.update(now, digit, Duration::ZERO, false);
        }
        sender.keys.listener = Some(listener);
    }

    fn on_heard(&mut self, now: Tick, side: Side, heard: Heard) {
        let (sender, receiver) = self.both(side);
        match heard {
            Heard::Pressed(digit) => {
                let reported = sender.keys.allows(now);
                let is_new = reported && sender.keys.is_new(now, digit);
                let events = matches!(receiver.takes_presses(), Some(TakesPresses::Events { .. }));
                if is_new && events {
                    receiver.player.press(now, digit, USUAL_VOLUME);
                }
                self.tell_press(side, digit, reported);
            }
            // It was heard as late as its end is.
            Heard::Released(digit) => receiver.player.update(now, digit, Duration::ZERO, true),
        }
    }

    fn tell_press(&mut self, side: Side, digit: char, reported: bool) {
        if reported {
            self.counters.presses += 1;
            self.outputs.push_back(RelayOutput::Dtmf { side, digit });
        } else {
            self.counters.presses_suppressed += 1;
        }
    }

    /// Sends what is due of the presses that are played to a side.
    pub(super) fn play(&mut self, now: Tick, side: Side) {
        while self.party(side).player.due().is_some_and(|at| at <= now) {
            let party = self.party_mut(side);
            let datagram = party.next_played(now);
            self.send_own(side, datagram);
        }
    }
}
