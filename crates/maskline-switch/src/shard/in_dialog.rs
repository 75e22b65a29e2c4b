//! Requests inside a dialog that change the call without ending it: re-INVITE, UPDATE, key presses.
//!
//! They are answered by us and not passed on: each side's media ends at the relay.

use maskline_events::{CallStatus, Update};
use maskline_media::Side;

use super::Shard;
use super::record::Detail;
use crate::sdp::{self, Codec, CodecName, MediaDescription, Negotiated};
use crate::session::{Session, Stage};
use crate::sip::{HeaderName, Request, TxId, compose};

impl Shard {
    pub(super) fn on_reinvite(&mut self, tx: TxId, invite: &Request) {
        let Some((key, side)) = self.dialog_of(invite) else {
            self.count("no_such_dialog");
            self.refuse(tx, invite, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, invite) {
                return;
            }
            if s.stage != Stage::Connected || s.party(side).pending_2xx.is_some() {
                // RFC 3261 §14.2: one at a time.
                let retry = (HeaderName::RetryAfter, "1".to_owned());
                shard.respond(tx, invite, 500, None, &[retry]);
                return;
            }
            let Some(local_tag) = s.party(side).dialog.as_ref().map(|d| d.local_tag.clone()) else {
                return;
            };
            if invite.body().is_empty() {
                // An INVITE without an offer: we offer what is in use, the ACK brings the answer.
                match shard.current_offer(s, side) {
                    Some(sdp) => shard.accept(s, side, tx, &local_tag, &sdp, true),
                    None => shard.respond(tx, invite, 500, None, &[]),
                }
            } else {
                match sdp::parse(invite.body())
                    .ok()
                    .and_then(|offer| shard.answer_offer(s, side, offer))
                {
                    Some(sdp) => shard.accept(s, side, tx, &local_tag, &sdp, false),
                    None => {
                        shard.respond(tx, invite, 488, None, &[]);
                        return;
                    }
                }
            }
            if let Some(dialog) = s.party_mut(side).dialog.as_mut() {
                dialog.refresh_target(&invite.headers);
            }
            shard.save(s);
        });
    }

    pub(super) fn on_update(&mut self, tx: TxId, update: &Request) {
        let Some((key, side)) = self.dialog_of(update) else {
            self.count("no_such_dialog");
            self.refuse(tx, update, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, update) {
                return;
            }
            let contact = (
                HeaderName::Contact,
                shard
                    .sent_by(
                        s.party(side)
                            .dialog
                            .as_ref()
                            .map_or(s.caller_invite.peer, |d| d.peer),
                    )
                    .contact(),
            );
            let sdp = if update.body().is_empty() {
                None
            } else if s.stage != Stage::Connected || s.party(side).pending_2xx.is_some() {
                let retry = (HeaderName::RetryAfter, "1".to_owned());
                shard.respond(tx, update, 500, None, &[retry]);
                return;
            } else {
                let answered = sdp::parse(update.body())
                    .ok()
                    .and_then(|offer| shard.answer_offer(s, side, offer));
                if answered.is_none() {
                    shard.respond(tx, update, 488, None, &[]);
                    return;
                }
                answered
            };
            if let Some(dialog) = s.party_mut(side).dialog.as_mut() {
                dialog.refresh_target(&update.headers);
            }
            if let Some(response) = compose::response(update, 200, None, &[contact], sdp.as_deref())
            {
                shard.transactions.respond(shard.now.tick, tx, response);
            }
            if s.stage == Stage::Connected {
                shard.save(s);
            }
        });
    }

    /// Takes the `CSeq` of a request in a dialog; answers it itself when that is out of order.
    fn take_in_dialog(&mut self, s: &mut Session, side: Side, tx: TxId, request: &Request) -> bool {
        let in_order = s
            .party_mut(side)
            .dialog
            .as_mut()
            .is_some_and(|dialog| dialog.take_remote_cseq(&request.headers));
        if !in_order {
            self.count("cseq_out_of_order");
            self.respond(tx, request, 500, None, &[]);
        }
        in_order
    }

    /// Our answer to a new offer of one party; `None`: no voice codec that is in use is offered any
    /// more.
    fn answer_offer(
        &mut self,
        s: &mut Session,
        side: Side,
        offer: MediaDescription,
    ) -> Option<String> {
        let port = port_towards(s, side)?;
        if !self.take_description(s, side, offer) {
            return None;
        }
        s.party_mut(side).sdp_version += 1;
        let offer = s.party(side).described.as_ref()?;
        Some(sdp::write_answer(
            &self.local(s, side, port),
            offer,
            codecs_of(s.negotiated.as_ref()?, side),
            offer.ptime_ms,
            offer.direction.answered(),
        ))
    }

    fn current_offer(&mut self, s: &mut Session, side: Side) -> Option<String> {
        let port = port_towards(s, side)?;
        s.party_mut(side).sdp_version += 1;
        Some(sdp::write_offer(
            &self.local(s, side, port),
            codecs_of(s.negotiated.as_ref()?, side),
            None,
            sdp::Direction::SendRecv,
        ))
    }

    /// Takes a party's new description: programs the relay and records what changed. `false`, and
    /// nothing is changed, when it shares no voice codec with what is in use.
    pub(super) fn take_description(
        &mut self,
        s: &mut Session,
        side: Side,
        new: MediaDescription,
    ) -> bool {
        let Some(renegotiated) = s
            .negotiated
            .as_ref()
            .and_then(|current| renegotiate(current, side, &new))
        else {
            return false;
        };
        let moved = s
            .party(side)
            .described
            .as_ref()
            .is_some_and(|old| old.rtp != new.rtp)
            || s.negotiated
                .as_ref()
                .is_some_and(|old| voice_of(old, side) != voice_of(&renegotiated, side));
        let holds = matches!(
            new.direction,
            sdp::Direction::SendOnly | sdp::Direction::Inactive
        );
        let held_before = std::mem::replace(&mut s.party_mut(side).holding, holds);
        s.party_mut(side).described = Some(new);
        s.negotiated = Some(renegotiated);
        self.program(s);
        let update = match (held_before, holds) {
            (false, true) => Some(Update::Held),
            (true, false) => Some(Update::Resumed),
            _ => moved.then_some(Update::Media),
        };
        if let Some(update) = update {
            self.record(s, side, CallStatus::CallUpdated, Detail::update(update));
        }
        true
    }

    pub(super) fn on_dtmf(&mut self, s: &mut Session, side: Side, digit: char) {
        if !s.is_live(side) {
            return;
        }
        self.record(s, side, CallStatus::DtmfReceived, Detail::dtmf(digit));
        self.save(s);
    }
}

