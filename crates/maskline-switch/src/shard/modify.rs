//! Our own re-INVITEs and UPDATEs on one side: how they leave, are tried again, given up, and what
//! their answers mean (RFC 3261 §14, RFC 3311).
//!
//! Each side has one at a time, [`PartyDialog::own`]; [`Intent`] says why it is sent. Whoever wants
//! one of the platform's own calls [`Shard::refresh`] (nothing is to change; its outcome comes to
//! [`Shard::hear_timer`] or [`Shard::on_refreshed`]) or [`Shard::align`] (this side is to have what is in use).
//! Retransmission, glare, the ACK, CANCEL, and a peer that does not answer are dealt with here. What
//! the *other* party asked for is passed on and settled in [`super::in_dialog`].
//!
//! [`PartyDialog::own`]: crate::session::PartyDialog::own

use std::time::Duration;

use maskline_events::{ErrorCode, ErrorDetails};
use maskline_media::Side;
use rand::{Rng, RngCore};

use super::{Purpose, Shard};
use crate::modification::{
    Acknowledged, Asked, Cancel, Intent, OwnRequest, OwnState, Vehicle, glare_delay,
};
use crate::sdp::{self, Local};
use crate::session::{Allows, Session, SessionTimer, Stage};
use crate::sip::{
    HeaderName, Headers, Message, Method, Request, Response, TxId, compose, digest, view,
};

/// Most times that a request of ours leaves when it meets one of the peer.
const MOST_TRIES: u8 = 4;
/// How long a request of ours is tried again: the times of RFC 3261 §14.1 are seconds, not T1, and
/// whoever asked by UPDATE waits for 32 s.
const RETRIED_FOR: Duration = Duration::from_secs(20);
/// Longest `Retry-After` of a 500 that is waited for (RFC 3261 §14.2 allows the peer no more).
const LONGEST_RETRY_SECONDS: u32 = 10;

impl Shard {
    /// Sends a session refresh of the platform's own to a side: an UPDATE without a body where the
    /// side allows UPDATE, else a re-INVITE with our last description. `false`, and nothing is sent:
    /// the call is not connected, or another request of ours is under way on this side, whose 2xx
    /// refreshes as well.
    pub(super) fn refresh(&mut self, s: &mut Session, side: Side) -> bool {
        let vehicle = if s.party(side).allows.update {
            Vehicle::BareUpdate
        } else {
            Vehicle::Invite
        };
        self.begin(s, side, Intent::Refresh, vehicle)
    }

    /// Tells a side again what is in use: after it took what the other party did not get, or when
    /// fewer codecs are left than it knows of.
    pub(super) fn align(&mut self, s: &mut Session, side: Side) -> bool {
        self.begin(s, side, Intent::Align, Vehicle::Invite)
    }

    fn begin(&mut self, s: &mut Session, side: Side, intent: Intent, vehicle: Vehicle) -> bool {
        if s.stage != Stage::Connected || s.party(side).own.is_some() {
            return false;
        }
        let gives_up = self.now.tick + RETRIED_FOR;
        s.party_mut(side).own = Some(OwnRequest::new(intent, vehicle, gives_up));
        self.advance(s, side);
        true
    }

    /// Passes on to a side what the other party asks for.
    pub(super) fn pass_on(&mut self, s: &mut Session, side: Side, asked: Asked, vehicle: Vehicle) {
        self.begin(s, side, Intent::PassOn(asked), vehicle);
    }

    /// Sends what waits on a side, if nothing of that side is pending any more (RFC 3261 §14.1).
    pub(super) fn advance(&mut self, s: &mut Session, side: Side) {
        let waits = matches!(
            s.party(side).own,
            Some(OwnRequest {
                state: OwnState::Waiting { timed: false },
                ..
            })
        );
        let free = s.party(side).pending_2xx.is_none() && s.asked_by(side).is_none();
        if waits
            && free
            && s.stage == Stage::Connected
            && let Some(own) = s.party_mut(side).own.take()
        {
            self.send_own(s, side, own);
        }
    }

