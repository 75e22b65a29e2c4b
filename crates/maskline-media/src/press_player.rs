//! Key presses that are played to a party: those that the other party signals in a way that this
//! one does not know. Packet by packet of 20 ms, as telephone-events made anew or as tones.
//!
//! A press is played for as long as it lasts, 40 ms at least, and presses that come faster than they
//! can be played wait for one another, 40 ms apart (ITU-T Q.24). One whose end is lost ends when
//! nothing more is heard of it.
//!
//! What lives elsewhere: which press is a new one ([`crate::dtmf`], [`crate::tone_listener`]), when
//! and where packets leave ([`crate::relay`]).

use std::collections::VecDeque;
use std::time::Duration;

use crate::codec::Voice;
use crate::dtmf::{TelephoneEvent, code};
use crate::stream::{Step, clock_ticks};
use crate::tick::Tick;
use crate::tones::{FRAME_OCTETS, KeyTones};

/// How much a packet plays.
pub const FRAME: Duration = Duration::from_millis(20);
/// The level of a press that came without one, in -dBm0.
pub const USUAL_VOLUME: u8 = 10;
/// The shortest press, and the shortest pause, that a receiver has to take for one.
const SHORTEST: Duration = Duration::from_millis(40);
/// A press of which nothing is heard for so long is over.
const PATIENCE: Duration = Duration::from_millis(250);
/// Presses that wait; further ones are not played.
const WAITING: usize = 16;
/// A player that is further behind goes on from now.
const STALLED: Duration = Duration::from_millis(100);
/// How often the end of a telephone-event is said (RFC 4733 §2.5.1.4).
const ENDS: u8 = 3;
/// The longest duration that one segment of a telephone-event expresses (RFC 4733 §2.5.1.3).
const SEGMENT_TICKS: u32 = 0xffff;

/// How a party takes key presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesPresses {
    /// As telephone-events (RFC 4733).
    Events {
        /// Its payload type for them.
        payload_type: u8,
        /// Their clock rate in Hz.
        clock_rate: u32,
    },
    /// As tones in its audio.
    Tones {
        /// Its payload type for the codec.
        payload_type: u8,
        /// The codec.
        voice: Voice,
    },
}

/// What a packet of a press needs beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// Whether the press begins with it: the marker bit (RFC 3551 §4.1, RFC 4733 §2.5.1.2).
    pub begins: bool,
    /// Where it stands in the stream's time.
    pub step: Step,
}

/// What is played to one party.
#[derive(Debug, Default)]
pub struct PressPlayer {
    /// The first one plays, or pauses before it plays.
    presses: VecDeque<Press>,
    /// When the next packet is due.
    next: Tick,
}

#[derive(Debug)]
struct Press {
    digit: char,
    volume: u8,
    began: Tick,
    heard: Tick,
    played: Duration,
    /// How long it lasts, once its end is known.
    length: Option<Duration>,
    ends_said: u8,
    /// Where the current segment of a telephone-event begins, in its clock's ticks.
    segment: u32,
    tones: Option<Box<KeyTones>>,
}

impl PressPlayer {
    /// A key was pressed, this loud (-dBm0), and it lasts until [`Self::update`] says otherwise. It
    /// plays at once, or after those before it.
    pub fn press(&mut self, now: Tick, digit: char, volume: u8) {
        self.push(now, digit, volume, None);
    }

    /// A key was pressed for so long.
    pub fn press_for(&mut self, now: Tick, digit: char, volume: u8, length: Duration) {
        self.push(now, digit, volume, Some(length));
    }

    /// More is heard of the last press: how long it lasts so far, and whether it is over.
    pub fn update(&mut self, now: Tick, digit: char, lasts: Duration, over: bool) {
        if let Some(press) = self.presses.back_mut().filter(|it| it.digit == digit) {
            press.heard = now;
            if over {
                // Whatever a packet says, nobody pressed it for longer than since it was first heard of.
                press.end(lasts.min(now.since(press.began) + PATIENCE));
            }
        }
    }

