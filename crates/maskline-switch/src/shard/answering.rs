//! B's answer and A's: the ACKs, the 200 and its retransmission.

use maskline_events::{CallStatus, ErrorCode, ErrorDetails, LegStatus};
use maskline_media::{CalleeMedia, CallerMedia, MediaCommand, RemoteMedia, Side, Tick};

use super::record::Detail;
use super::{Gated, Purpose, Shard};
use crate::attempts::Unwanted;
use crate::config::Trunk;
use crate::dialog::Dialog;
use crate::sdp::{self, Local, MediaDescription, Negotiated, Transcoding};
use crate::session::{
    Callee, CalleeInvite, Media, OwedBye, Pending2xx, Probe, Session, SessionTimer, Stage,
};
use crate::sip::{
    HeaderName, LocalTag, Message, Method, Peer, Request, Response, TxId, compose, view,
};

impl Shard {
    /// The first 2xx of B: it is acknowledged at once; A's 200 waits for the journal.
    pub(super) fn on_callee_answered(&mut self, s: &mut Session, response: &Response) {
        self.clear_timer(s, SessionTimer::NoAnswer);
        let callee = s.outbound.clone();
        let dialog = callee
            .as_ref()
            .and_then(|callee| self.callee_dialog(callee, response));
        let (Some(callee), Some(dialog)) = (callee, dialog) else {
            // Without a To tag there is nobody to acknowledge.
            if let Some(callee) = s.outbound.as_mut() {
                callee.invite = CalleeInvite::Ended;
            }
            let reason = "the callee's answer makes no dialog";
            self.fail_callee_with(s, ErrorCode::Connectivity, 500, 500, reason);
            return;
        };
        let described = self.answer_of_callee(s, response);
        let transcoding = self.config.transcoding;
        let negotiated = match (&s.caller.described, &described) {
            (Some(offer), Some(answer)) => self.negotiated_first(s, offer, answer),
            (None, Some(answer)) => sdp::negotiate_defaults(answer, transcoding),
            (Some(_) | None, None) => None,
        };
        let Some(negotiated) = negotiated else {
            if let Some(callee) = s.outbound.as_mut() {
                callee.invite = CalleeInvite::Ended;
            }
            self.end_dialog(s, &callee, dialog);
            let reason = "the callee's answer has no usable media";
            self.fail_callee_with(s, ErrorCode::Connectivity, 488, 500, reason);
            return;
        };
        let ack = self.send_ack(&callee, &dialog);
        if let (Some(callee), Some((peer, ack))) = (s.outbound.as_mut(), ack) {
            callee.invite = CalleeInvite::Answered {
                ack: Some(ack),
                peer,
            };
        }
        s.callee.dialog = Some(dialog);
        self.hear_allow(s, Side::Callee, &response.headers);
        self.hear_timer(s, Side::Callee, &response.headers);
        s.callee.described = described;
        s.negotiated = Some(negotiated);
        s.stage = Stage::Answering;
        self.settle_early_media(s);
        for side in [Side::Callee, Side::Caller] {
            let now = self.now;
            if let Some(leg) = s.leg_mut(side) {
                leg.connected = Some(now.wall);
                leg.connected_tick = Some(now.tick);
            }
            self.record(s, side, CallStatus::CallConnected, Detail::default());
        }
        // From here a CANCEL of A changes nothing: its connection is on its way to the journal.
        if let Some(tx) = s.invite {
            self.invites.remove(&tx);
        }
        let commit = self.save(s);
        self.gate(s, commit, Gated::AnswerCaller);
    }

    /// The dialog that an answer to this INVITE makes, or goes on with.
    pub(super) fn callee_dialog(&self, callee: &Callee, response: &Response) -> Option<Dialog> {
        let invite = self.compose_invite(callee, None)?;
        let mut dialog = Dialog::of_callee(&invite, response, callee.parts.peer)?;
        callee.early.confirm(&mut dialog);
        Some(dialog)
    }

    /// The ACK to a 2xx of B. It carries the credentials of its INVITE (RFC 3261 §22.1).
    fn send_ack(&mut self, callee: &Callee, dialog: &Dialog) -> Option<(Peer, bytes::Bytes)> {
        let peer = dialog.next_hop();
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        let mut ack = dialog.ack(callee.parts.cseq, &sent_by, &branch, None)?;
        compose::push_all(&mut ack, callee.credentials.iter().cloned());
        let ack = Message::Request(ack);
        let bytes = ack.to_bytes();
        self.transactions.send_bare(peer, ack);
        Some((peer, bytes))
    }