    fn send_own(&mut self, s: &mut Session, side: Side, mut own: OwnRequest) {
        let sdp = match (own.vehicle, &own.intent) {
            (Vehicle::BareUpdate, _) | (_, Intent::PassOn(Asked { offer: None, .. })) => None,
            (
                _,
                Intent::PassOn(Asked {
                    offer: Some(offer), ..
                }),
            ) => {
                let codecs = self.offered_to(s, side, offer);
                let (ptime_ms, direction) = (offer.ptime_ms, self.told(offer.direction));
                self.offer_to(s, side, &codecs, ptime_ms, direction)
            }
            (_, Intent::Refresh) => match s.party(side).last_sdp.clone() {
                Some(last) => Some(last),
                None => self.current_offer(s, side),
            },
            (_, Intent::Align | Intent::Abandoned) => self.current_offer(s, side),
        };
        own.offers = sdp.is_some();
        own.tries += 1;
        let Some((tx, cseq)) = self.send_in_dialog(s, side, own.vehicle.method(), sdp.as_deref())
        else {
            self.count("modification_unsendable");
            self.give_up(s, side, own, 500);
            return;
        };
        own.state = OwnState::Sent {
            tx,
            cseq,
            provisional: false,
            cancel: Cancel::No,
        };
        // An UPDATE waits for its answer for 64·T1 only, so it gets one before (RFC 3311 §5.2).
        let t1 = self.config.timers.t1;
        let asked_by_update = own.asked().is_some_and(|asked| {
            let request = self.transactions.request(asked.tx);
            request.is_some_and(|request| request.method == Method::Update)
        });
        let guard = if asked_by_update { t1 * 48 } else { t1 * 66 };
        s.party_mut(side).own = Some(own);
        self.set_timer(s, SessionTimer::Modify(side), guard);
    }

    fn send_in_dialog(
        &mut self,
        s: &mut Session,
        side: Side,
        method: Method,
        sdp: Option<&str>,
    ) -> Option<(TxId, u32)> {
        let extra = self.modifying_headers(s, side);
        let branch = self.branch();
        let session = s.key;
        let dialog = s.party_mut(side).dialog.as_mut()?;
        let (peer, second_way) = (dialog.next_hop(), dialog.second_way());
        let sent_by = self.sent_by(peer);
        let mut request = dialog.request_with(method, &sent_by, &branch, &extra, sdp)?;
        let cseq = dialog.local_cseq;
        self.give_credentials(s, side, &mut request);
        if request.method == Method::Invite {
            s.party_mut(side).reinvite_credentials = digest::credentials(&request.headers);
        }
        let purpose = Purpose::Modify {
            session,
            side,
            cseq,
        };
        let tx = self
            .transactions
            .send_request(self.now.tick, peer, request, purpose)?;
        if let Some(way) = second_way {
            self.transactions.set_second_way(tx, way);
        }
        Some((tx, cseq))
    }

    /// Writes our description for a side; its version counts up when it differs from the last one
    /// (RFC 3264 §8).
    pub(super) fn describe(
        &self,
        s: &mut Session,
        side: Side,
        port: u16,
        write: impl Fn(&Local) -> String,
    ) -> String {
        let text = write(&self.local(s, side, port));
        let differs = s
            .party(side)
            .last_sdp
            .as_ref()
            .is_some_and(|last| *last != text);
        let text = if differs {
            s.party_mut(side).sdp_version += 1;
            write(&self.local(s, side, port))
        } else {
            text
        };
        s.party_mut(side).last_sdp = Some(text.clone());
        text
    }

    /// An offer of ours to a side, with a line for each stream that the side knows of
    /// (RFC 3264 §8).
    pub(super) fn offer_to(
        &self,
        s: &mut Session,
        side: Side,
        codecs: &[sdp::Codec],
        ptime_ms: Option<u16>,
        direction: sdp::Direction,
    ) -> Option<String> {
        let port = s.port_towards(side)?;
        let known = s.party(side).described.clone();
        Some(self.describe(s, side, port, |local| match &known {
            Some(known) => sdp::write_answer(local, known, codecs, ptime_ms, direction),
            None => sdp::write_offer(local, codecs, ptime_ms, direction),
        }))
    }

