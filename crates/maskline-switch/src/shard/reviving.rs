//! A connected call goes on after a short restart: its ports and places are taken again, its dialogs
//! go on, and each party is asked once whether it is still there.
//!
//! Nothing of this shows in an event. What can't be taken up again is ended, as after a long absence
//! ([`super::adopting`]).

use std::time::Duration;

use maskline_events::{EarlyMedia, ErrorCode, ErrorDetails};
use maskline_media::{MediaCommand, Side};
use rand::RngCore;
use sipx_sip::{RequestBuilder, Uri};

use super::{Purpose, Shard};
use crate::config::TrunkId;
use crate::io::Action;
use crate::living::Living;
use crate::session::early::HeardEarly;
use crate::session::{CalleeInvite, CallerInvite, Media, Probe, Session, SessionTimer, Stage};
use crate::sip::extensions::{Expiry, TimerAnswer};
use crate::sip::{HeaderName, Message, Method, Request, Response, TxId, view};

/// How long until a refresh of ours after a restart.
const REFRESH: Duration = Duration::from_secs(10);
/// Versions of our SDP that a party may know of beside the one in the snapshot, and the next: one
/// request of ours at most is under way.
const UNSAVED_VERSIONS: u64 = 2;

/// What a living call needs of the configuration is there.
#[derive(Debug)]
pub(super) struct Placed {
    /// Trunk and socket of A.
    caller: (TrunkId, u16),
    /// Trunk and socket of B.
    callee: (TrunkId, u16),
}

/// What came of a question whether a party is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A final answer.
    Status(u16),
    /// Nothing, in 64·T1.
    Nothing,
    /// It could not be asked.
    Nowhere,
}

impl Shard {
    /// Whether a connected call of an earlier run can go on; `None`: it is to be ended.
    pub(super) fn place_again(
        &mut self,
        s: &Session,
        living: &Living,
        away: Option<Duration>,
    ) -> Option<Placed> {
        if away.is_none_or(|away| away > self.config.adopt_within)
            || self.config.adopt_within.is_zero()
        {
            return None;
        }
        let caller = s.caller.dialog.as_ref()?.peer;
        let callee = s.callee.dialog.as_ref()?.peer;
        let placed = living
            .caller
            .placed(caller, &self.config)
            .zip(living.callee.placed(callee, &self.config))
            .map(|(caller, callee)| Placed { caller, callee });
        if placed.is_none() {
            self.count("call_without_its_trunk_or_socket");
        }
        placed
    }

    /// The call goes on.
    pub(super) fn revive(
        &mut self,
        s: &mut Session,
        living: Living,
        placed: &Placed,
        expiries: (Option<Expiry>, Option<Expiry>),
    ) {
        self.count("call_revived");
        let Living {
            acknowledged,
            answered_early,
            caller_port,
            callee_port,
            media_address,
            negotiated,
            caller,
            callee,
        } = living;
        s.stage = Stage::Connected;
        s.media_address = media_address;
        s.negotiated = Some(negotiated);
        s.provisionals.heard = answered_early.map(|sdp| HeardEarly {
            remote_tag: String::new(),
            sdp,
            is_answer: true,
        });
        for (side, party, (trunk, listener)) in [
            (Side::Caller, caller, placed.caller),
            (Side::Callee, callee, placed.callee),
        ] {
            let of_side = s.party_mut(side);
            of_side.described = Some(party.described);
            of_side.sdp_version = party.sdp_version;
            of_side.holding = party.holding;
            of_side.allows = party.allows;
            if let Some(dialog) = of_side.dialog.as_mut() {
                dialog.peer.listener = listener;
            }
            s.places.push((side, trunk));
            self.actions.push_back(Action::Occupy { trunk });
        }
        self.trace_legs(s);
        s.caller_invite.peer.listener = placed.caller.1;
        if let Some(callee) = s.outbound.as_mut() {
            callee.parts.peer.listener = placed.callee.1;
            let peer = callee.parts.peer;
            callee.invite = CalleeInvite::Answered { ack: None, peer };
        }
        // Other ways to B may still ring.
        self.cancel_adopted_attempts(s);
        s.media = Media::Resuming {
            caller_port,
            callee_port,
        };
        let seed = self.rng.next_u64();
        self.actions.push_back(Action::Media(MediaCommand::Resume {
            key: s.media_key(self.config.shard),
            seed,
            caller_port,
            callee_port,
            address: media_address,
        }));
        self.program(s);
        let lasted = self.lasted(s);
        let left = self.config.max_duration.saturating_sub(lasted);
        self.set_timer(s, SessionTimer::MaxDuration, left);
        self.run_timers_again(s, Side::Caller, expiries.0);
        self.run_timers_again(s, Side::Callee, expiries.1);
        if !acknowledged {
            self.answer_again(s, lasted);
        }
        for side in [Side::Caller, Side::Callee] {
            let party = s.party_mut(side);
            // The 200 that is repeated has the version that it had.
            party.last_sdp = None;
            party.sdp_version += UNSAVED_VERSIONS;
            self.ask_if_there(s, side);
        }
        // The numbers that this run uses are above those of the next one's snapshot.
        self.save(s);
    }