    /// Acknowledges and ends a dialog that nobody wants: another fork's, or one that crossed our
    /// CANCEL. Its answer may be repeated: that one gets the ACK again.
    pub(super) fn acknowledge_and_end(
        &mut self,
        s: &mut Session,
        callee: &Callee,
        response: &Response,
    ) {
        let tag = view::to_tag(&response.headers);
        let known =
            s.attempts.unwanted.iter().find(|it| {
                it.call_id == callee.parts.call_id && Some(&it.remote_tag) == tag.as_ref()
            });
        if let Some(known) = known {
            self.put_on_wire(known.peer, known.ack.clone());
        } else if let Some(dialog) = self.callee_dialog(callee, response) {
            self.end_dialog(s, callee, dialog);
        }
    }

    fn end_dialog(&mut self, s: &mut Session, callee: &Callee, mut dialog: Dialog) {
        if let Some((peer, ack)) = self.send_ack(callee, &dialog) {
            s.attempts.remember_unwanted(Unwanted {
                call_id: callee.parts.call_id.clone(),
                remote_tag: dialog.remote_tag.clone(),
                peer,
                ack,
            });
        }
        let peer = dialog.next_hop();
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        if let Some(mut bye) = dialog.request(Method::Bye, &sent_by, &branch) {
            self.give_credentials(s, Side::Callee, &mut bye);
            self.say_farewell(peer, bye, Purpose::Farewell);
        }
    }

    /// A 2xx after the first: the same one again, or another branch of a fork.
    pub(super) fn on_answer_again(&mut self, s: &mut Session, response: &Response) {
        let same = s
            .callee
            .dialog
            .as_ref()
            .is_some_and(|d| view::to_tag(&response.headers).as_deref() == Some(&d.remote_tag));
        if !same {
            self.count("forked_answer");
            if let Some(callee) = s.outbound.clone() {
                self.acknowledge_and_end(s, &callee, response);
            }
            return;
        }
        match s.outbound.as_ref().map(|callee| callee.invite.clone()) {
            Some(CalleeInvite::Answered {
                ack: Some(bytes),
                peer,
            }) => self.put_on_wire(peer, bytes),
            Some(CalleeInvite::Answered { ack: None, .. }) => {
                self.acknowledge_again(s, Side::Callee, response);
            }
            Some(
                CalleeInvite::Gated
                | CalleeInvite::Calling { .. }
                | CalleeInvite::Cancelling { .. }
                | CalleeInvite::Ended,
            )
            | None => {}
        }
    }

    /// A response that no transaction took: a 2xx after its transaction's end still wants its ACK.
    pub(super) fn on_stray(&mut self, response: &Response) {
        let is_invite =
            view::cseq(&response.headers).is_some_and(|(_, method)| method == Method::Invite);
        let ours = view::from_tag(&response.headers).and_then(|tag| LocalTag::parse(&tag));
        match ours {
            Some(tag) if is_invite && response.status.code() < 300 => {
                self.with(tag.session, |shard, s| {
                    if shard.on_stray_of_abandoned(s, response) {
                        return;
                    }
                    // B's Call-ID is known to B's side alone: the caller can't answer for it.
                    let call_id = view::call_id(&response.headers);
                    let number = view::cseq(&response.headers).map_or(0, |(number, _)| number);
                    let own = s.party(tag.side).acknowledged.as_ref();
                    if !response.status.is_success() {
                        shard.count("stray_response");
                    } else if own.is_some_and(|own| own.cseq == number) {
                        shard.on_own_response(s, tag.side, number, response);
                    } else if number == invite_cseq(s)
                        && s.outbound.as_ref().map(|callee| &callee.parts.call_id)
                            == call_id.as_ref()
                    {
                        shard.on_invite_response(s, response);
                    } else if s.party(tag.side).probe != Probe::None {
                        shard.acknowledge_again(s, tag.side, response);
                    } else {
                        shard.count("stray_response");
                    }
                });
            }
            _ => self.count("stray_response"),
        }
    }