    /// What a side is offered when the other one makes this offer.
    pub(super) fn offered_to(
        &self,
        s: &Session,
        side: Side,
        offer: &sdp::MediaDescription,
    ) -> Vec<sdp::Codec> {
        let known = s.party(side).described.as_ref();
        let codecs = sdp::offered_to(&offer.codecs, known, self.transcoding_from(s, side.other()));
        if self.config.keeps_payload_types {
            sdp::numbered_as_offered(codecs, &offer.codecs, known)
        } else {
            codecs
        }
    }

    /// What comes of B's answer to the offer that came with A's INVITE.
    pub(super) fn negotiated_first(
        &self,
        s: &Session,
        offer: &sdp::MediaDescription,
        answer: &sdp::MediaDescription,
    ) -> Option<sdp::Negotiated> {
        let transcoding = self.config.transcoding;
        if !self.config.keeps_payload_types {
            return sdp::negotiate(offer, answer, transcoding);
        }
        let offered = self.offered_first(s, offer);
        sdp::between(Side::Caller, offer, &offered, answer, transcoding)
    }

    /// What B is offered with its INVITE.
    pub(super) fn offered_first(
        &self,
        s: &Session,
        offer: &sdp::MediaDescription,
    ) -> Vec<sdp::Codec> {
        let codecs = sdp::towards_callee(offer, self.transcoding_from(s, Side::Caller));
        if self.config.keeps_payload_types {
            sdp::numbered_as_offered(codecs, &offer.codecs, None)
        } else {
            codecs
        }
    }

    /// What a party is told when the other describes itself so: one that is put on hold by
    /// `inactive` is sent what it hears there.
    pub(super) fn told(&self, direction: sdp::Direction) -> sdp::Direction {
        match direction {
            sdp::Direction::Inactive if self.config.plays_on_hold => sdp::Direction::SendOnly,
            sdp::Direction::Inactive
            | sdp::Direction::SendRecv
            | sdp::Direction::SendOnly
            | sdp::Direction::RecvOnly => direction,
        }
    }

    /// What is in use, as an offer to a side.
    fn current_offer(&self, s: &mut Session, side: Side) -> Option<String> {
        let codecs = s.negotiated.as_ref()?.codecs(side);
        let other = s.party(side.other()).described.as_ref()?;
        let (ptime_ms, direction) = (other.ptime_ms, self.told(other.direction));
        self.offer_to(s, side, &codecs, ptime_ms, direction)
    }

    pub(super) fn on_own_response(
        &mut self,
        s: &mut Session,
        side: Side,
        cseq: u32,
        response: &Response,
    ) {
        let status = response.status.code();
        let state = s.party_mut(side).own.as_mut().map(|own| &mut own.state);
        let Some(OwnState::Sent {
            cseq: sent,
            provisional,
            cancel,
            ..
        }) = state
        else {
            self.on_repeated_success(s, side, cseq, response);
            return;
        };
        if *sent != cseq {
            self.on_repeated_success(s, side, cseq, response);
        } else if status < 200 {
            *provisional = true;
            if *cancel == Cancel::Wanted {
                self.send_own_cancel(s, side);
            }
        } else if let Some(own) = s.party_mut(side).own.take() {
            self.clear_timer(s, SessionTimer::Modify(side));
            self.on_own_final(s, side, own, cseq, response);
        }
    }

    /// A 2xx that came before wants its ACK again (RFC 3261 §13.2.2.4).
    fn on_repeated_success(&mut self, s: &Session, side: Side, cseq: u32, response: &Response) {
        if let Some(known) = s.party(side).acknowledged.as_ref()
            && known.cseq == cseq
            && response.status.is_success()
        {
            let (peer, bytes) = (known.peer, known.ack.clone());
            self.put_on_wire(peer, bytes);
        }
    }

