//! Key presses heard in a party's audio as pairs of tones (ITU-T Q.23), by Goertzel's algorithm.
//!
//! Windows of 12.75 ms that overlap by half; a key counts once it is in four of them in a row, and is
//! released once five in a row hold nothing. So 40 ms of tones are a press and 23 ms are none, and an
//! interruption of 10 ms ends nothing (ITU-T Q.24).
//!
//! A sender with silence suppression sends nothing between two tones: there its timestamps leap while its
//! sequence numbers go on, and the silence is made up for. Comfort noise may stand there. Lost packets leave a
//! gap in both, and end nothing.
//!
//! What lives elsewhere: making tones ([`crate::tones`]), what becomes of a press
//! ([`crate::relay`]).

use crate::codec::Voice;
use crate::codec::g711::{decode_alaw, decode_ulaw};
use crate::codec::g722::Decoder;
use crate::codec::half_band::Downsampler;
use crate::rtp::RtpPacket;
use crate::tones::{COLUMNS_HZ, KEYS, ROWS_HZ};

/// Samples that are looked at together: the windows of the lowest frequencies barely overlap.
const WINDOW: usize = 102;
const HOP: usize = WINDOW / 2;
/// How many windows in a row make a press.
const TO_PRESS: u8 = 4;
/// How many in a row end one.
const TO_RELEASE: u8 = 5;
/// The mean square of -36 dBm0 (RFC 4733 §2.3).
const LEAST_POWER: f32 = 62_000.0;
/// How much of a window's energy is in the two tones: less is speech, or the edge of a tone.
const LEAST_SHARE: f32 = 0.88;
/// Where a tone is looked for: one that is 1.5 % off is a key's (Q.24), and one of 3.5 % is not.
const NEAR: [f64; 3] = [0.988, 1.0, 1.012];
/// How much stronger one tone may be than the other: 8 dB. Administrations ask for 5 to 10 (Q.24).
const MOST_TWIST: f32 = 6.31;
/// How far a tone stands out of its row or column: 8 dB.
const LEAST_LEAD: f32 = 6.31;

/// What is listened to of one party.
#[derive(Clone, Debug)]
pub struct ToneListener {
    samples: [f32; WINDOW],
    filled: usize,
    /// What the last windows held, and how many of them.
    held: (Option<char>, u8),
    pressed: Option<char>,
    decoder: Decoder,
    narrow: Downsampler,
    newest: Option<Newest>,
}

/// The packet that was listened to last.
#[derive(Clone, Copy, Debug)]
struct Newest {
    ssrc: u32,
    sequence: u16,
    /// The timestamp of what follows it without a pause.
    end: u32,
}

/// Samples that a sender leaves out to pause: 40 ms. Fewer are a clock that slips.
const LEAST_PAUSE: u32 = 320;
/// Samples of silence that end a press wherever its last window begins, and no more: the window that begins
/// last before it, and [`TO_RELEASE`] within it.
const PAUSE: usize = WINDOW + HOP * TO_RELEASE as usize;
/// A packet so many behind the newest one is late; further behind, its source has started over.
const LATEST: u16 = 128;

/// What is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A key is pressed. One that was is released.
    Pressed(char),
    /// This key is released.
    Released(char),
}

impl Default for ToneListener {
    fn default() -> Self {
        Self {
            samples: [0.0; WINDOW],
            filled: 0,
            held: (None, 0),
            pressed: None,
            decoder: Decoder::default(),
            narrow: Downsampler::default(),
            newest: None,
        }
    }
}

impl ToneListener {
    /// Whether a packet is further on than those before it, `None` if not: it is not listened to. Otherwise how
    /// many samples of silence its sender left out before it, as far as they matter: to be heard first. A packet
    /// of another source, or too far behind to be merely late, begins anew.
    pub fn goes_on(&mut self, packet: &RtpPacket<'_>) -> Option<usize> {
        let newest = self.newest.filter(|it| it.ssrc == packet.ssrc);
        let ahead = newest.map_or(1, |it| packet.sequence.wrapping_sub(it.sequence));
        let is_late = ahead == 0 || ahead > u16::MAX - LATEST;
        if is_late {
            return None;
        }
        if (self.newest.is_some() && newest.is_none()) || ahead >= 0x8000 {
            *self = Self::default();
        }
        // One octet of each codec here is one tick of its clock. What leaps backwards has started over.
        let left_out = newest.map_or(0, |it| packet.timestamp.wrapping_sub(it.end));
        let ticks = u32::try_from(packet.payload.len()).unwrap_or_default();
        // A sender of G.722 that counts its samples (RFC 3551 §4.5.2 has it count half of them) leaves out as much as
        // it sends, each time.
        let least = LEAST_PAUSE.max(ticks.saturating_add(1));
        let paused = ahead == 1 && (least..0x8000_0000).contains(&left_out);
        self.newest = Some(Newest {
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            end: packet.timestamp.wrapping_add(ticks),
        });
        Some(if paused { PAUSE } else { 0 })
    }