    /// Whether presses are played, so that voice has to wait.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        !self.presses.is_empty()
    }

    /// When [`Self::play`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Tick> {
        self.is_playing().then_some(self.next)
    }

    /// Replaces what `payload` holds by that of the next packet. `None`: there is nothing to send
    /// now.
    pub fn play(&mut self, now: Tick, to: TakesPresses, payload: &mut Vec<u8>) -> Option<Played> {
        if now < self.next {
            return None;
        }
        let press = self.presses.front_mut()?;
        if now.since(press.heard) > PATIENCE {
            press.end(Duration::ZERO);
        }
        let over = press.length.is_some_and(|length| press.played >= length);
        let all_said = match to {
            TakesPresses::Events { .. } => press.ends_said >= ENDS,
            TakesPresses::Tones { .. } => true,
        };
        if over && all_said {
            self.presses.pop_front();
            self.next = now + SHORTEST;
            return None;
        }
        self.next = if now.since(self.next) > STALLED {
            now + FRAME
        } else {
            self.next + FRAME
        };
        let begins = press.played.is_zero();
        if !over {
            press.played += FRAME;
        }
        let goes_on = match to {
            TakesPresses::Events { clock_rate, .. } => press.event(over, clock_rate, payload),
            TakesPresses::Tones { voice, .. } => press.frame(voice, payload),
        };
        let step = if begins { Step::TimePassed } else { goes_on };
        Some(Played { begins, step })
    }

    /// Forgets everything: the party is no longer who it was, or the call is over.
    pub fn stop(&mut self) {
        self.presses.clear();
    }

    fn push(&mut self, now: Tick, digit: char, volume: u8, length: Option<Duration>) {
        if let Some(last) = self.presses.back_mut() {
            // One finger at a time.
            let lasted = now.since(last.began);
            last.end(lasted);
        } else {
            self.next = self.next.max(now);
        }
        if self.presses.len() >= WAITING || code(digit).is_none() {
            return;
        }
        self.presses.push_back(Press {
            digit,
            volume,
            began: now,
            heard: now,
            played: Duration::ZERO,
            length: length.map(|it| it.max(SHORTEST)),
            ends_said: 0,
            segment: 0,
            tones: None,
        });
    }
}

impl Press {
    fn end(&mut self, lasted: Duration) {
        if self.length.is_none() {
            self.length = Some(lasted.max(self.played).max(SHORTEST));
        }
    }

    /// Its next 20 ms as tones.
    fn frame(&mut self, voice: Voice, payload: &mut Vec<u8>) -> Step {
        if self.tones.is_none() {
            self.tones = KeyTones::new(self.digit, self.volume).map(Box::new);
        }
        if let Some(tones) = &mut self.tones {
            tones.frame(voice, payload);
        }
        Step::Ticks(FRAME_OCTETS as u32)
    }

