//! Which codecs two parties have in common or can be helped to, and under which payload types each
//! knows them.

use maskline_media::{Carriage, PayloadMap, Side};
use serde::{Deserialize, Serialize};

use super::MediaDescription;
use super::codec::{ANNEX_B_NO, Codec, CodecName};
use super::transcoding::{Transcoding, alone, is_keys, keys_anew};

/// What both parties can do: two lists of the same length, codec by codec. First what passes
/// through, in the order of the party that answered; then what is transcoded, where the two codecs
/// of a pair differ; then a side's key presses with how the other side takes them, where they are
/// not common. One codec of a side may stand in several pairs: what it sends goes the way of the
/// first.
///
/// Each list is what *we* write towards that side: its own payload types, and the parameters that
/// the *other* party declared, for a parameter says what its writer wants to receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// For the answer to the caller.
    pub caller: Vec<Codec>,
    /// For a later offer to the callee.
    pub callee: Vec<Codec>,
    /// Whether the caller answered and the callee offered.
    #[serde(default)]
    pub caller_answered: bool,
    /// The payload types that we offered to the one that answered, codec by codec: it sends by
    /// them. Empty: those of [`towards_callee`].
    #[serde(default)]
    pub offered: Vec<u8>,
}

impl Negotiated {
    /// What we write towards a side, each codec once, voice first.
    #[must_use]
    pub fn codecs(&self, side: Side) -> Vec<Codec> {
        let all = match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        };
        let mut once: Vec<Codec> = Vec::with_capacity(all.len());
        for codec in all {
            if !once.iter().any(|it| it.is_same(codec)) {
                once.push(codec.clone());
            }
        }
        // Some parties take the first for the codec to speak.
        once.sort_by_key(|codec| !codec.name.is_voice());
        once
    }

    /// What a caller that offered nothing is offered: what the callee chose of our own offer.
    #[must_use]
    pub fn offered_late(&self, transcoding: Transcoding) -> Vec<Codec> {
        offered_to(&self.caller, None, transcoding)
    }

    /// Whether key presses that came by signalling can be played to a side: it knows telephone-event,
    /// or a codec in which tones may be made.
    #[must_use]
    pub fn takes_presses(&self, side: Side, transcoding: Transcoding) -> bool {
        let tones = transcoding != Transcoding::Off;
        self.codecs(side)
            .iter()
            .any(|codec| is_keys(codec) || tones && codec.name.transcodable().is_some())
    }

    /// The first voice codec.
    #[must_use]
    pub fn voice(&self) -> Option<CodecName> {
        let voice = self.callee.iter().find(|codec| codec.name.is_voice());
        voice.map(|codec| codec.name)
    }
}

/// What we offer when no party has described itself yet: an INVITE without an offer is answered by
/// an offer of ours that the callee chose from.
#[must_use]
pub fn defaults() -> Vec<Codec> {
    [
        CodecName::Pcmu,
        CodecName::Pcma,
        CodecName::G722,
        CodecName::TelephoneEvent,
    ]
    .into_iter()
    .map(|name| Codec::new(name, own_payload_type(name, 8_000), 8_000, None))
    .collect()
}

/// The codecs of one party's offer, for ours to the other: in the offer's order, under the payload
/// types by which the other knows them (RFC 3264 §8.3.2: they never change), else our own or, where
/// those are taken, the first free dynamic ones. Behind them comes what we can transcode to.
#[must_use]
pub fn offered_to(
    offer: &[Codec],
    known: Option<&MediaDescription>,
    transcoding: Transcoding,
) -> Vec<Codec> {
    let known = known.map_or(&[][..], |known| &known.codecs);
    let mut codecs: Vec<Codec> = Vec::new();
    for codec in offer.iter().chain(&transcoding.additions(offer)) {
        if codecs.iter().any(|other| other.is_same(codec)) {
            continue;
        }
        let free = |payload_type: &u8| {
            !known.iter().any(|it| it.payload_type == *payload_type)
                && !codecs.iter().any(|it| it.payload_type == *payload_type)
        };
        let theirs = known.iter().find(|it| it.is_same(codec));
        let own = || std::iter::once(own_payload_type(codec.name, codec.clock_rate));
        let Some(payload_type) = theirs
            .map(|it| it.payload_type)
            .or_else(|| own().chain(96..128).find(free))
        else {
            continue;
        };
        let fmtp = codec.fmtp.as_deref();
        codecs.push(Codec::new(codec.name, payload_type, codec.clock_rate, fmtp));
    }
    codecs
}