    /// Takes note of a packet that holds no voice: comfort noise is no loss.
    pub fn pass_over(&mut self, packet: &RtpPacket<'_>) {
        let newest = self.newest.as_mut();
        if let Some(newest) = newest.filter(|it| it.ssrc == packet.ssrc)
            && packet.sequence == newest.sequence.wrapping_add(1)
        {
            newest.sequence = packet.sequence;
        }
    }

    /// The key that is pressed.
    #[must_use]
    pub const fn pressed(&self) -> Option<char> {
        self.pressed
    }

    /// Listens to the next octet of audio, 125 µs.
    pub fn hear(&mut self, voice: Voice, octet: u8) -> Option<Heard> {
        let sample = match voice {
            Voice::Pcmu => decode_ulaw(octet),
            Voice::Pcma => decode_alaw(octet),
            Voice::G722 => self.narrow.push(self.decoder.decode(octet)),
        };
        self.take(sample)
    }

    /// Listens to 125 µs of silence.
    pub fn hear_silence(&mut self) -> Option<Heard> {
        self.take(0)
    }

    fn take(&mut self, sample: i16) -> Option<Heard> {
        if let Some(place) = self.samples.get_mut(self.filled) {
            *place = f32::from(sample);
        }
        self.filled += 1;
        if self.filled < WINDOW {
            return None;
        }
        let key = key_in(&self.samples);
        self.samples.copy_within(HOP.., 0);
        self.filled = WINDOW - HOP;
        self.next_window(key)
    }

    fn next_window(&mut self, key: Option<char>) -> Option<Heard> {
        let (before, times) = self.held;
        let times = if before == key {
            times.saturating_add(1)
        } else {
            1
        };
        self.held = (key, times);
        let enough = if key.is_some() { TO_PRESS } else { TO_RELEASE };
        if times < enough || self.pressed == key {
            return None;
        }
        let released = std::mem::replace(&mut self.pressed, key);
        key.map(Heard::Pressed)
            .or_else(|| released.map(Heard::Released))
    }
}

/// The key whose tones are in a window, and nothing else.
fn key_in(samples: &[f32; WINDOW]) -> Option<char> {
    let energy: f32 = samples.iter().map(|it| it * it).sum();
    let length = WINDOW as f32;
    if energy < LEAST_POWER * length {
        return None;
    }
    let share = |frequency| 2.0 * power_at(samples, frequency) / (length * energy);
    let row = loudest(ROWS_HZ.map(share))?;
    let column = loudest(COLUMNS_HZ.map(share))?;
    let near = |frequency: &f64| {
        let shares = NEAR.map(|off| share(off * frequency));
        shares.into_iter().fold(0.0, f32::max)
    };
    let low = ROWS_HZ.get(row).map(near)?;
    let high = COLUMNS_HZ.get(column).map(near)?;
    let balanced = low <= high * MOST_TWIST && high <= low * MOST_TWIST;
    let key = KEYS.get(row)?.get(column)?;
    (balanced && low + high >= LEAST_SHARE).then_some(*key)
}

/// Which one stands out of its group.
fn loudest(shares: [f32; 4]) -> Option<usize> {
    let (at, loudest) = shares
        .into_iter()
        .enumerate()
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let others = shares.into_iter().enumerate().filter(|(n, _)| *n != at);
    let leads = others.fold(true, |leads, (_, it)| leads && it * LEAST_LEAD <= loudest);
    leads.then_some(at)
}

