//! What a party on hold hears while the other one sends nothing: a tone or the operator's music,
//! over and over, 20 ms by 20 ms.
//!
//! It is encoded once, when it is loaded, into each codec that is made here: a packet costs a copy.
//! Where the parties have none of these codecs in use, a party on hold hears nothing.
//!
//! What lives elsewhere: reading files (`maskline`), who holds whom (`maskline-switch`), when and
//! where packets leave ([`crate::relay`]).

use std::time::Duration;

use crate::codec::Voice;
use crate::encoded::EncodedSound;
use crate::tick::Tick;
use crate::tone::Tone;
use crate::tones::FRAME_OCTETS;

/// How long the party that holds sends nothing before the other hears this.
pub const HOLD_AFTER: Duration = Duration::from_secs(1);
/// How much a packet plays.
const FRAME: Duration = Duration::from_millis(20);
/// A player that is further behind does not catch up.
const STALLED: Duration = Duration::from_millis(100);

/// The built-in tone: two soft notes, one after the other, every four seconds.
const NOTES_HZ: [f64; 2] = [523.25, 659.25];
const NOTE: usize = 1_600;
const PERIOD: usize = 32_000;
/// About -22 dBm0.
const LOUDNESS: i16 = 1_800;
/// A note swells and fades for so many samples, so that it does not click.
const SLOPE: usize = 320;

/// A sound that repeats, in each codec that is made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldAudio(EncodedSound);

/// What is played to one party.
#[derive(Debug)]
pub(crate) struct HoldPlayer {
    /// Since when nothing was passed on to the party.
    quiet_since: Tick,
    /// When the next packet is due, once the first one left.
    next: Option<Tick>,
    /// The next octet.
    at: usize,
    /// Whether the last packet to the party was of this.
    heard: bool,
}

impl HoldAudio {
    /// The built-in tone.
    #[must_use]
    pub fn tone() -> Self {
        let notes = NOTES_HZ.into_iter().flat_map(|hz| {
            let swell = |n: usize| n.min(NOTE - 1 - n).min(SLOPE) as f64 / SLOPE as f64;
            let note = Tone::new(hz, 8_000, LOUDNESS).take(NOTE).enumerate();
            note.map(move |(n, sample)| (f64::from(sample) * swell(n)) as i16)
        });
        let silence = std::iter::repeat_n(0, PERIOD - 2 * NOTE);
        Self::at_8_khz(&notes.chain(silence).collect::<Vec<_>>())
    }

    /// A sound sampled at 8 kHz. An empty one is nothing.
    #[must_use]
    pub fn at_8_khz(samples: &[i16]) -> Self {
        Self(EncodedSound::endless_at_8_khz(samples))
    }

    /// A sound sampled at 16 kHz. An empty one is nothing, and of an odd number of samples the last
    /// one is left out.
    #[must_use]
    pub fn at_16_khz(samples: &[i16]) -> Self {
        Self(EncodedSound::endless_at_16_khz(samples))
    }

    /// How long it is before it repeats.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.0.length()
    }

    const fn octets(&self, voice: Voice) -> &[u8] {
        self.0.octets(voice)
    }
}

impl HoldPlayer {
    /// One for a party to which nothing was passed on yet.
    pub(crate) const fn new(now: Tick) -> Self {
        Self {
            quiet_since: now,
            next: None,
            at: 0,
            heard: false,
        }
    }

    /// The two agreed anew: the sound begins again, later.
    pub(crate) const fn restart(&mut self, now: Tick) {
        let heard = self.heard;
        *self = Self {
            heard,
            ..Self::new(now)
        };
    }

    /// The other party is heard: the sound begins again, later. Whether it was heard until now.
    pub(crate) const fn interrupt(&mut self, now: Tick) -> bool {
        let heard = self.heard;
        *self = Self::new(now);
        heard
    }

    /// When [`Self::play`] is to be called, if the party is on hold.
    pub(crate) fn due(&self) -> Tick {
        self.next.unwrap_or(self.quiet_since + HOLD_AFTER)
    }