const fn port_towards(s: &Session, side: Side) -> Option<u16> {
    match (s.media_ports(), side) {
        (Some((caller_port, _)), Side::Caller) => Some(caller_port),
        (Some((_, callee_port)), Side::Callee) => Some(callee_port),
        (None, _) => None,
    }
}

fn codecs_of(negotiated: &Negotiated, side: Side) -> &[Codec] {
    match side {
        Side::Caller => &negotiated.caller,
        Side::Callee => &negotiated.callee,
    }
}

fn voice_of(negotiated: &Negotiated, side: Side) -> Option<CodecName> {
    codecs_of(negotiated, side)
        .iter()
        .find(|codec| is_voice(codec))
        .map(|codec| codec.name)
}

fn is_voice(codec: &Codec) -> bool {
    codec.name != CodecName::TelephoneEvent
}

/// What stays of the pairs in use when one party describes itself anew, under the payload types
/// that it names now.
fn renegotiate(current: &Negotiated, side: Side, new: &MediaDescription) -> Option<Negotiated> {
    let mut kept = Negotiated {
        caller: Vec::new(),
        callee: Vec::new(),
    };
    for (caller, callee) in current.caller.iter().zip(&current.callee) {
        let mine = match side {
            Side::Caller => caller,
            Side::Callee => callee,
        };
        let Some(named) = new
            .codecs
            .iter()
            .find(|codec| codec.name == mine.name && codec.clock_rate == mine.clock_rate)
        else {
            continue;
        };
        match side {
            Side::Caller => {
                kept.caller.push(named.clone());
                kept.callee.push(callee.clone());
            }
            Side::Callee => {
                kept.caller.push(caller.clone());
                kept.callee.push(named.clone());
            }
        }
    }
    kept.caller.iter().any(is_voice).then_some(kept)
}