    /// What a telephone-event says of it by now.
    fn event(&mut self, over: bool, clock_rate: u32, payload: &mut Vec<u8>) -> Step {
        let lasts = self.length.map_or(self.played, |it| it.min(self.played));
        let mut in_segment = clock_ticks(lasts, clock_rate).saturating_sub(self.segment);
        let mut step = Step::Ticks(0);
        if in_segment > SEGMENT_TICKS {
            self.segment = self.segment.saturating_add(SEGMENT_TICKS);
            in_segment -= SEGMENT_TICKS;
            step = Step::Ticks(SEGMENT_TICKS);
        }
        self.ends_said += u8::from(over);
        payload.clear();
        payload.extend(
            TelephoneEvent {
                code: code(self.digit).unwrap_or_default(),
                end: over,
                volume: self.volume,
                duration: u16::try_from(in_segment).unwrap_or(u16::MAX),
            }
            .to_bytes(),
        );
        step
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TONES: TakesPresses = TakesPresses::Tones {
        payload_type: 8,
        voice: Voice::Pcma,
    };

    const fn events(clock_rate: u32) -> TakesPresses {
        TakesPresses::Events {
            payload_type: 101,
            clock_rate,
        }
    }

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays until a time; each packet with its time.
    fn played(
        player: &mut PressPlayer,
        to: TakesPresses,
        until: u64,
    ) -> Vec<(u64, Played, Vec<u8>)> {
        let mut packets = Vec::new();
        while let Some(due) = player.due().filter(|due| *due <= at(until)) {
            let mut payload = Vec::new();
            if let Some(packet) = player.play(due, to, &mut payload) {
                let ms = u64::try_from(due.since_start().as_millis()).unwrap();
                packets.push((ms, packet, payload));
            }
        }
        packets
    }

    /// As [`played`], of telephone-events: when, how far on in ticks, over or not, how long.
    fn told(player: &mut PressPlayer, clock_rate: u32, until: u64) -> Vec<(u64, Step, bool, u16)> {
        let packets = played(player, events(clock_rate), until).into_iter();
        packets
            .map(|(ms, packet, payload)| {
                let event = TelephoneEvent::from_bytes(payload.try_into().unwrap());
                assert_eq!(packet.begins, packet.step == Step::TimePassed);
                (ms, packet.step, event.end, event.duration)
            })
            .collect()
    }

    #[test]
    fn a_press_plays_for_as_long_as_it_lasts_and_40_ms_at_least() {
        for (lasts, packets) in [(1, 2), (40, 2), (100, 5), (110, 6)] {
            let mut player = PressPlayer::default();
            player.press(at(0), '1', 10);
            player.update(at(0), '1', ms(lasts), true);
            let heard = played(&mut player, TONES, 2_000);
            assert_eq!(heard.len(), packets, "{lasts} ms");
            assert!(heard.iter().all(|(.., payload)| payload.len() == 160));
            assert!(!player.is_playing());
        }
    }

    #[test]
    fn a_press_is_told_as_an_event_at_its_clock_rate_and_its_end_three_times() {
        for (clock_rate, tick_ms) in [(8_000, 8), (16_000, 16), (48_000, 48)] {
            let mut player = PressPlayer::default();
            player.press_for(at(0), '5', 10, ms(70));
            let (first, more) = (Step::TimePassed, Step::Ticks(0));
            assert_eq!(
                told(&mut player, clock_rate, 2_000),
                [
                    (0, first, false, 20 * tick_ms),
                    (20, more, false, 40 * tick_ms),
                    (40, more, false, 60 * tick_ms),
                    (60, more, false, 70 * tick_ms),
                    (80, more, true, 70 * tick_ms),
                    (100, more, true, 70 * tick_ms),
                    (120, more, true, 70 * tick_ms),
                ]
            );
        }
    }

    #[test]
    fn a_long_press_is_told_in_segments() {
        let mut player = PressPlayer::default();
        player.press_for(at(0), '5', 10, ms(3_000));
        let told = told(&mut player, 48_000, 10_000);
        let mut ticks = 0;
        let mut before = 0;
        for (_, step, _, duration) in &told {
            ticks += match step {
                Step::TimePassed => 0,
                Step::Ticks(ticks) => *ticks,
            };
            let lasts = ticks + u32::from(*duration);
            assert!(lasts >= before, "{told:?}");
            before = lasts;
        }
        assert_eq!((ticks, before), (2 * 0xffff, 3 * 48_000));
        assert_eq!(told.iter().filter(|it| it.2).count(), 3);
    }

    #[test]
    fn a_press_whose_end_is_lost_ends_by_itself() {
        for to in [TONES, events(8_000)] {
            let mut player = PressPlayer::default();
            player.press(at(0), '1', 10);
            player.update(at(100), '1', ms(100), false);
            let heard = played(&mut player, to, 5_000);
            let last = heard.last().unwrap().0;
            assert!((340..=420).contains(&last), "{to:?} {last}");
        }
    }

    #[test]
    fn an_end_that_says_less_than_was_played_takes_nothing_back() {
        let mut player = PressPlayer::default();
        player.press(at(0), '1', 10);
        let mut payload = Vec::new();
        for n in 0..6 {
            player.play(at(n * 20), events(8_000), &mut payload);
        }
        player.update(at(110), '1', ms(80), true);
        let told = told(&mut player, 8_000, 2_000);
        assert!(told.iter().all(|it| it.2 && it.3 == 960), "{told:?}");
    }

    #[test]
    fn presses_that_come_at_once_are_played_one_after_the_other() {
        let mut player = PressPlayer::default();
        for digit in "123".chars() {
            player.press(at(0), digit, 10);
            player.update(at(0), digit, ms(40), true);
        }
        let heard = played(&mut player, TONES, 5_000);
        let times: Vec<(u64, bool)> = heard.iter().map(|it| (it.0, it.1.begins)).collect();
        assert_eq!(
            times,
            [
                (0, true),
                (20, false),
                (80, true),
                (100, false),
                (160, true),
                (180, false)
            ]
        );
        for _ in 0..100 {
            player.press(at(6_000), '1', 10);
        }
        assert_eq!(player.presses.len(), WAITING);
    }

    #[test]
    fn a_press_right_behind_another_waits_for_the_pause() {
        let mut player = PressPlayer::default();
        player.press_for(at(0), '1', 10, ms(40));
        played(&mut player, TONES, 45);
        assert!(!player.is_playing(), "over at 40 ms");
        player.press_for(at(45), '1', 10, ms(40));
        assert_eq!(player.due(), Some(at(80)));
    }

    #[test]
    fn a_press_ends_when_the_next_begins() {
        let mut player = PressPlayer::default();
        player.press(at(0), '1', 10);
        player.press_for(at(60), '2', 10, ms(40));
        let heard = played(&mut player, TONES, 5_000);
        let begins: Vec<u64> = heard
            .iter()
            .filter(|it| it.1.begins)
            .map(|it| it.0)
            .collect();
        assert_eq!(begins, [0, 100]);
        assert_eq!(heard.len(), 5);
    }

    #[test]
    fn a_player_that_was_held_up_does_not_hurry() {
        let mut player = PressPlayer::default();
        player.press_for(at(0), '1', 10, ms(2_000));
        let mut payload = Vec::new();
        assert!(player.play(at(0), TONES, &mut payload).unwrap().begins);
        assert_eq!(player.play(at(10), TONES, &mut payload), None);
        assert!(!player.play(at(900), TONES, &mut payload).unwrap().begins);
        assert_eq!(player.due(), Some(at(920)));
    }
}