    /// A's CALL_CONNECTED is durable: its 200 leaves, and media flows.
    pub(super) fn answer_caller(&mut self, s: &mut Session) {
        if s.final_sent {
            return;
        }
        if !s.is_live(Side::Caller) && s.caller.owed_bye.is_none() {
            // A ended its early dialog by BYE while its 200 waited (RFC 3261 §15.1.2).
            self.refuse_caller(s, 487, &[]);
            return;
        }
        if self.holds_answer(s) {
            return;
        }
        s.final_sent = true;
        self.stop_provisionals(s);
        if s.stage == Stage::Answering {
            s.stage = Stage::Connected;
            self.program(s);
            let max = self.config.max_duration;
            self.set_timer(s, SessionTimer::MaxDuration, max);
        }
        let Some(sdp) = self.answer_sdp(s) else {
            return;
        };
        let (Some(tx), Some(dialog)) = (s.invite.take(), s.caller.dialog.as_ref()) else {
            return;
        };
        let local_tag = dialog.local_tag.clone();
        let offers = s.caller.described.is_none();
        match self.answered_early(s, &sdp) {
            Some(before) => {
                self.accept(s, Side::Caller, tx, &local_tag, &before, offers);
                self.align(s, Side::Caller);
            }
            None => self.accept(s, Side::Caller, tx, &local_tag, &sdp, offers),
        }
    }

    pub(super) fn answer_sdp(&self, s: &mut Session) -> Option<String> {
        let caller_port = match s.media {
            Media::Open { caller_port, .. } | Media::Resuming { caller_port, .. } => caller_port,
            // The call ended while A's 200 waited; A gets it and its BYE, with a port that is
            // closed.
            Media::None | Media::Opening | Media::Closing => 9,
        };
        let offer = s.caller.described.clone();
        let answer = s.callee.described.clone()?;
        let negotiated = s.negotiated.clone()?;
        let transcoding = self.transcoding_from(s, Side::Callee);
        Some(
            self.describe(s, Side::Caller, caller_port, |local| match &offer {
                Some(offer) => answer_to(local, offer, &answer, &negotiated),
                None => {
                    let codecs = negotiated.offered_late(transcoding);
                    sdp::write_offer(local, &codecs, answer.ptime_ms, answer.direction)
                }
            }),
        )
    }

    /// Sends a 200 with SDP to an INVITE, again and again until it is acknowledged.
    pub(super) fn accept(
        &mut self,
        s: &mut Session,
        side: Side,
        tx: TxId,
        local_tag: &str,
        sdp: &str,
        offers: bool,
    ) {
        let Some(peer) = self.transactions.peer(tx) else {
            return;
        };
        let mut extra = vec![
            (HeaderName::Contact, self.sent_by(peer).contact()),
            (HeaderName::Allow, compose::ALLOW.to_owned()),
        ];
        extra.extend(self.answer_timer(s, side, tx));
        let built = self.transactions.request(tx).and_then(|invite| {
            let cseq = view::cseq(&invite.headers)?.0;
            let response = compose::response(invite, 200, Some(local_tag), &extra, Some(sdp))?;
            let within = view::to_tag(&invite.headers).is_some();
            Some((cseq, within, response))
        });
        let Some((cseq, within, response)) = built else {
            return;
        };
        self.transactions
            .respond(self.now.tick, tx, response.clone());
        let timers = self.config.timers;
        s.party_mut(side).pending_2xx = Some(Pending2xx {
            tx,
            response,
            cseq,
            interval: timers.t1,
            gives_up: self.now.tick + timers.timeout(),
            offers,
            within,
        });
        self.set_timer(s, SessionTimer::Resend(side), timers.t1);
    }

    pub(super) fn on_resend(&mut self, s: &mut Session, side: Side) {
        let tick: Tick = self.now.tick;
        let t2 = self.config.timers.t2;
        let Some(pending) = s.party_mut(side).pending_2xx.as_mut() else {
            return;
        };
        if tick < pending.gives_up {
            pending.interval = (pending.interval * 2).min(t2);
            let left = pending.gives_up.since(tick);
            let (tx, response) = (pending.tx, pending.response.clone());
            let next = pending.interval.min(left);
            self.transactions.respond(tick, tx, response);
            self.set_timer(s, SessionTimer::Resend(side), next);
            return;
        }
        let has_it = s.party(side).has_2xx_unacknowledged();
        s.party_mut(side).pending_2xx = None;
        if s.party(side).owed_bye == Some(OwedBye::Unacknowledged) {
            self.send_bye(s, side);
        }
        if has_it {
            self.advance(s, side);
        } else {
            self.on_never_acknowledged(s, side);
        }
    }

