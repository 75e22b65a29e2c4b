//! Which codecs two parties have in common, and under which payload types each knows them.

use maskline_media::PayloadMap;
use serde::{Deserialize, Serialize};

use super::MediaDescription;
use super::codec::{ANNEX_B_NO, Codec, CodecName};

/// What both parties can do: two lists of the same length, codec by codec, in the callee's order
/// of preference.
///
/// Each list is what *we* write towards that side: its own payload types, and the parameters that
/// the *other* party declared, for a parameter says what its writer wants to receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// For the answer to the caller.
    pub caller: Vec<Codec>,
    /// For a later offer to the callee.
    pub callee: Vec<Codec>,
}

/// The codecs to offer to the callee: the caller's, in the caller's order, under payload types of
/// our own (PCMU 0, PCMA 8, G722 9, G729 18, telephone-event 101 at 8 kHz, 102 at 16 kHz and 103 at
/// 48 kHz, opus 111), so that the numbering does not tell the caller's device.
#[must_use]
pub fn towards_callee(offer: &MediaDescription) -> Vec<Codec> {
    let mut codecs: Vec<Codec> = Vec::new();
    for codec in &offer.codecs {
        if !codecs.iter().any(|other| other.is_same(codec)) {
            let payload_type = own_payload_type(codec.name, codec.clock_rate);
            let fmtp = codec.fmtp.as_deref();
            codecs.push(Codec::new(codec.name, payload_type, codec.clock_rate, fmtp));
        }
    }
    codecs
}

/// What the caller's offer and the callee's answer have in common: same codec, same clock rate.
///
/// `None`: no common voice codec; key presses alone are no call.
#[must_use]
pub fn negotiate(
    caller_offer: &MediaDescription,
    callee_answer: &MediaDescription,
) -> Option<Negotiated> {
    let mut negotiated = Negotiated {
        caller: Vec::new(),
        callee: Vec::new(),
    };
    for callee in &callee_answer.codecs {
        let common = caller_offer
            .codecs
            .iter()
            .find(|caller| caller.is_same(callee));
        let Some(caller) =
            common.filter(|_| !negotiated.callee.iter().any(|it| it.is_same(callee)))
        else {
            continue;
        };
        negotiated.caller.push(towards(caller, callee));
        negotiated.callee.push(towards(callee, caller));
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
/// and receives by its own (RFC 3264 §6.1). The callee's side therefore has an entry for either
/// number where they differ and ours is free. At most 16 entries a side.
#[must_use]
pub fn media_payloads(negotiated: &Negotiated) -> (Vec<PayloadMap>, Vec<PayloadMap>) {
    let pairs = || negotiated.caller.iter().zip(&negotiated.callee);
    let caller = pairs()
        .map(|(caller, callee)| map(caller, caller.payload_type, callee))
        .collect();
    let mut callee: Vec<PayloadMap> = pairs()
        .map(|(caller, callee)| map(callee, callee.payload_type, caller))
        .collect();
    for (theirs, ours) in pairs() {
        let offered = own_payload_type(ours.name, ours.clock_rate);
        if !callee.iter().any(|entry| entry.here == offered) {
            callee.push(map(ours, offered, theirs));
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
        (CodecName::G729, _) => 18,
        (CodecName::Opus, _) => 111,
        (CodecName::TelephoneEvent, 16_000) => 102,
        (CodecName::TelephoneEvent, 48_000) => 103,
        (CodecName::TelephoneEvent, _) => 101,
    }
}
