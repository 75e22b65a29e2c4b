//! The voice codecs that are understood here, all of them 64 kbit/s: an octet each 125 µs.
//!
//! What lives elsewhere: turning one into another ([`crate::transcode`]), which of them two
//! parties speak (`maskline-switch`).

pub mod g711;
pub mod g722;
pub mod half_band;

use crate::emodel::VoiceCodec;

/// A voice codec whose audio can be turned into that of another. The RTP clock of each runs at
/// 8000 Hz, also G.722's, which samples at 16 kHz (RFC 3551 §4.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Voice {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
}

impl Voice {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pcmu, Self::Pcma, Self::G722];

    /// The codec as it is understood here; `None`: it is not.
    #[must_use]
    pub const fn of(codec: VoiceCodec) -> Option<Self> {
        match codec {
            VoiceCodec::Pcmu => Some(Self::Pcmu),
            VoiceCodec::Pcma => Some(Self::Pcma),
            VoiceCodec::G722 => Some(Self::G722),
            VoiceCodec::G729 | VoiceCodec::Opus => None,
        }
    }
}
