//! A phone's own description of its audio: PCMU, PCMA, key presses. Written here and not by the
//! switch's writer, and with everything in it that a real phone gives away.

use std::net::SocketAddr;

use maskline_media::Voice;
use maskline_switch::sdp::{CodecName, MediaDescription};

use crate::plan::Manners;

/// Our payload type for key presses.
pub(crate) const EVENT_TYPE: u8 = 101;

/// Which codecs a description names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    /// Payload type of PCMU.
    pcmu: Option<u8>,
    /// Payload type of PCMA.
    pcma: Option<u8>,
    /// Payload type of key presses.
    events: Option<u8>,
}

impl Named {
    /// Everything that the phone can do.
    pub(crate) const ALL: Self = Self {
        pcmu: Some(0),
        pcma: Some(8),
        events: Some(EVENT_TYPE),
    };

    /// What a phone of these manners can do. It has no G.722.
    pub(crate) const fn of(manners: &Manners) -> Self {
        let voice = match manners.only {
            None | Some(Voice::G722) => Self::ALL,
            Some(Voice::Pcmu) => Self::PCMU,
            Some(Voice::Pcma) => Self::PCMA,
        };
        let events = if manners.lacks_events {
            None
        } else {
            voice.events
        };
        Self { events, ..voice }
    }

    /// PCMU alone.
    pub(crate) const PCMU: Self = Self {
        pcma: None,
        ..Self::ALL
    };

    /// PCMA alone.
    pub(crate) const PCMA: Self = Self {
        pcmu: None,
        ..Self::ALL
    };

    /// What an answer names of an offer: our codecs under the offer's numbers (RFC 3264 §6.1).
    pub(crate) fn common(self, offer: &MediaDescription) -> Option<Self> {
        let number = |own: Option<u8>, name| {
            let named = |codec: &&maskline_switch::sdp::Codec| {
                codec.name == name && codec.clock_rate == 8_000
            };
            let offered = offer.codecs.iter().find(named);
            own.and(offered).map(|codec| codec.payload_type)
        };
        let common = Self {
            pcmu: number(self.pcmu, CodecName::Pcmu),
            pcma: number(self.pcma, CodecName::Pcma),
            events: number(self.events, CodecName::TelephoneEvent),
        };
        (common.pcmu.is_some() || common.pcma.is_some()).then_some(common)
    }
}

/// A description: session-level words carry the phone's mark.
pub(crate) fn describe(
    mark: &str,
    media: SocketAddr,
    version: u32,
    named: Named,
    direction: &str,
) -> String {
    let host = media.ip();
    let port = media.port();
    let family = if host.is_ipv4() { "IP4" } else { "IP6" };
    let mut formats = String::new();
    let mut maps = String::new();
    for (payload_type, map) in [
        (named.pcmu, "PCMU/8000"),
        (named.pcma, "PCMA/8000"),
        (named.events, "telephone-event/8000"),
    ] {
        if let Some(payload_type) = payload_type {
            formats.push_str(&format!(" {payload_type}"));
            maps.push_str(&format!("a=rtpmap:{payload_type} {map}\r\n"));
        }
    }
    if let Some(events) = named.events {
        maps.push_str(&format!("a=fmtp:{events} 0-15\r\n"));
    }
    format!(
        "v=0\r\no={mark} 1 {version} IN {family} {host}\r\ns={mark}\r\nc=IN {family} {host}\r\nt=0 0\r\n\
         a=tool:{mark}\r\nm=audio {port} RTP/AVP{formats}\r\n{maps}a=ptime:20\r\na={direction}\r\n"
    )
}