    /// How long A has been connected, by the wall clock.
    fn lasted(&self, s: &Session) -> Duration {
        let connected = s.a.connected.unwrap_or(self.now.wall);
        let ms = self.now.wall.unix_ms().saturating_sub(connected.unix_ms());
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// A side's session timer runs anew. How much of it is over is not known, so that a refresh of
    /// ours comes soon.
    fn run_timers_again(&mut self, s: &mut Session, side: Side, expiry: Option<Expiry>) {
        self.run_session_timer(s, side, expiry);
        if expiry.is_some_and(|expiry| expiry.we_refresh) {
            self.set_timer(s, SessionTimer::Refresh(side), REFRESH);
        }
    }

    /// Whether A's 200 left, and whether its ACK came, is not known: the same 200 again is
    /// acknowledged again (RFC 3261 §13.2.2.4). The snapshot was made before the 200, so it lacks
    /// what that said of the session timer.
    fn answer_again(&mut self, s: &mut Session, lasted: Duration) {
        let routes = s.caller.dialog.as_ref().map(|dialog| &dialog.routes);
        let Some(invite) = routes.and_then(|routes| rebuilt(&s.caller_invite, routes)) else {
            return;
        };
        // An older call would have been ended if its 200 had not been acknowledged.
        if lasted >= self.config.timers.timeout() {
            if let TimerAnswer::Run { expiry, .. } = self.timer_answer(&invite.headers, None) {
                self.run_timers_again(s, Side::Caller, Some(expiry));
            }
            return;
        }
        let (Some(sdp), Some(dialog)) = (self.answer_sdp(s), s.caller.dialog.as_ref()) else {
            return;
        };
        let local_tag = dialog.local_tag.clone();
        let peer = s.caller_invite.peer;
        let resumed = self
            .transactions
            .resume_request(self.now.tick, peer, invite);
        if let Some(tx) = resumed {
            let said = self.answered_early(s, &sdp).unwrap_or(sdp);
            self.accept(s, Side::Caller, tx, &local_tag, &said, false);
            if s.number.early_media == EarlyMedia::PassThrough {
                // A may have had another answer before, which counts.
                self.align(s, Side::Caller);
            }
        }
    }

    /// Asks a party whether it still knows its dialog: it may have hung up while nobody listened.
    fn ask_if_there(&mut self, s: &mut Session, side: Side) {
        let party = s.party_mut(side);
        party.probe = Probe::Asked;
        let Some(dialog) = party.dialog.as_mut() else {
            return;
        };
        let (peer, second_way) = (dialog.next_hop(), dialog.second_way());
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        let sent = dialog
            .request(Method::Options, &sent_by, &branch)
            .and_then(|options| {
                let purpose = Purpose::StillThere(s.key, side);
                self.transactions
                    .send_request(self.now.tick, peer, options, purpose)
            });
        if let (Some(tx), Some(way)) = (sent, second_way) {
            self.transactions.set_second_way(tx, way);
        }
    }

    /// What [`Self::ask_if_there`] brought. RFC 3261 §12.2.1.2: 481, 408 and no answer end the dialog;
    /// with any other answer the party is there.
    pub(super) fn on_probed(&mut self, s: &mut Session, side: Side, heard: Heard) {
        if s.stage != Stage::Connected {
            return;
        }
        match heard {
            Heard::Status(481) => {
                self.count("hung_up_unheard");
                // A party that still waits for its 200 is to be told of the end once it has it.
                let by = s.party(side).pending_2xx.is_none().then_some(side);
                self.hang_up(s, by, None);
            }
            Heard::Status(408) | Heard::Nothing => {
                self.count("party_gone");
                let reason = match side {
                    Side::Caller => "the caller can't be reached any more",
                    Side::Callee => "the callee can't be reached any more",
                };
                let error = ErrorDetails::with_reason(ErrorCode::Connectivity, reason);
                self.hang_up(s, None, Some(error));
            }
            Heard::Status(_) => s.party_mut(side).probe = Probe::Answered,
            // Its stream died with the process, and it listens nowhere: it opens another when it has
            // something to say. If it is gone, its silence or its session timer tells.
            Heard::Nowhere => {
                self.count("party_unreachable");
                let party = s.party_mut(side);
                if party.probe == Probe::Asked {
                    party.probe = Probe::Unreachable;
                }
            }
        }
    }

    /// A request of a party came in its dialog: over a stream the party is reached by the one that
    /// the request came by.
    pub(super) fn heard_from(&self, s: &mut Session, side: Side, tx: TxId) {
        let party = s.party_mut(side);
        match party.probe {
            Probe::Asked | Probe::Unreachable => party.probe = Probe::Answered,
            Probe::None | Probe::Answered => {}
        }
        let dialog = party.dialog.as_mut();
        let Some((peer, dialog)) = self.transactions.peer(tx).zip(dialog) else {
            return;
        };
        let known = &mut dialog.peer;
        if peer.transport.is_stream()
            && peer.transport == known.transport
            && peer.addr.ip() == known.addr.ip()
        {
            *known = peer;
        }
    }

    /// The ports of the earlier run are gone.
    pub(super) fn on_resume_refused(&mut self, s: &mut Session) {
        self.count("media_refused");
        s.media = Media::None;
        let reason = "the call's media ports could not be taken again";
        let error = ErrorDetails::with_reason(ErrorCode::Internal, reason);
        self.hang_up(s, None, Some(error));
    }

    /// A party repeats a 2xx to an INVITE of an earlier run. To a re-INVITE it says that the party took
    /// what is not in use: it is told again what is.
    pub(super) fn acknowledge_again(&mut self, s: &mut Session, side: Side, response: &Response) {
        let headers = &response.headers;
        let dialog = s.party(side).dialog.clone().filter(|dialog| {
            view::to_tag(headers).as_deref() == Some(&dialog.remote_tag)
                && view::call_id(headers).as_deref() == Some(&dialog.call_id)
        });
        let (Some(dialog), Some((cseq, _))) = (dialog, view::cseq(headers)) else {
            return;
        };
        let peer = dialog.next_hop();
        let (sent_by, branch) = (self.sent_by(peer), self.branch());
        if let Some(ack) = dialog.ack(cseq, &sent_by, &branch, None) {
            self.transactions.send_bare(peer, Message::Request(ack));
        }
        let first = match side {
            Side::Caller => None,
            Side::Callee => s.outbound.as_ref().map(|callee| callee.parts.cseq),
        };
        if first != Some(cseq) {
            self.align(s, side);
        }
    }
}

/// A's INVITE, as far as its transaction and its answers need it.
pub(super) fn rebuilt(invite: &CallerInvite, routes: &[String]) -> Option<Request> {
    let uri = Uri::parse(bytes::Bytes::from_static(b"sip:invalid.invalid")).ok()?;
    let mut builder = RequestBuilder::new(Method::Invite, uri);
    for via in &invite.vias {
        builder = builder.header(HeaderName::Via, via.clone()).ok()?;
    }
    for route in routes {
        builder = builder
            .header(HeaderName::RecordRoute, route.clone())
            .ok()?;
    }
    let to = invite
        .to
        .rsplit_once(";tag=")
        .map(|(to, _)| to.to_owned())?;
    for (name, value) in [
        (HeaderName::From, invite.from.clone()),
        (HeaderName::To, to),
        (HeaderName::CallId, invite.call_id.clone()),
        (HeaderName::CSeq, invite.cseq.clone()),
    ] {
        builder = builder.header(name, value).ok()?;
    }
    for (name, value) in &invite.terms {
        let name = HeaderName::parse(&bytes::Bytes::copy_from_slice(name.as_bytes()));
        builder = builder.header(name, value.clone()).ok()?;
    }
    Some(builder.max_forwards(70).build())
}