    fn on_own_final(
        &mut self,
        s: &mut Session,
        side: Side,
        own: OwnRequest,
        cseq: u32,
        response: &Response,
    ) {
        let status = response.status.code();
        if response.status.is_success() {
            if let Some(dialog) = s.party_mut(side).dialog.as_mut() {
                dialog.refresh_target(&response.headers);
            }
            self.hear_allow(s, side, &response.headers);
            self.hear_timer(s, side, &response.headers);
            self.on_own_accepted(s, side, own, cseq, response);
            return;
        }
        if s.stage != Stage::Connected {
            return;
        }
        match status {
            408 | 481 => self.lose(s, side, own),
            491 | 500 => self.try_again(s, side, own, response),
            _ => match own.intent {
                Intent::Refresh => self.on_refreshed(s, side, response),
                Intent::PassOn(_) | Intent::Align | Intent::Abandoned => {
                    self.give_up(s, side, own, 488);
                }
            },
        }
    }

    fn on_own_accepted(
        &mut self,
        s: &mut Session,
        side: Side,
        own: OwnRequest,
        cseq: u32,
        response: &Response,
    ) {
        let invited = own.vehicle == Vehicle::Invite;
        if invited && !own.offers {
            let terms = self.terms(s.party(side).srtp.policy);
            let offer = sdp::parse_for(response.body(), terms).ok();
            self.on_offer_in_answer(s, side, own, cseq, offer);
            return;
        }
        let described = self.answer_in(s, side, response.body());
        if invited {
            self.acknowledge(s, side, cseq, None);
        }
        if s.stage != Stage::Connected {
            return;
        }
        match own.intent {
            Intent::PassOn(asked) => self.settle(s, side, asked, described),
            Intent::Refresh => {
                if let Some(answer) = described {
                    self.take_aligned(s, side, answer);
                }
                self.on_refreshed(s, side, response);
                self.save(s);
            }
            Intent::Align => {
                if let Some(answer) = described {
                    self.take_aligned(s, side, answer);
                }
                self.save(s);
            }
            // It took what the other party never got.
            Intent::Abandoned => {
                self.align(s, side);
            }
        }
    }

    /// Acknowledges a 2xx of a side to a re-INVITE of ours, with its credentials (RFC 3261
    /// §13.2.2.4).
    pub(super) fn acknowledge(
        &mut self,
        s: &mut Session,
        side: Side,
        cseq: u32,
        sdp: Option<&str>,
    ) {
        let branch = self.branch();
        let Some(dialog) = s.party(side).dialog.as_ref() else {
            return;
        };
        let peer = dialog.next_hop();
        let Some(mut ack) = dialog.ack(cseq, &self.sent_by(peer), &branch, sdp) else {
            return;
        };
        compose::push_all(&mut ack, s.party(side).reinvite_credentials.iter().cloned());
        let ack = Message::Request(ack);
        s.party_mut(side).acknowledged = Some(Acknowledged {
            cseq,
            peer,
            ack: ack.to_bytes(),
        });
        self.transactions.send_bare(peer, ack);
    }

    /// RFC 3261 §14.1: a request that met another waits for a random time.
    fn try_again(&mut self, s: &mut Session, side: Side, mut own: OwnRequest, response: &Response) {
        let delay = if response.status.code() == 491 {
            // The callee's Call-ID is ours, the caller's is the caller's.
            Some(glare_delay(side == Side::Callee, self.rng.next_u32()))
        } else {
            let seconds = view::retry_after(&response.headers);
            let seconds = seconds.filter(|seconds| *seconds <= LONGEST_RETRY_SECONDS);
            seconds.map(|seconds| Duration::from_secs(u64::from(seconds.max(1))))
        };
        let wanted = match own.state {
            OwnState::Sent { cancel, .. } => cancel == Cancel::No,
            OwnState::Waiting { .. } | OwnState::Unacknowledged { .. } => true,
        } && !matches!(own.intent, Intent::Abandoned);
        match delay {
            Some(delay)
                if wanted && own.tries < MOST_TRIES && self.now.tick + delay < own.gives_up =>
            {
                self.count("modification_retried");
                own.state = OwnState::Waiting { timed: true };
                s.party_mut(side).own = Some(own);
                self.set_timer(s, SessionTimer::Modify(side), delay);
            }
            Some(_) => self.give_up(s, side, own, 491),
            None => self.give_up(s, side, own, 488),
        }
    }