fn power_at(samples: &[f32; WINDOW], frequency_hz: f64) -> f32 {
    let coefficient = (2.0 * (std::f64::consts::TAU * frequency_hz / 8_000.0).cos()) as f32;
    let (before, last) = samples.iter().fold((0.0, 0.0), |(before, last), sample| {
        (last, sample + coefficient * last - before)
    });
    before * before + last * last - coefficient * before * last
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::g711::{encode_alaw, encode_ulaw};
    use crate::codec::g722::Encoder;
    use crate::codec::half_band::Upsampler;
    use crate::tone::Tone;
    use crate::tones::frequencies;

    /// Tones of a key for so many samples: how far off in parts of one, the peaks of both.
    fn tones(digit: char, samples: usize, off: f64, peaks: (i16, i16)) -> Vec<i16> {
        let (low, high) = frequencies(digit).unwrap();
        let low = Tone::new(low * (1.0 + off), 8_000, peaks.0);
        let high = Tone::new(high * (1.0 + off), 8_000, peaks.1);
        low.zip(high).take(samples).map(|(a, b)| a + b).collect()
    }

    fn heard_in(voice: Voice, samples: &[i16]) -> String {
        let (mut up, mut encoder) = (Upsampler::default(), Encoder::default());
        let mut listener = ToneListener::default();
        let octets = samples.iter().map(|sample| match voice {
            Voice::Pcmu => encode_ulaw(*sample),
            Voice::Pcma => encode_alaw(*sample),
            Voice::G722 => encoder.encode(up.push(*sample)),
        });
        octets
            .filter_map(|octet| listener.hear(voice, octet))
            .map(|heard| match heard {
                Heard::Pressed(digit) => digit,
                Heard::Released(_) => '.',
            })
            .collect()
    }

    /// Something before it, the sound, and silence.
    fn after(before: usize, sound: &[i16]) -> Vec<i16> {
        let mut samples = vec![0; before];
        samples.extend(sound);
        samples.extend([0; 800]);
        samples
    }

    const PEAKS: (i16, i16) = (5_000, 5_000);

    #[test]
    fn each_key_is_heard_once_in_each_codec() {
        for voice in Voice::ALL {
            let mut samples = vec![0; 333];
            for digit in KEYS.into_iter().flatten() {
                samples.extend(tones(digit, 400, 0.0, PEAKS));
                samples.extend([0; 320]);
            }
            let heard = heard_in(voice, &samples);
            assert_eq!(heard, "1.2.3.A.4.5.6.B.7.8.9.C.*.0.#.D.", "{voice:?}");
        }
    }

    #[test]
    fn forty_ms_are_a_press_and_23_are_none_wherever_they_begin() {
        for before in 0..HOP {
            let long = after(before, &tones('5', 320, 0.0, PEAKS));
            assert_eq!(heard_in(Voice::Pcma, &long), "5.", "{before}");
            let short = after(before, &tones('5', 184, 0.0, PEAKS));
            assert_eq!(heard_in(Voice::Pcma, &short), "", "{before}");
        }
    }

    #[test]
    fn an_interruption_of_10_ms_ends_no_press_and_a_pause_of_40_does() {
        for (pause, expected) in [(80, "8."), (320, "8.8.")] {
            for before in 0..HOP {
                let mut sound = tones('8', 480, 0.0, PEAKS);
                sound.extend(vec![0; pause]);
                sound.extend(tones('8', 480, 0.0, PEAKS));
                let heard = heard_in(Voice::Pcmu, &after(before, &sound));
                assert_eq!(heard, expected, "{pause} {before}");
            }
        }
    }

    #[test]
    fn tones_may_be_somewhat_off_and_uneven_and_faint() {
        for digit in KEYS.into_iter().flatten() {
            for off in [-0.015, 0.015] {
                let sound = after(70, &tones(digit, 480, off, PEAKS));
                assert_eq!(heard_in(Voice::Pcma, &sound), format!("{digit}."), "{off}");
            }
            for off in [-0.035, 0.035] {
                let sound = after(70, &tones(digit, 480, off, PEAKS));
                assert_eq!(heard_in(Voice::Pcma, &sound), "", "{digit} {off}");
            }
            for (peaks, is_heard) in [
                ((10_000, 5_000), true),
                ((5_000, 10_000), true),
                ((10_000, 2_500), false),
                ((2_500, 10_000), false),
                ((500, 500), true),
                ((100, 100), false),
            ] {
                let sound = after(70, &tones(digit, 480, 0.0, peaks));
                let heard = heard_in(Voice::Pcma, &sound);
                assert_eq!(!heard.is_empty(), is_heard, "{digit} {peaks:?} {heard}");
            }
        }
    }

    #[test]
    fn one_tone_alone_three_of_them_noise_and_speech_are_no_press() {
        let one: Vec<i16> = Tone::new(770.0, 8_000, 8_000).take(1_600).collect();
        let third = Tone::new(1_000.0, 8_000, 5_000);
        let three: Vec<i16> = tones('5', 1_600, 0.0, PEAKS)
            .into_iter()
            .zip(third)
            .map(|(a, b)| a + b)
            .collect();
        let mut state = 1_u32;
        let noise: Vec<i16> = (0..80_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 0x2000
            })
            .collect();
        // A voice that glides through pitches and formants.
        let mut phase = 0.0_f64;
        let speech: Vec<i16> = (0..400_000)
            .map(|n| {
                let t = f64::from(n) / 8_000.0;
                let pitch = 150.0 + 50.0 * (t * 0.9).sin();
                phase += std::f64::consts::TAU * pitch / 8_000.0;
                let formants = [600.0 + 300.0 * (t * 2.3).sin(), 1_500.0 + 400.0 * t.sin()];
                let harmonics: f64 = (1..24)
                    .map(|k| {
                        let far = formants.map(|it| (f64::from(k) * pitch - it) / 250.0);
                        let loud: f64 = far.iter().map(|it| (-it * it).exp()).sum();
                        (f64::from(k) * phase).sin() * (0.05 + loud)
                    })
                    .sum();
                (harmonics * 5_000.0) as i16
            })
            .collect();
        for (what, sound) in [
            ("one", one),
            ("three", three),
            ("noise", noise),
            ("speech", speech),
        ] {
            assert_eq!(heard_in(Voice::Pcmu, &sound), "", "{what}");
        }
    }

    /// What of a packet the listener goes by.
    const fn packet(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket {
            marker: false,
            payload_type: 8,
            sequence,
            timestamp,
            ssrc,
            payload,
        }
    }

    #[test]
    fn only_packets_that_go_on_are_listened_to() {
        let mut listener = ToneListener::default();
        for (ssrc, sequence, goes_on) in [
            (1, 65_534, true),
            (1, 65_535, true),
            (1, 65_535, false),
            (1, 1, true),
            (1, 0, false),
            (1, 2, true),
            (2, 65_500, true),
            (2, 65_501, true),
            (2, 40_000, true),
            (2, 39_999, false),
            (2, 40_001, true),
        ] {
            let heard = listener.goes_on(&packet(ssrc, sequence, 0, &[]));
            assert_eq!(heard.is_some(), goes_on, "{ssrc} {sequence}");
        }
    }

    #[test]
    fn a_leap_in_time_is_a_pause_unless_packets_are_missing() {
        let payload = [0xd5; 160];
        // Each of them from the packet 10 at 1,000, which lasts until 1,160.
        for (ssrc, sequence, timestamp, silence) in [
            (1, 11, 1_160, 0),
            (1, 11, 1_479, 0),
            (1, 11, 1_480, PAUSE),
            (1, 11, 900_000, PAUSE),
            (1, 11, 1_159 + 0x8000_0000, PAUSE),
            // Backwards.
            (1, 11, 1_160 + 0x8000_0000, 0),
            (1, 11, 999, 0),
            (1, 11, 1_159, 0),
            // Missing ones, or another source.
            (1, 12, 1_480, 0),
            (1, 13, 0x4000_0000, 0),
            (1, 40_000, 0x4000_0000, 0),
            (2, 11, 0x4000_0000, 0),
        ] {
            let mut listener = ToneListener::default();
            assert_eq!(listener.goes_on(&packet(1, 10, 1_000, &payload)), Some(0));
            let next = packet(ssrc, sequence, timestamp, &payload);
            assert_eq!(listener.goes_on(&next), Some(silence), "{next:?}");
        }
        let mut listener = ToneListener::default();
        listener.goes_on(&packet(1, 10, u32::MAX - 159, &payload));
        let next = packet(1, 11, 400, &payload);
        assert_eq!(listener.goes_on(&next), Some(PAUSE), "past its last tick");
    }

    #[test]
    fn the_silence_of_a_pause_ends_a_press_wherever_it_begins() {
        for voice in Voice::ALL {
            for length in 480..480 + HOP {
                let mut sound = tones('5', length, 0.0, PEAKS);
                sound.extend(vec![0; 40]);
                let (mut up, mut encoder) = (Upsampler::default(), Encoder::default());
                let mut listener = ToneListener::default();
                for sample in sound {
                    listener.hear(
                        voice,
                        match voice {
                            Voice::Pcmu => encode_ulaw(sample),
                            Voice::Pcma => encode_alaw(sample),
                            Voice::G722 => encoder.encode(up.push(sample)),
                        },
                    );
                }
                assert_eq!(listener.pressed(), Some('5'), "{voice:?} {length}");
                for _ in 0..PAUSE {
                    listener.hear_silence();
                }
                assert_eq!(listener.pressed(), None, "{voice:?} {length}");
            }
        }
    }
}
