//! The far ends of the trunks' supervision: who answers OPTIONS, and when not.

use bytes::Bytes;
use maskline_media::Tick;
use maskline_switch::sip::{Message, Peer, compose, wire};

use crate::network::Wire;
use crate::scenario::SupervisionPlan;
use crate::wire::{Glance, Kind};

/// Whether a message is OPTIONS to an address; one within a dialog is its phone's.
pub(crate) fn is_question(bytes: &Bytes) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let glance = Glance::at(&text);
    glance.kind == Kind::Request("OPTIONS") && glance.to_tag.is_none()
}

/// The answer of a way to a callee to OPTIONS; `Ok(None)`: it says nothing.
///
/// # Errors
/// What is wrong with the question.
pub(crate) fn answer(
    plan: Option<&SupervisionPlan>,
    now: Tick,
    wire: Wire,
    peer: Peer,
    bytes: &Bytes,
) -> Result<Option<Bytes>, String> {
    let Some(plan) = plan else {
        return Err("an address that is not supervised was asked".to_owned());
    };
    let Ok(Message::Request(request)) = wire::read_datagram(bytes, peer) else {
        return Err("the question does not read".to_owned());
    };
    let time = now.since_start();
    let outage = plan.outages.iter().find(|outage| {
        outage.line.is_none_or(|line| line == wire.line)
            && outage.call.is_none_or(|call| call == wire.call)
            && (outage.from..outage.to).contains(&time)
    });
    let status = match outage {
        None => 200,
        Some(outage) if outage.silent => return Ok(None),
        Some(_) => 503,
    };
    let answer = compose::response(&request, status, Some("supervised"), &[], None)
        .ok_or("no answer to OPTIONS can be built")?;
    Ok(Some(Message::Response(answer).to_bytes()))
}