    /// Adds the next 20 ms to `payload`, and says whether they do not go on from the ones before.
    pub(crate) fn play(
        &mut self,
        now: Tick,
        audio: &HoldAudio,
        voice: Voice,
        payload: &mut Vec<u8>,
    ) -> bool {
        let due = self.next.filter(|due| now.since(*due) <= STALLED);
        self.next = Some(due.unwrap_or(now) + FRAME);
        let octets = audio.octets(voice);
        let mut missing = FRAME_OCTETS;
        while missing > 0 && !octets.is_empty() {
            let rest = octets.get(self.at..).unwrap_or_default();
            let part = rest.get(..missing).unwrap_or(rest);
            payload.extend_from_slice(part);
            missing -= part.len();
            self.at = (self.at + part.len()) % octets.len();
        }
        self.heard = true;
        due.is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::g711::{decode_alaw, decode_ulaw};
    use crate::codec::g722::Decoder;
    use crate::codec::half_band::Downsampler;
    use crate::tone::tone_share;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    /// What a party hears of it twice in a row, at 8 kHz.
    fn heard(audio: &HoldAudio, voice: Voice) -> Vec<i16> {
        let (mut decoder, mut downsampler) = (Decoder::default(), Downsampler::default());
        let octets = audio.octets(voice).repeat(2);
        let decoded = octets.iter().map(|octet| match voice {
            Voice::Pcmu => decode_ulaw(*octet),
            Voice::Pcma => decode_alaw(*octet),
            Voice::G722 => downsampler.push(decoder.decode(*octet)),
        });
        decoded.collect()
    }

    #[test]
    fn the_built_in_tone_is_two_soft_notes_in_each_codec_and_then_silence() {
        let audio = HoldAudio::tone();
        assert_eq!(audio.length(), Duration::from_secs(4));
        for voice in Voice::ALL {
            let samples = heard(&audio, voice);
            for (part, hz) in [(400..1_200, NOTES_HZ[0]), (2_000..2_800, NOTES_HZ[1])] {
                let share = tone_share(&samples[part], hz, 8_000);
                assert!(share > 0.9, "{voice:?} {hz} Hz: {share}");
            }
            let loudest = samples[3_400..PERIOD]
                .iter()
                .map(|it| it.unsigned_abs())
                .max();
            assert!(loudest.unwrap() <= 16, "{voice:?}: {loudest:?}");
        }
    }

    #[test]
    fn music_of_either_rate_is_the_same_in_each_codec_and_repeats_without_a_click() {
        for rate in [8_000, 16_000] {
            let samples: Vec<i16> = Tone::new(1_000.0, rate, 8_000).take(16_000).collect();
            let audio = if rate == 8_000 {
                HoldAudio::at_8_khz(&samples)
            } else {
                HoldAudio::at_16_khz(&samples)
            };
            let seconds = f64::from(16_000 / rate);
            assert!((audio.length().as_secs_f64() - seconds).abs() < 1e-9);
            for voice in Voice::ALL {
                let samples = heard(&audio, voice);
                let again = samples.len() / 2;
                let share = tone_share(&samples[again - 400..again + 400], 1_000.0, 8_000);
                assert!(share > 0.99, "{rate} {voice:?}: {share}");
            }
        }
    }

    #[test]
    fn it_begins_after_a_second_repeats_without_a_gap_and_begins_again_when_interrupted() {
        let audio = HoldAudio::at_8_khz(&std::array::from_fn::<_, 200, _>(|n| n as i16 * 100));
        let mut player = HoldPlayer::new(at(500));
        assert_eq!(player.due(), at(1_500));
        let mut played = Vec::new();
        for packet in 0..5 {
            let due = player.due();
            assert_eq!(due, at(1_500 + 20 * packet));
            let begins = player.play(due, &audio, Voice::Pcmu, &mut played);
            assert_eq!(begins, packet == 0);
        }
        assert_eq!(played.len(), 5 * FRAME_OCTETS);
        assert_eq!(played, audio.octets(Voice::Pcmu).repeat(4));
        assert!(player.interrupt(at(2_000)));
        assert!(!player.interrupt(at(2_000)));
        assert_eq!(player.due(), at(3_000));
        let mut anew = Vec::new();
        assert!(player.play(at(3_000), &audio, Voice::Pcmu, &mut anew));
        assert_eq!(anew, audio.octets(Voice::Pcmu)[..160]);
    }

    #[test]
    fn a_player_that_was_held_up_does_not_hurry_and_nothing_makes_silence() {
        let audio = HoldAudio::tone();
        let mut player = HoldPlayer::new(at(0));
        let mut payload = Vec::new();
        assert!(player.play(at(1_000), &audio, Voice::Pcma, &mut payload));
        assert!(!player.play(at(1_090), &audio, Voice::Pcma, &mut payload));
        assert_eq!(player.due(), at(1_040));
        assert!(player.play(at(9_000), &audio, Voice::Pcma, &mut payload));
        assert_eq!(player.due(), at(9_020));
        payload.clear();
        let nothing = HoldAudio::at_8_khz(&[]);
        player.play(at(9_020), &nothing, Voice::Pcma, &mut payload);
        assert_eq!(payload, []);
    }
}