    /// RFC 3261 §13.3.1.4: a peer that never acknowledges is gone; both dialogs are ended.
    fn on_never_acknowledged(&mut self, s: &mut Session, side: Side) {
        if !s.is_live(side) {
            return;
        }
        self.count("never_acknowledged");
        let reason = match side {
            Side::Caller => "the caller never acknowledged the answer",
            Side::Callee => "the callee never acknowledged an answer",
        };
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, reason);
        // Only A's answer has a final status of its own; a re-INVITE of B changes none.
        let sip_code = match side {
            Side::Caller => 408,
            Side::Callee => 200,
        };
        self.end_leg(s, side, sip_code, LegStatus::Completed, Some(error.clone()));
        self.end_leg(
            s,
            side.other(),
            200,
            LegStatus::Completed,
            Some(error.clone()),
        );
        self.finish_call(s, vec![side, side.other()], Some(error));
    }

    pub(super) fn on_ack(&mut self, ack: &Request) {
        let Some((key, side)) = self.dialog_of(ack) else {
            self.count("stray_ack");
            return;
        };
        self.with(key, |shard, s| {
            let acknowledged = view::cseq(&ack.headers).map(|(sequence, _)| sequence);
            let party = s.party_mut(side);
            let Some(pending) = party
                .pending_2xx
                .take_if(|pending| Some(pending.cseq) == acknowledged)
            else {
                return;
            };
            shard.clear_timer(s, SessionTimer::Resend(side));
            if pending.offers {
                shard.on_answer_in_ack(s, side, ack);
            }
            shard.advance(s, side);
            if s.party(side).owed_bye == Some(OwedBye::Unacknowledged) {
                shard.send_bye(s, side);
            }
        });
    }

    /// Tells the media engine what both parties negotiated.
    pub(super) fn program(&mut self, s: &Session) {
        let key = s.media_key(self.config.shard);
        let Some(negotiated) = &s.negotiated else {
            return;
        };
        let (caller_payloads, callee_payloads) = sdp::media_payloads(negotiated);
        if let Some(described) = &s.callee.described {
            let remote = self.remote(s, Side::Callee, described, callee_payloads);
            self.actions
                .push_back(crate::io::Action::Media(MediaCommand::ProgramCallee {
                    key,
                    media: CalleeMedia(remote),
                }));
        }
        if let Some(described) = &s.caller.described {
            let remote = self.remote(s, Side::Caller, described, caller_payloads);
            self.actions
                .push_back(crate::io::Action::Media(MediaCommand::ProgramCaller {
                    key,
                    media: CallerMedia(remote),
                }));
        }
    }

    /// How a party is helped out with what a side offers.
    pub(super) fn transcoding_from(&self, s: &Session, side: Side) -> Transcoding {
        let listens = self.trunk_of(s, side).is_some_and(|it| it.inband_keys);
        match self.config.transcoding {
            Transcoding::On | Transcoding::Listening if listens => Transcoding::Listening,
            Transcoding::On | Transcoding::Listening => Transcoding::On,
            Transcoding::Off => Transcoding::Off,
        }
    }

    fn trunk_of(&self, s: &Session, side: Side) -> Option<&Trunk> {
        let place = s.places.iter().find(|(held, _)| *held == side);
        place.and_then(|(_, trunk)| self.config.trunk(*trunk))
    }

    /// A side's media for the engine.
    pub(super) fn remote(
        &self,
        s: &Session,
        side: Side,
        described: &MediaDescription,
        payloads: Vec<maskline_media::PayloadMap>,
    ) -> RemoteMedia {
        let trunk = self.trunk_of(s, side);
        let mut sources = vec![described.rtp.ip()];
        sources.extend(trunk.iter().flat_map(|it| it.media_sources.iter().copied()));
        RemoteMedia {
            rtp: described.rtp,
            rtcp: described.rtcp,
            rtcp_mux: described.rtcp_mux,
            srtp: described
                .srtp
                .zip(s.party(side).srtp.ours())
                .map(|(theirs, ours)| ours.with(&theirs)),
            sources,
            payloads,
            sends: described.direction.sends(),
            receives: described.direction.receives(),
            listens: trunk.is_some_and(|trunk| trunk.inband_keys),
            holds: s.party(side).holding,
        }
    }
}

/// Our answer to A's offer, as B's description has it: the same before the answer and in it.
pub(super) fn answer_to(
    local: &Local,
    offer: &MediaDescription,
    described: &MediaDescription,
    negotiated: &Negotiated,
) -> String {
    let direction = described.direction.within(offer.direction.answered());
    sdp::write_answer(
        local,
        offer,
        &negotiated.codecs(Side::Caller),
        described.ptime_ms,
        direction,
    )
}

/// The `CSeq` number of B's INVITE.
fn invite_cseq(s: &Session) -> u32 {
    s.outbound.as_ref().map_or(1, |callee| callee.parts.cseq)
}