/// The same codecs by the payload types of who offered them to us, where the other party knows no others: for a
/// media engine that can't map numbers. What nobody has numbered takes what is left.
#[must_use]
pub fn numbered_as_offered(
    mut codecs: Vec<Codec>,
    offer: &[Codec],
    known: Option<&MediaDescription>,
) -> Vec<Codec> {
    let known = known.map_or(&[][..], |known| &known.codecs);
    let wanted = |codec: &Codec| {
        let theirs = known.iter().find(|it| it.is_same(codec));
        let offered = || {
            let offered = offer.iter().find(|it| it.is_same(codec))?;
            // RFC 3264 §8.3.2: what a number means never changes.
            let means = known
                .iter()
                .find(|it| it.payload_type == offered.payload_type);
            means.is_none().then_some(offered)
        };
        theirs.or_else(offered).map(|it| it.payload_type)
    };
    let taken: Vec<u8> = codecs.iter().filter_map(wanted).collect();
    let mut used: Vec<u8> = known.iter().map(|it| it.payload_type).collect();
    used.extend(&taken);
    for codec in &mut codecs {
        codec.payload_type = wanted(codec).unwrap_or_else(|| {
            let mut left = std::iter::once(codec.payload_type).chain(96..128);
            let free = left.find(|number| !used.contains(number));
            let number = free.unwrap_or(codec.payload_type);
            used.push(number);
            number
        });
    }
    codecs
}

/// As [`negotiate`], when `offerer` offered and the other side answered what we offered to it as
/// `offered`.
#[must_use]
pub fn between(
    offerer: Side,
    offer: &MediaDescription,
    offered: &[Codec],
    answer: &MediaDescription,
    transcoding: Transcoding,
) -> Option<Negotiated> {
    let mut agreed = negotiate(offer, answer, transcoding)?;
    agreed.offered = agreed
        .callee
        .iter()
        .map(|codec| {
            let ours = offered.iter().find(|it| it.is_same(codec));
            ours.map_or(codec.payload_type, |it| it.payload_type)
        })
        .collect();
    if offerer == Side::Callee {
        std::mem::swap(&mut agreed.caller, &mut agreed.callee);
        agreed.caller_answered = true;
    }
    Some(agreed)
}

/// The codecs to offer to the callee: the caller's, in the caller's order, under payload types of
/// our own (PCMU 0, PCMA 8, G722 9, CN 13, G729 18, telephone-event 101 at 8 kHz, 102 at 16 kHz and 103 at
/// 48 kHz, opus 111), so that the numbering does not tell the caller's device.
#[must_use]
pub fn towards_callee(offer: &MediaDescription, transcoding: Transcoding) -> Vec<Codec> {
    offered_to(&offer.codecs, None, transcoding)
}

/// What the caller's offer and the callee's answer have in common, same codec and same clock rate,
/// and what of the rest can be transcoded.
///
/// `None`: no common voice codec; key presses alone are no call.
#[must_use]
pub fn negotiate(
    caller_offer: &MediaDescription,
    callee_answer: &MediaDescription,
    transcoding: Transcoding,
) -> Option<Negotiated> {
    agree(&caller_offer.codecs, &callee_answer.codecs, transcoding)
}

/// As [`negotiate`], when the callee answered [`defaults`].
#[must_use]
pub fn negotiate_defaults(
    callee_answer: &MediaDescription,
    transcoding: Transcoding,
) -> Option<Negotiated> {
    agree(&defaults(), &callee_answer.codecs, transcoding)
}

fn agree(offer: &[Codec], answer: &[Codec], transcoding: Transcoding) -> Option<Negotiated> {
    let mut negotiated = Negotiated {
        caller: Vec::new(),
        callee: Vec::new(),
        caller_answered: false,
        offered: Vec::new(),
    };
    for callee in answer {
        let common = offer.iter().find(|caller| caller.is_same(callee));
        let Some(caller) =
            common.filter(|_| !negotiated.callee.iter().any(|it| it.is_same(callee)))
        else {
            continue;
        };
        negotiated.caller.push(towards(caller, callee));
        negotiated.callee.push(towards(callee, caller));
    }
    for callee in answer {
        if negotiated.callee.iter().any(|it| it.is_same(callee)) {
            continue;
        }
        if let Some(caller) = transcoding.partner(callee, offer) {
            negotiated.caller.push(alone(caller));
            negotiated.callee.push(alone(callee));
        }
    }
    if transcoding != Transcoding::Off && !negotiated.callee.iter().any(is_keys) {
        let pair = keys_anew((offer, &negotiated.caller), (answer, &negotiated.callee))
            .map(|(caller, callee)| (alone(caller), alone(callee)));
        if let Some((caller, callee)) = pair {
            negotiated.caller.push(caller);
            negotiated.callee.push(callee);
        }
    }
    negotiated
        .callee
        .iter()
        .any(|codec| codec.name.is_voice())
        .then_some(negotiated)
}

