//! A phone's voice: a tone every 20 ms and key presses out, what was heard of the other party in.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use maskline_media::codec::g711;
use maskline_media::dtmf::{self, TelephoneEvent};
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::{self, Tone};
use maskline_switch::sdp::{CodecName, MediaDescription};

/// Packets are this far apart.
pub const PACKET_INTERVAL: Duration = Duration::from_millis(20);
/// Samples of a packet at 8 kHz.
const PACKET_SAMPLES: u16 = 160;
/// Loudness of the tone.
const AMPLITUDE: i16 = 8_000;
/// Samples that a tone is looked for in: 200 ms.
const HEARD_SAMPLES: usize = 1_600;
/// Packets of one key press while the key is down.
const PRESS_PACKETS: u16 = 5;
/// The end of a press is said three times (RFC 4733 §2.5.1.4).
const RELEASE_PACKETS: u16 = 3;

/// What a phone says and listens for.
#[derive(Clone, Copy, Debug)]
pub struct Audio {
    /// The tone that it sends.
    pub says_hz: f64,
    /// The tone that it expects.
    pub hears_hz: f64,
}

/// Which G.711 law is spoken.
#[derive(Clone, Copy, Debug)]
enum Law {
    Mu,
    A,
}

impl Law {
    const fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => g711::encode_ulaw(sample),
            Self::A => g711::encode_alaw(sample),
        }
    }

    const fn decode(self, byte: u8) -> i16 {
        match self {
            Self::Mu => g711::decode_ulaw(byte),
            Self::A => g711::decode_alaw(byte),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Press {
    code: u8,
    started: u32,
    sent: u16,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Speaker {
    to: SocketAddr,
    law: Law,
    payload_type: u8,
    event_type: Option<u8>,
    tone: Tone,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    keys: VecDeque<u8>,
    press: Option<Press>,
    pub(crate) silent: bool,
}

impl Speaker {
    /// Speaks to what the other side described; `None`: no codec of ours is in it.
    pub(crate) fn new(audio: Audio, remote: &MediaDescription, ssrc: u32) -> Option<Self> {
        let voice = remote.codecs.iter().find_map(|codec| match codec.name {
            CodecName::Pcmu => Some((Law::Mu, codec.payload_type)),
            CodecName::Pcma => Some((Law::A, codec.payload_type)),
            CodecName::G722
            | CodecName::G729
            | CodecName::Opus
            | CodecName::TelephoneEvent
            | CodecName::ComfortNoise => None,
        })?;
        let event_type = remote
            .codecs
            .iter()
            .find(|codec| codec.name == CodecName::TelephoneEvent && codec.clock_rate == 8_000)
            .map(|codec| codec.payload_type);
        Some(Self {
            to: remote.rtp,
            law: voice.0,
            payload_type: voice.1,
            event_type,
            tone: Tone::new(audio.says_hz, 8_000, AMPLITUDE),
            ssrc,
            sequence: (ssrc >> 16) as u16,
            timestamp: ssrc.rotate_left(7),
            keys: VecDeque::new(),
            press: None,
            silent: !remote.direction.receives(),
        })
    }

    pub(crate) fn press(&mut self, key: char) {
        if let Some(code) = dtmf::code(key) {
            self.keys.push_back(code);
        }
    }

    /// The packet of this 20 ms, if one is due.
    pub(crate) fn next_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        let timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(u32::from(PACKET_SAMPLES));
        if self.silent {
            return None;
        }
        if self.press.is_none() {
            self.press = self.keys.pop_front().map(|code| Press {
                code,
                started: timestamp,
                sent: 0,
            });
        }
        let (payload_type, marker, stamp, payload) = match (self.press.as_mut(), self.event_type) {
            (Some(press), Some(event_type)) => {
                press.sent += 1;
                let event = TelephoneEvent {
                    code: press.code,
                    end: press.sent > PRESS_PACKETS,
                    volume: 10,
                    duration: press.sent.min(PRESS_PACKETS).saturating_mul(PACKET_SAMPLES),
                };
                let part = (
                    event_type,
                    press.sent == 1,
                    press.started,
                    event.to_bytes().to_vec(),
                );
                if press.sent == PRESS_PACKETS + RELEASE_PACKETS {
                    self.press = None;
                }
                part
            }
            _ => {
                self.press = None;
                let law = self.law;
                let samples = self.tone.by_ref().take(usize::from(PACKET_SAMPLES));
                let voice = samples.map(|sample| law.encode(sample)).collect();
                (self.payload_type, false, timestamp, voice)
            }
        };
        let packet = RtpPacket {
            marker,
            payload_type,
            sequence: self.sequence,
            timestamp: stamp,
            ssrc: self.ssrc,
            payload: &payload,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(172);
        packet.write(&mut datagram);
        Some((self.to, Bytes::from(datagram)))
    }
}

/// The receiving half. It hears what this phone itself offered: PCMU 0, PCMA 8, events 101.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    heard: VecDeque<i16>,
    last_press: Option<u32>,
}

impl Listener {
    /// Takes a packet. `None`: it is none of ours; else the key that it reports first.
    pub(crate) fn hear(&mut self, datagram: &[u8]) -> Option<Option<char>> {
        let packet = RtpPacket::parse(datagram).ok()?;
        let law = match packet.payload_type {
            0 => Law::Mu,
            8 => Law::A,
            crate::speech::EVENT_TYPE => {
                let event = TelephoneEvent::from_bytes(*packet.payload.first_chunk::<4>()?);
                let first = self.last_press != Some(packet.timestamp);
                self.last_press = Some(packet.timestamp);
                return Some(dtmf::digit(event.code).filter(|_| first));
            }
            _ => return None,
        };
        self.heard
            .extend(packet.payload.iter().map(|byte| law.decode(*byte)));
        let surplus = self.heard.len().saturating_sub(HEARD_SAMPLES);
        self.heard.drain(..surplus);
        Some(None)
    }

    /// The share of a tone in the last 200 ms.
    pub(crate) fn share_of(&self, frequency_hz: f64) -> f64 {
        let samples: Vec<i16> = self.heard.iter().copied().collect();
        tone::tone_share(&samples, frequency_hz, 8_000)
    }
}
