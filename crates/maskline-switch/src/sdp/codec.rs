//! The codecs that pass through the relay: their names, static payload types and the parameters
//! that may be passed on with them.

use std::fmt::Write as _;

use maskline_media::{Voice, VoiceCodec};
use serde::{Deserialize, Serialize};

use super::parse::number;

/// A codec that can be passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CodecName {
    /// G.711 µ-law (RFC 3551 §4.5.14).
    Pcmu,
    /// G.711 A-law (RFC 3551 §4.5.14).
    Pcma,
    /// G.722, whose RTP clock runs at 8000 Hz for historical reasons (RFC 3551 §4.5.2).
    G722,
    /// G.729 (RFC 3551 §4.5.6).
    G729,
    /// Opus (RFC 7587).
    Opus,
    /// Key presses (RFC 4733): no voice.
    TelephoneEvent,
    /// What stands for silence beside a codec of 8 kHz (RFC 3389): no voice.
    ComfortNoise,
}

/// A codec under one party's payload type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// Which.
    pub name: CodecName,
    /// 0-127.
    pub payload_type: u8,
    /// The RTP clock in Hz.
    pub clock_rate: u32,
    /// Parameters (RFC 8866 §6.15): known names and values in range only, in our own order and
    /// spelling. Read again through the same sieve when it is written.
    pub fmtp: Option<String>,
}

impl Codec {
    /// A codec with parameters as a party wrote them, of which only the known ones stay.
    #[must_use]
    pub fn new(name: CodecName, payload_type: u8, clock_rate: u32, fmtp: Option<&str>) -> Self {
        Self {
            name,
            payload_type,
            clock_rate,
            fmtp: known_parameters(name, fmtp),
        }
    }

    /// Whether both are the same codec at the same clock rate, whatever their payload types.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.clock_rate == other.clock_rate
    }
}

impl CodecName {
    /// The codec as what is measured of it knows it; `None`: no voice.
    #[must_use]
    pub const fn voice(self) -> Option<VoiceCodec> {
        match self {
            Self::Pcmu => Some(VoiceCodec::Pcmu),
            Self::Pcma => Some(VoiceCodec::Pcma),
            Self::G722 => Some(VoiceCodec::G722),
            Self::G729 => Some(VoiceCodec::G729),
            Self::Opus => Some(VoiceCodec::Opus),
            Self::TelephoneEvent | Self::ComfortNoise => None,
        }
    }

    /// Whether it carries voice: all but key presses and comfort noise.
    #[must_use]
    pub const fn is_voice(self) -> bool {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::G729 | Self::Opus => true,
            Self::TelephoneEvent | Self::ComfortNoise => false,
        }
    }

    /// The codec as the relay can turn it into another; `None`: it is passed through or not at all.
    #[must_use]
    pub const fn transcodable(self) -> Option<Voice> {
        match self {
            Self::Pcmu => Some(Voice::Pcmu),
            Self::Pcma => Some(Voice::Pcma),
            Self::G722 => Some(Voice::G722),
            Self::G729 | Self::Opus | Self::TelephoneEvent | Self::ComfortNoise => None,
        }
    }

    /// As `a=rtpmap` spells it.
    pub(super) const fn encoding(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::G729 => "G729",
            Self::Opus => "opus",
            Self::TelephoneEvent => "telephone-event",
            Self::ComfortNoise => "CN",
        }
    }

    /// How many channels `a=rtpmap` names: Opus always says two (RFC 7587 §7).
    pub(super) const fn channels(self) -> u8 {
        match self {
            Self::Opus => 2,
            Self::Pcmu
            | Self::Pcma
            | Self::G722
            | Self::G729
            | Self::TelephoneEvent
            | Self::ComfortNoise => 1,
        }
    }

    /// The clock rates that we pass on.
    const fn clock_rates(self) -> &'static [u32] {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::G729 | Self::ComfortNoise => &[8_000],
            Self::Opus => &[48_000],
            Self::TelephoneEvent => &[8_000, 16_000, 48_000],
        }
    }

    const ALL: [Self; 7] = [
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::G729,
        Self::Opus,
        Self::TelephoneEvent,
        Self::ComfortNoise,
    ];
}

/// Reads an `a=rtpmap` encoding such as `opus/48000/2`; names in any case (RFC 8866 §6.6).
pub(super) fn read_encoding(encoding: &str) -> Option<(CodecName, u32)> {
    let mut parts = encoding.split('/');
    let (written, clock_rate) = (parts.next()?, number::<u32>(parts.next()?)?);
    let channels = parts.next().map_or(Some(1), number::<u8>)?;
    let name = CodecName::ALL
        .into_iter()
        .find(|name| written.eq_ignore_ascii_case(name.encoding()))?;
    let known = name.clock_rates().contains(&clock_rate) && name.channels() == channels;
    (known && parts.next().is_none()).then_some((name, clock_rate))
}

/// What a payload type means without an `a=rtpmap` (RFC 3551 §6).
pub(super) const fn static_codec(payload_type: u8) -> Option<(CodecName, u32)> {
    match payload_type {
        0 => Some((CodecName::Pcmu, 8_000)),
        8 => Some((CodecName::Pcma, 8_000)),
        9 => Some((CodecName::G722, 8_000)),
        13 => Some((CodecName::ComfortNoise, 8_000)),
        18 => Some((CodecName::G729, 8_000)),
        _ => None,
    }
}

/// Opus parameters that are passed on, with the least and the largest value (RFC 7587 §6.1).
const OPUS_PARAMETERS: [(&str, u32, u32); 9] = [
    ("maxplaybackrate", 8_000, 48_000),
    ("sprop-maxcapturerate", 8_000, 48_000),
    ("minptime", 3, 120),
    ("maxaveragebitrate", 6_000, 510_000),
    ("stereo", 0, 1),
    ("sprop-stereo", 0, 1),
    ("cbr", 0, 1),
    ("useinbandfec", 0, 1),
    ("usedtx", 0, 1),
];

/// The G.729 parameter that turns comfort noise frames off (RFC 7261).
pub(super) const ANNEX_B_NO: &str = "annexb=no";

/// The known parameters of a codec in our own spelling; `None` where none is left.
///
/// Key presses are always `0-15`, also where the party names more events or none: the sixteen
/// keys are what is passed on.
pub(super) fn known_parameters(name: CodecName, fmtp: Option<&str>) -> Option<String> {
    match name {
        CodecName::Pcmu | CodecName::Pcma | CodecName::G722 | CodecName::ComfortNoise => None,
        CodecName::TelephoneEvent => Some("0-15".to_owned()),
        CodecName::G729 => {
            let value = parameter(fmtp?, "annexb")?;
            if value.eq_ignore_ascii_case("no") {
                Some(ANNEX_B_NO.to_owned())
            } else {
                value
                    .eq_ignore_ascii_case("yes")
                    .then(|| "annexb=yes".to_owned())
            }
        }
        CodecName::Opus => {
            let fmtp = fmtp?;
            let mut known = String::new();
            for (parameter_name, least, largest) in OPUS_PARAMETERS {
                let value = parameter(fmtp, parameter_name).and_then(number::<u32>);
                if let Some(value) = value.filter(|value| (least..=largest).contains(value)) {
                    let separator = if known.is_empty() { "" } else { ";" };
                    // Writing to a String cannot fail.
                    let _ = write!(known, "{separator}{parameter_name}={value}");
                }
            }
            (!known.is_empty()).then_some(known)
        }
    }
}

/// The value of the first `name=value` among parameters separated by semicolons.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