    /// A side asks for a change while ours waits to be tried again: the side's comes first, and
    /// whoever asked for ours may ask again (RFC 3261 §14.1).
    pub(super) fn yield_to(&mut self, s: &mut Session, side: Side) {
        let waits = |own: &mut OwnRequest| {
            matches!(own.state, OwnState::Waiting { timed: true }) && own.asked().is_some()
        };
        if let Some(own) = s.party_mut(side).own.take_if(waits) {
            self.clear_timer(s, SessionTimer::Modify(side));
            self.give_up(s, side, own, 491);
        }
    }

    /// A request of ours comes to nothing, and everything stays as it was; whoever asked hears
    /// `status`.
    fn give_up(&mut self, s: &mut Session, side: Side, own: OwnRequest, status: u16) {
        let cancelled = matches!(
            own.state,
            OwnState::Sent {
                cancel: Cancel::Wanted | Cancel::Sent,
                ..
            }
        );
        match own.intent {
            Intent::PassOn(asked) => {
                let status = if cancelled { 487 } else { status };
                self.refuse_asked(asked.tx, status);
            }
            Intent::Refresh => self.count("refresh_refused"),
            Intent::Align => self.count("align_refused"),
            Intent::Abandoned => {}
        }
        if s.stage == Stage::Connected {
            // The version of what was refused is not used again, in a later run neither.
            self.save(s);
        }
        // What the other side waited with may go now.
        self.advance(s, side.other());
    }

    /// The final refusal of a request that was passed on.
    pub(super) fn refuse_asked(&mut self, tx: TxId, status: u16) {
        self.invites.remove(&tx);
        if let Some(request) = self.transactions.request(tx).cloned() {
            self.respond(tx, &request, status, None, &[]);
        }
    }

