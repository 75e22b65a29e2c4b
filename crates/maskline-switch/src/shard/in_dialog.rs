//! Requests inside a dialog that change the call without ending it: re-INVITE, UPDATE.
//!
//! What one party asks for is passed on to the other as an offer of our own, and answered with what
//! comes of it: each side's description is written from nothing. What is no change (a refresh) is
//! answered here. How our requests travel is told in [`super::modify`].

use maskline_events::{CallStatus, ErrorCode, ErrorDetails, Update};
use maskline_media::Side;

use super::Shard;
use super::reading::Unfit;
use super::record::Detail;
use crate::modification::{Asked, Intent, OwnRequest, OwnState, Vehicle};
use crate::sdp::{self, Direction, MediaDescription};
use crate::session::{Session, SessionTimer, Stage};
use crate::sip::{HeaderName, Method, Request, TxId, compose};

impl Shard {
    pub(super) fn on_reinvite(&mut self, tx: TxId, invite: &Request) {
        let Some((key, side)) = self.dialog_of(invite) else {
            self.count("no_such_dialog");
            self.refuse(tx, invite, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, invite)
                || shard.refuses_interval(tx, invite)
                || !shard.may_offer(s, side, tx, invite)
            {
                return;
            }
            let offer = match shard.offer_in(tx, invite, &s.party(side).srtp) {
                Ok(offer) => offer,
                Err(unfit) => {
                    shard.refuse_offer(tx, invite, unfit);
                    return;
                }
            };
            // Whoever sends another INVITE has our 2xx, although its ACK was lost (RFC 5407 §3.1.4).
            s.party_mut(side).pending_2xx = None;
            shard.clear_timer(s, SessionTimer::Resend(side));
            shard.hear_allow(s, side, &invite.headers);
            if let Some(offer) = &offer
                && s.party(side).described.as_ref() == Some(offer)
                && offer.origin.is_some()
            {
                shard.answer_unchanged(s, side, tx);
                return;
            }
            if s.party(side.other()).own.is_some() {
                shard.refuse_glare(tx, invite);
                return;
            }
            shard.respond(tx, invite, 100, None, &[]);
            shard.invites.insert(tx, s.key);
            shard.pass_on(s, side.other(), Asked { tx, offer }, Vehicle::Invite);
        });
    }

    pub(super) fn on_update(&mut self, tx: TxId, update: &Request) {
        let Some((key, side)) = self.dialog_of(update) else {
            self.count("no_such_dialog");
            self.refuse(tx, update, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, update) || shard.refuses_interval(tx, update) {
                return;
            }
            if update.body().is_empty() {
                shard.accept_update(s, side, tx, None);
                let now = shard.now.tick;
                if s.stage == Stage::Connected && s.party_mut(side).changes.take(now) {
                    shard.save(s);
                }
                return;
            }
            if !shard.may_offer(s, side, tx, update) {
                return;
            }
            let offer = match shard.offer_in(tx, update, &s.party(side).srtp) {
                Ok(Some(offer)) => offer,
                Ok(None) => return,
                Err(unfit) => {
                    shard.refuse_offer(tx, update, unfit);
                    return;
                }
            };
            shard.hear_allow(s, side, &update.headers);
            let known = s.party(side).described.as_ref();
            if known == Some(&offer) && offer.origin.is_some() {
                shard.answer_unchanged(s, side, tx);
                return;
            }
            if s.party(side.other()).own.is_some() {
                shard.refuse_glare(tx, update);
                return;
            }
            let vehicle = if s.party(side.other()).allows.update {
                Vehicle::Update
            } else {
                Vehicle::Invite
            };
            let offer = Some(offer);
            shard.pass_on(s, side.other(), Asked { tx, offer }, vehicle);
        });
    }

    /// Takes the `CSeq` of a request in a dialog; answers it itself when that is out of order.
    pub(super) fn take_in_dialog(
        &mut self,
        s: &mut Session,
        side: Side,
        tx: TxId,
        request: &Request,
    ) -> bool {
        let in_order = s
            .party_mut(side)
            .dialog
            .as_mut()
            .is_some_and(|dialog| dialog.take_remote_cseq(&request.headers));
        if !in_order {
            self.count("cseq_out_of_order");
            self.respond(tx, request, 500, None, &[]);
        } else {
            self.heard_from(s, side, tx);
        }
        in_order
    }

    /// Whether a side may offer, or ask for an offer, now (RFC 3261 §14.2, RFC 3311 §5.2); answers
    /// the request itself when not.
    fn may_offer(&mut self, s: &mut Session, side: Side, tx: TxId, request: &Request) -> bool {
        match s.stage {
            Stage::Connected => {}
            // Our BYE is on its way.
            Stage::Closing | Stage::Summarised => {
                self.respond(tx, request, 481, None, &[]);
                return false;
            }
            Stage::Admitting
            | Stage::Journaling
            | Stage::Asking
            | Stage::Preparing(_)
            | Stage::Calling
            | Stage::Answering => {
                self.refuse_for_now(tx, request);
                return false;
            }
        }
        self.yield_to(s, side);
        let party = s.party(side);
        let offered = party.pending_2xx.as_ref().is_some_and(|it| it.offers);
        let ours = |own: &OwnRequest| own.is_out() || own.asked().is_some();
        if offered || party.own.as_ref().is_some_and(ours) {
            self.refuse_glare(tx, request);
            return false;
        }
        let now = self.now.tick;
        if s.asked_by(side).is_some() || !s.party_mut(side).changes.take(now) {
            self.refuse_for_now(tx, request);
            return false;
        }
        true
    }

    fn refuse_glare(&mut self, tx: TxId, request: &Request) {
        self.count("modification_glare");
        self.respond(tx, request, 491, None, &[]);
    }

    fn refuse_offer(&mut self, tx: TxId, request: &Request, unfit: Unfit) {
        self.count(unfit.reason);
        let extra = self.refusal_headers(tx, unfit);
        self.respond(tx, request, unfit.status, None, &extra);
    }

    /// A refresh of the session that changes nothing is no business of the other party.
    fn answer_unchanged(&mut self, s: &mut Session, side: Side, tx: TxId) {
        let answer = s.port_towards(side).and_then(|port| {
            let offer = s.party(side).described.clone()?;
            let other = s.party(side.other()).described.as_ref()?;
            let direction = self
                .told(other.direction)
                .within(offer.direction.answered());
            let ptime_ms = other.ptime_ms;
            let codecs = s.negotiated.as_ref()?.codecs(side);
            Some(self.describe(s, side, port, |local| {
                sdp::write_answer(local, &offer, &codecs, ptime_ms, direction)
            }))
        });
        match answer {
            Some(sdp) => self.accept_asked(s, side, tx, &sdp, false),
            None => self.refuse_asked(tx, 500),
        }
        self.save(s);
    }

    /// Answers a re-INVITE or UPDATE of a side with a description; its Contact is the remote target
    /// from here on (RFC 3261 §12.2.2).
    fn accept_asked(&mut self, s: &mut Session, side: Side, tx: TxId, sdp: &str, offers: bool) {
        self.invites.remove(&tx);
        let is_update = self
            .transactions
            .request(tx)
            .is_some_and(|request| request.method == Method::Update);
        if is_update {
            self.accept_update(s, side, tx, Some(sdp));
            return;
        }
        self.take_target(s, side, tx);
        if let Some(tag) = s.party(side).dialog.as_ref().map(|d| d.local_tag.clone()) {
            self.accept(s, side, tx, &tag, sdp, offers);
        }
    }

    fn accept_update(&mut self, s: &mut Session, side: Side, tx: TxId, sdp: Option<&str>) {
        self.take_target(s, side, tx);
        let Some(peer) = self.transactions.peer(tx) else {
            return;
        };
        let mut extra = vec![
            (HeaderName::Contact, self.sent_by(peer).contact()),
            (HeaderName::Allow, compose::ALLOW.to_owned()),
        ];
        extra.extend(self.answer_timer(s, side, tx));
        let response = self
            .transactions
            .request(tx)
            .and_then(|update| compose::response(update, 200, None, &extra, sdp));
        if let Some(response) = response {
            self.transactions.respond(self.now.tick, tx, response);
        }
    }

    fn take_target(&self, s: &mut Session, side: Side, tx: TxId) {
        if let (Some(dialog), Some(request)) = (
            s.party_mut(side).dialog.as_mut(),
            self.transactions.request(tx),
        ) {
            dialog.refresh_target(&request.headers);
        }
    }

    /// The other party has answered what `side.other()` asked for: both descriptions take effect.
    pub(super) fn settle(
        &mut self,
        s: &mut Session,
        side: Side,
        asked: Asked,
        answer: Option<MediaDescription>,
    ) {
        let asker = side.other();
        let Asked { tx, offer } = asked;
        let agreed = offer.zip(answer).and_then(|(offer, answer)| {
            let offered = self.offered_to(s, side, &offer);
            let agreed = self.between(asker, &offer, &offered, &answer)?;
            Some((offer, answer, agreed))
        });
        let (Some((offer, answer, agreed)), Some(port)) = (agreed, s.port_towards(asker)) else {
            // It took an offer and left no codec: it gets back what is in use.
            self.count("answer_unusable");
            self.refuse_asked(tx, 488);
            self.align(s, side);
            return;
        };
        let direction = self
            .told(answer.direction)
            .within(offer.direction.answered());
        let sdp = self.describe(s, asker, port, |local| {
            let codecs = agreed.codecs(asker);
            sdp::write_answer(local, &offer, &codecs, answer.ptime_ms, direction)
        });
        self.accept_asked(s, asker, tx, &sdp, false);
        let sends = self.told(offer.direction);
        self.take_effect(s, asker, (offer, None), (answer, Some(sends)), agreed);
        self.advance(s, asker);
    }

    fn between(
        &self,
        offerer: Side,
        offer: &MediaDescription,
        offered: &[sdp::Codec],
        answer: &MediaDescription,
    ) -> Option<sdp::Negotiated> {
        sdp::between(offerer, offer, offered, answer, self.config.transcoding)
    }

    /// New descriptions of both parties are in use: the relay is programmed, and what changed is
    /// recorded. Beside an answer stands the direction that was offered.
    fn take_effect(
        &mut self,
        s: &mut Session,
        asker: Side,
        asked: (MediaDescription, Option<Direction>),
        answered: (MediaDescription, Option<Direction>),
        agreed: sdp::Negotiated,
    ) {
        let other_codec = s.negotiated.as_ref().and_then(sdp::Negotiated::voice) != agreed.voice();
        s.negotiated = Some(agreed);
        self.take_description(s, asker, asked.0, asked.1, other_codec);
        self.take_description(s, asker.other(), answered.0, answered.1, false);
        self.program(s);
        self.save(s);
    }

    /// Takes a party's new description and records what it changes. `offered`: the direction of the
    /// offer that it answers.
    fn take_description(
        &mut self,
        s: &mut Session,
        side: Side,
        new: MediaDescription,
        offered: Option<Direction>,
        other_codec: bool,
    ) {
        let party = s.party_mut(side);
        let holds = holds(&new, offered, party.holding);
        let held_before = std::mem::replace(&mut party.holding, holds);
        let old = party.described.replace(new);
        let moved = old.is_some_and(|old| Some(old.rtp) != party.described.as_ref().map(|d| d.rtp));
        let update = match (held_before, holds) {
            (false, true) => Some(Update::Held),
            (true, false) => Some(Update::Resumed),
            (false, false) | (true, true) => (moved || other_codec).then_some(Update::Media),
        };
        if let Some(update) = update {
            self.record(s, side, CallStatus::CallUpdated, Detail::update(update));
        }
    }

    /// A side's answer to an offer of the platform's own, of what is in use.
    pub(super) fn take_aligned(&mut self, s: &mut Session, side: Side, answer: MediaDescription) {
        let Some(other) = s.party(side.other()).described.clone() else {
            return;
        };
        let offered = s.negotiated.as_ref().map(|it| it.codecs(side));
        let agreed = self.between(side.other(), &other, &offered.unwrap_or_default(), &answer);
        let Some(agreed) = agreed else {
            self.count("answer_unusable");
            return;
        };
        if s.party(side).described.as_ref() == Some(&answer)
            && s.negotiated.as_ref() == Some(&agreed)
        {
            return;
        }
        s.negotiated = Some(agreed);
        let offered = self.told(other.direction);
        self.take_description(s, side, answer, Some(offered), false);
        self.program(s);
    }

    /// A 2xx to our re-INVITE without an offer brings one: the party that asked gets it in our 200,
    /// and our ACK waits for its answer.
    pub(super) fn on_offer_in_answer(
        &mut self,
        s: &mut Session,
        side: Side,
        mut own: OwnRequest,
        cseq: u32,
        offer: Option<MediaDescription>,
    ) {
        let asker = side.other();
        let Some(offer) = offer else {
            // Without an offer there is nothing to answer (RFC 3261 §13.2.2.4: it is ended).
            self.acknowledge(s, side, cseq, None);
            if let Intent::PassOn(asked) = own.intent {
                self.refuse_asked(asked.tx, 488);
            }
            self.end_for(s, side, "an offer cannot be used");
            return;
        };
        if s.stage != Stage::Connected {
            let refusal = self.refusal_of(s, side, &offer);
            self.acknowledge(s, side, cseq, Some(&refusal));
            return;
        }
        let tx = own.asked().map(|asked| asked.tx);
        own.state = OwnState::Unacknowledged {
            cseq,
            offer: offer.clone(),
        };
        s.party_mut(side).own = Some(own);
        let codecs = self.offered_to(s, asker, &offer);
        let direction = self.told(offer.direction);
        let sdp = self.offer_to(s, asker, &codecs, offer.ptime_ms, direction);
        let (Some(tx), Some(sdp)) = (tx, sdp) else {
            // Nobody waits for it any more.
            self.answer_for_asker(s, side);
            return;
        };
        self.accept_asked(s, asker, tx, &sdp, true);
        // The side repeats its 2xx for 64·T1 only.
        let patience = self.config.timers.t1 * 16;
        self.set_timer(s, SessionTimer::Modify(side), patience);
    }

    /// The ACK to a 2xx of ours that carried an offer.
    pub(super) fn on_answer_in_ack(&mut self, s: &mut Session, side: Side, ack: &Request) {
        if s.stage != Stage::Connected {
            return;
        }
        let other = side.other();
        let answer = self.answer_in(s, side, ack.body());
        if s.party(side).described.is_none() {
            self.on_first_answer(s, side, answer);
            return;
        }
        let waiting = |own: &mut OwnRequest| matches!(own.state, OwnState::Unacknowledged { .. });
        let own = s.party_mut(other).own.take_if(waiting);
        if let Some(OwnRequest {
            state: OwnState::Unacknowledged { cseq, offer },
            ..
        }) = own
        {
            self.clear_timer(s, SessionTimer::Modify(other));
            if !self.settle_offer(s, other, cseq, offer.clone(), answer) {
                self.count("answer_unusable");
                self.answer_from_what_is(s, other, cseq, offer);
            }
            return;
        }
        // The other side had its answer from us already; this one may still name less.
        if let Some(answer) = answer {
            self.take_aligned(s, side, answer);
            self.save(s);
        }
    }

    /// The answer of a caller whose INVITE brought no offer (RFC 3261 §13.2.1); without a usable one
    /// there is no call.
    fn on_first_answer(&mut self, s: &mut Session, side: Side, answer: Option<MediaDescription>) {
        let agreed = answer
            .zip(s.party(side.other()).described.clone())
            .and_then(|(answer, offer)| {
                let transcoding = self.transcoding_from(s, side.other());
                let offered = s.negotiated.as_ref()?.offered_late(transcoding);
                let agreed = self.between(side.other(), &offer, &offered, &answer)?;
                Some((answer, offer, agreed))
            });
        let Some((answer, offer, agreed)) = agreed else {
            self.end_for(s, side, "an offer of ours got no usable answer");
            return;
        };
        let voices = |codecs: &[sdp::Codec]| codecs.iter().filter(|it| it.name.is_voice()).count();
        let narrower = voices(&agreed.codecs(Side::Callee)) < voices(&offer.codecs)
            || answer.direction.answered() != offer.direction;
        s.negotiated = Some(agreed);
        self.take_description(s, side, answer, Some(offer.direction), false);
        self.program(s);
        self.save(s);
        if narrower {
            // The other side would send what this one does not know.
            self.align(s, side.other());
        }
    }

    /// Settles a side's offer with the answer of the party that asked for it. `false`: that is none.
    fn settle_offer(
        &mut self,
        s: &mut Session,
        side: Side,
        cseq: u32,
        offer: MediaDescription,
        answer: Option<MediaDescription>,
    ) -> bool {
        let asker = side.other();
        let agreed = answer.and_then(|answer| {
            let offered = self.offered_to(s, asker, &offer);
            let agreed = self.between(side, &offer, &offered, &answer)?;
            Some((answer, agreed))
        });
        let (Some((answer, agreed)), Some(port)) = (agreed, s.port_towards(side)) else {
            return false;
        };
        let direction = self
            .told(answer.direction)
            .within(offer.direction.answered());
        let sdp = self.describe(s, side, port, |local| {
            sdp::write_answer(
                local,
                &offer,
                &agreed.codecs(side),
                answer.ptime_ms,
                direction,
            )
        });
        self.acknowledge(s, side, cseq, Some(&sdp));
        let sends = self.told(offer.direction);
        self.take_effect(s, side, (offer, None), (answer, Some(sends)), agreed);
        true
    }

    /// No answer came to a side's offer in time: it gets one from us.
    pub(super) fn answer_for_asker(&mut self, s: &mut Session, side: Side) {
        if let Some(OwnRequest {
            state: OwnState::Unacknowledged { cseq, offer },
            ..
        }) = s.party_mut(side).own.take()
        {
            self.count("answered_for_asker");
            self.answer_from_what_is(s, side, cseq, offer);
        }
    }

    /// Answers a side's offer as its peer described itself last; ends the call when that leaves
    /// nothing (RFC 3261 §13.2.2.4).
    fn answer_from_what_is(
        &mut self,
        s: &mut Session,
        side: Side,
        cseq: u32,
        offer: MediaDescription,
    ) {
        let last = s.party(side.other()).described.clone();
        if !self.settle_offer(s, side, cseq, offer.clone(), last) {
            let refusal = self.refusal_of(s, side, &offer);
            self.acknowledge(s, side, cseq, Some(&refusal));
            self.end_for(s, side, "an offer leaves no common codec");
        }
    }

    /// An answer that takes nothing of a side's offer.
    pub(super) fn refusal_of(
        &self,
        s: &mut Session,
        side: Side,
        offer: &MediaDescription,
    ) -> String {
        self.describe(s, side, 9, |local| {
            sdp::write_answer(local, offer, &[], None, Direction::Inactive)
        })
    }

    /// Ends a connected call for what a side described.
    pub(super) fn end_for(&mut self, s: &mut Session, side: Side, reason: &str) {
        if s.stage != Stage::Connected {
            return;
        }
        self.count("description_unusable");
        let whose = match side {
            Side::Caller => "of the caller",
            Side::Callee => "of the callee",
        };
        let reason = format!("{reason} ({whose})");
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, &reason);
        self.hang_up(s, None, Some(error));
    }
}

/// Whether a party that describes itself so holds the other. An answer tells only where it could
/// say something else: `inactive` to a `sendonly` may be either party's hold.
fn holds(new: &MediaDescription, offered: Option<Direction>, before: bool) -> bool {
    match (offered, new.direction) {
        (None, Direction::SendOnly | Direction::Inactive) => true,
        (None, Direction::SendRecv | Direction::RecvOnly) => false,
        (Some(Direction::RecvOnly | Direction::Inactive), _)
        | (Some(Direction::SendOnly), Direction::Inactive) => before,
        (Some(Direction::SendRecv | Direction::SendOnly), direction) => !direction.receives(),
    }
}
