//! What the relay adds to what two parties have in common: codecs that it turns into one another.
//!
//! PCMA, PCMU and G.722 are transcoded, and key presses are made anew: as tones for a party that knows no
//! telephone-event, as events at its own clock rate for another. Where both parties know a codec, it
//! passes through; what is transcoded comes behind it.

use maskline_media::Voice;

use super::codec::{Codec, CodecName, known_parameters};

/// Whether parties without a common codec are helped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcoding {
    /// What the parties have not in common, they can't use.
    Off,
    /// Our offers name what we can transcode to, behind what the offering party named.
    #[default]
    On,
    /// The same, and key presses are listened for in the offering party's audio: our offers name
    /// telephone-event as well.
    Listening,
}

impl From<bool> for Transcoding {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// What we can transcode to, best first.
const TARGETS: [CodecName; 3] = [CodecName::Pcma, CodecName::Pcmu, CodecName::G722];

impl Transcoding {
    /// What an offer of these codecs may name beyond them.
    pub(super) fn additions(self, offer: &[Codec]) -> Vec<Codec> {
        let helps = offer
            .iter()
            .any(|codec| codec.name.transcodable().is_some());
        match self {
            Self::On | Self::Listening if helps => {
                // Who is offered telephone-event need not listen for tones, so we have to.
                let keys = self == Self::Listening && !offer.iter().any(is_keys);
                TARGETS
                    .into_iter()
                    .filter(|name| !offer.iter().any(|codec| codec.name == *name))
                    .chain(keys.then_some(CodecName::TelephoneEvent))
                    .map(|name| Codec::new(name, 0, 8_000, None))
                    .collect()
            }
            Self::On | Self::Listening | Self::Off => Vec::new(),
        }
    }

    /// The codec of `offer` that an answered codec is turned into, which the offer has not.
    /// Among the two kinds of G.711 nothing is lost; beyond that, the offer's order decides.
    pub(super) fn partner<'a>(self, answered: &Codec, offer: &'a [Codec]) -> Option<&'a Codec> {
        let wanted = match self {
            Self::On | Self::Listening => answered.name.transcodable()?,
            Self::Off => return None,
        };
        let others = || {
            offer
                .iter()
                .filter(|codec| codec.name.transcodable().is_some())
        };
        let as_narrow = |codec: &&Codec| {
            wanted != Voice::G722 && codec.name.transcodable() != Some(Voice::G722)
        };
        others().find(as_narrow).or_else(|| others().next())
    }
}

/// The key presses of two sides that have none in common: each side's telephone-event, or the voice
/// codec in which it hears tones. A side is what it described, and what of that is in use. `None`:
/// neither has any, or the other takes none.
pub(super) fn keys_anew<'a>(
    caller: (&'a [Codec], &'a [Codec]),
    callee: (&'a [Codec], &'a [Codec]),
) -> Option<(&'a Codec, &'a Codec)> {
    let keys = |(described, _): (&'a [Codec], _)| {
        let events = described.iter().filter(|it| is_keys(it));
        events.min_by_key(|it| it.clock_rate)
    };
    let voice = |(_, in_use): (_, &'a [Codec])| {
        in_use
            .iter()
            .find(|codec| codec.name.transcodable().is_some())
    };
    match (keys(caller), keys(callee)) {
        (Some(caller), Some(callee)) => Some((caller, callee)),
        (Some(caller), None) => Some((caller, voice(callee)?)),
        (None, Some(callee)) => Some((voice(caller)?, callee)),
        (None, None) => None,
    }
}

/// Whether this is telephone-event.
pub(super) fn is_keys(codec: &Codec) -> bool {
    codec.name == CodecName::TelephoneEvent
}

/// A codec as it is written to its side when the other side's is another one.
pub(super) fn alone(codec: &Codec) -> Codec {
    Codec {
        fmtp: known_parameters(codec.name, None),
        ..codec.clone()
    }
}