    /// A side does not know the dialog any more, or says nothing: the call is over
    /// (RFC 3261 §12.2.1.2, RFC 5057 §5.1).
    fn lose(&mut self, s: &mut Session, side: Side, own: OwnRequest) {
        self.count("party_lost");
        if let Intent::PassOn(asked) = own.intent {
            self.refuse_asked(asked.tx, 487);
        }
        let reason = match side {
            Side::Caller => "the caller no longer answers within the call",
            Side::Callee => "the callee no longer answers within the call",
        };
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, reason);
        self.hang_up(s, None, Some(error));
    }

    /// `failed`: the transport, so that nothing is known of the peer. That is a 503 (RFC 3261
    /// §8.1.3.1), which ends no dialog: whoever asked hears of it, a refresh is tried again, and a peer
    /// that is gone is known by its media or its session timer.
    pub(super) fn on_own_unanswered(
        &mut self,
        s: &mut Session,
        side: Side,
        cseq: u32,
        failed: bool,
    ) {
        let sent = |own: &mut OwnRequest| matches!(own.state, OwnState::Sent { cseq: sent, .. } if sent == cseq);
        let Some(own) = s.party_mut(side).own.take_if(sent) else {
            return;
        };
        self.clear_timer(s, SessionTimer::Modify(side));
        if s.stage != Stage::Connected {
            return;
        }
        if failed {
            self.give_up(s, side, own, 500);
        } else {
            self.lose(s, side, own);
        }
    }

    pub(super) fn on_modify_timer(&mut self, s: &mut Session, side: Side) {
        let Some(mut own) = s.party_mut(side).own.take() else {
            return;
        };
        match &mut own.state {
            OwnState::Waiting { timed } => {
                *timed = false;
                s.party_mut(side).own = Some(own);
                self.advance(s, side);
            }
            OwnState::Sent { tx, cancel, .. } => {
                let over = s.stage != Stage::Connected || *cancel == Cancel::Sent;
                if over {
                    // RFC 3261 §9.1: the cancelled INVITE counts as refused.
                    self.transactions.forget(*tx);
                    self.give_up(s, side, own, 487);
                    return;
                }
                // Heard of, and not decided: whoever asked has waited long enough.
                self.count("modification_overdue");
                if let Intent::PassOn(asked) = std::mem::replace(&mut own.intent, Intent::Abandoned)
                {
                    self.refuse_asked(asked.tx, 504);
                }
                s.party_mut(side).own = Some(own);
                self.cancel_own(s, side);
                self.advance(s, side.other());
            }
            OwnState::Unacknowledged { .. } => {
                s.party_mut(side).own = Some(own);
                self.answer_for_asker(s, side);
            }
        }
    }

    /// Gives a re-INVITE of ours up, as soon as it was heard of.
    fn cancel_own(&mut self, s: &mut Session, side: Side) {
        let Some(own) = s.party_mut(side).own.as_mut() else {
            return;
        };
        if let (
            Vehicle::Invite,
            OwnState::Sent {
                provisional,
                cancel,
                ..
            },
        ) = (own.vehicle, &mut own.state)
            && *cancel == Cancel::No
        {
            *cancel = Cancel::Wanted;
            if *provisional {
                self.send_own_cancel(s, side);
            }
        }
    }

    fn send_own_cancel(&mut self, s: &mut Session, side: Side) {
        let Some(OwnState::Sent { tx, cancel, .. }) =
            s.party_mut(side).own.as_mut().map(|own| &mut own.state)
        else {
            return;
        };
        *cancel = Cancel::Sent;
        let tx = *tx;
        let request = self.transactions.request(tx).and_then(compose::cancel_of);
        if let (Some(request), Some(peer)) = (request, self.transactions.peer(tx)) {
            self.say_farewell(peer, request, Purpose::Farewell);
        }
        let guard = self.config.timers.timeout();
        self.set_timer(s, SessionTimer::Modify(side), guard);
    }

    /// A CANCEL of a re-INVITE: ours is cancelled too, and whoever asked hears what comes of it.
    pub(super) fn cancel_asked(&mut self, s: &mut Session, invite: TxId) {
        for side in [Side::Caller, Side::Callee] {
            let asked = s.party(side).own.as_ref().and_then(OwnRequest::asked);
            if asked.is_none_or(|asked| asked.tx != invite) {
                continue;
            }
            let waiting = |own: &mut OwnRequest| matches!(own.state, OwnState::Waiting { .. });
            if let Some(own) = s.party_mut(side).own.take_if(waiting) {
                self.clear_timer(s, SessionTimer::Modify(side));
                self.give_up(s, side, own, 487);
            } else {
                self.cancel_own(s, side);
            }
        }
    }

    /// The call ends: whoever asked for a change hears 487 (RFC 3261 §15.1.2), and what is out is
    /// only waited for.
    pub(super) fn abandon_modifications(&mut self, s: &mut Session) {
        for side in [Side::Caller, Side::Callee] {
            let Some(mut own) = s.party_mut(side).own.take() else {
                continue;
            };
            self.clear_timer(s, SessionTimer::Modify(side));
            let intent = std::mem::replace(&mut own.intent, Intent::Abandoned);
            match own.state {
                OwnState::Unacknowledged { cseq, offer } => {
                    let sdp = self.refusal_of(s, side, &offer);
                    self.acknowledge(s, side, cseq, Some(&sdp));
                    continue;
                }
                OwnState::Waiting { .. } | OwnState::Sent { .. } => {}
            }
            if let Intent::PassOn(asked) = intent {
                self.refuse_asked(asked.tx, 487);
            }
            if own.owes_sip() {
                s.party_mut(side).own = Some(own);
                let guard = self.config.timers.timeout();
                self.set_timer(s, SessionTimer::Modify(side), guard);
            }
        }
    }

    /// What a peer's `Allow` says, if there is one.
    pub(super) fn hear_allow(&self, s: &mut Session, side: Side, headers: &Headers) {
        if headers.get(&HeaderName::Allow).is_some() {
            s.party_mut(side).allows = Allows::of(headers);
        }
    }

    /// RFC 3261 §14.2: a request that comes while another is being dealt with.
    pub(super) fn refuse_for_now(&mut self, tx: TxId, request: &Request) {
        self.count("modification_too_early");
        let seconds = self.rng.random_range(0..=10_u8);
        let retry = (HeaderName::RetryAfter, seconds.to_string());
        self.respond(tx, request, 500, None, &[retry]);
    }
}