/// The payload maps of a negotiation for the media engine: the caller's side, the callee's side.
///
/// An answer may number a codec differently from our offer; its writer then sends by our number
/// and receives by its own (RFC 3264 §6.1). The side that answered therefore has an entry for
/// either number where they differ and ours is free. At most 16 entries a side.
#[must_use]
pub fn media_payloads(negotiated: &Negotiated) -> (Vec<PayloadMap>, Vec<PayloadMap>) {
    let maps = |here: &[Codec], there: &[Codec]| -> Vec<PayloadMap> {
        let mut maps: Vec<PayloadMap> = Vec::with_capacity(here.len());
        for (here, there) in here.iter().zip(there) {
            if !maps.iter().any(|known| known.here == here.payload_type) {
                maps.push(map(here, here.payload_type, there));
            }
        }
        maps
    };
    let mut caller = maps(&negotiated.caller, &negotiated.callee);
    let mut callee = maps(&negotiated.callee, &negotiated.caller);
    let (answered, answers, offers) = if negotiated.caller_answered {
        (&mut caller, &negotiated.caller, &negotiated.callee)
    } else {
        (&mut callee, &negotiated.callee, &negotiated.caller)
    };
    let own = |codec: &Codec| own_payload_type(codec.name, codec.clock_rate);
    for (at, (answer, offer)) in answers.iter().zip(offers).enumerate() {
        let offered = negotiated.offered.get(at).copied();
        let offered = offered.unwrap_or_else(|| own(answer));
        if !answered.iter().any(|entry| entry.here == offered) {
            answered.push(map(answer, offered, offer));
        }
    }
    if negotiated.caller_answered {
        // The callee answered an offer of ours before.
        for (callee_codec, caller_codec) in negotiated.callee.iter().zip(&negotiated.caller) {
            if !callee.iter().any(|entry| entry.here == own(callee_codec)) {
                callee.push(map(callee_codec, own(callee_codec), caller_codec));
            }
        }
    }
    (caller, callee)
}

fn map(codec: &Codec, here: u8, there: &Codec) -> PayloadMap {
    PayloadMap {
        here,
        there: there.payload_type,
        clock_rate: codec.clock_rate,
        telephone_event: codec.name == CodecName::TelephoneEvent,
        codec: codec.name.voice(),
        carriage: match (codec.name.transcodable(), there.name.transcodable()) {
            (Some(from), Some(to)) if from != to => Carriage::Transcoded { from, to },
            (Some(_) | None, Some(_) | None) if is_keys(codec) && !codec.is_same(there) => {
                Carriage::Anew
            }
            (Some(_) | None, Some(_) | None) => Carriage::AsIs,
        },
    }
}

/// `side`'s codec with the parameters of the other side's.
fn towards(side: &Codec, other: &Codec) -> Codec {
    // Comfort noise frames are off for both as soon as one says so (RFC 7261).
    let off = |codec: &Codec| codec.fmtp.as_deref() == Some(ANNEX_B_NO);
    let fmtp = if side.name == CodecName::G729 && off(side) {
        &side.fmtp
    } else {
        &other.fmtp
    };
    Codec {
        fmtp: fmtp.clone(),
        ..side.clone()
    }
}

const fn own_payload_type(name: CodecName, clock_rate: u32) -> u8 {
    match (name, clock_rate) {
        (CodecName::Pcmu, _) => 0,
        (CodecName::Pcma, _) => 8,
        (CodecName::G722, _) => 9,
        (CodecName::ComfortNoise, _) => 13,
        (CodecName::G729, _) => 18,
        (CodecName::Opus, _) => 111,
        (CodecName::TelephoneEvent, 16_000) => 102,
        (CodecName::TelephoneEvent, 48_000) => 103,
        (CodecName::TelephoneEvent, _) => 101,
    }
}
