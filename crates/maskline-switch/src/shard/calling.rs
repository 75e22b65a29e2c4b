//! The way to B: the callflow, its checks, B's INVITE and what comes back to it.

use std::sync::Arc;
use std::time::Duration;

use maskline_events::{
    Action as FlowAction, CallStatus, Callflow, ErrorCode, LastAction, LegStatus, Msisdn, Party,
    SessionStatus, Update,
};
use maskline_media::{MediaAddresses, Side};
use rand::RngCore;

use super::record::Detail;
use super::{Gated, Purpose, Shard};
use crate::directory::NumberEntry;
use crate::identity::LeavingParts;
use crate::io::{Action, CallflowAnswer};
use crate::numbers;
use crate::outcome::outcome_of;
use crate::sdp::{self, Local};
use crate::session::early::EarlyDialogs;
use crate::session::{
    Callee, CalleeInvite, InviteParts, Leg, Media, Session, SessionTimer, Stage, Target,
};
use crate::sip::compose::{self, RequestParts};
use crate::sip::{HeaderName, LocalTag, Method, Request, Response, extensions, tag, view};
use crate::trace::Step;

impl Shard {
    /// CALL_RECEIVED is durable: the customer's server is asked.
    pub(super) fn ask_callflow(&mut self, s: &mut Session) {
        if s.stage != Stage::Journaling {
            return;
        }
        s.stage = Stage::Asking;
        self.trace_step(s, Step::Asked);
        let (event_id, body) = self.action_request(s);
        self.actions.push_back(Action::AskCallflow {
            session: s.key,
            sub_account_id: s.number.sub_account_id.clone(),
            event_id,
            body,
        });
        let guard = self.config.callflow_guard;
        self.set_timer(s, SessionTimer::CallflowGuard, guard);
    }

    pub(super) fn on_callflow_lost(&mut self, s: &mut Session) {
        self.on_callflow(
            s,
            CallflowAnswer::Unreachable("no answer in time".to_owned()),
        );
    }

    pub(super) fn on_callflow(&mut self, s: &mut Session, answer: CallflowAnswer) {
        if s.stage != Stage::Asking {
            return;
        }
        self.clear_timer(s, SessionTimer::CallflowGuard);
        self.trace_answer(s, &answer);
        match answer {
            CallflowAnswer::Callflow(flow) => self.follow(s, &flow),
            CallflowAnswer::Unreachable(reason) => {
                self.fail_before_callee(s, ErrorCode::Connectivity, 500, &reason);
            }
            CallflowAnswer::Invalid(reason) => {
                self.fail_before_callee(s, ErrorCode::CallflowInvalid, 500, &reason);
            }
        }
    }

    fn follow(&mut self, s: &mut Session, flow: &Callflow) {
        // The whole flow is looked at before any of it runs.
        let unsupported = flow
            .actions
            .iter()
            .enumerate()
            .find_map(|(at, action)| unsupported(action).map(|name| (at, name)));
        if let Some((at, name)) = unsupported {
            let reason =
                format!("$.callflow[{at}].action: {name} is not supported by this version");
            self.fail_before_callee(s, ErrorCode::CallflowInvalid, 500, &reason);
            return;
        }
        match flow.actions.first() {
            Some(FlowAction::MakeCall {
                source,
                destination,
                ..
            }) => {
                let (source, destination) = (source.clone(), destination.clone());
                s.last_action = Some(LastAction::MakeCall);
                self.make_call(s, &source, destination);
            }
            _ => {
                s.last_action = Some(LastAction::Hangup);
                s.status = Some(SessionStatus::Completed);
                self.refuse_caller(s, 603, &[]);
                self.end_leg(s, Side::Caller, 603, LegStatus::Completed, None);
                self.save(s);
                self.close(s);
            }
        }
    }

    fn make_call(&mut self, s: &mut Session, source: &Msisdn, destination: Msisdn) {
        let owned = self
            .directory
            .number(source)
            .filter(|entry| entry.sub_account_id == s.number.sub_account_id)
            .cloned();
        let Some(source) = owned else {
            self.fail_before_callee(
                s,
                ErrorCode::CallerIdNotAllowed,
                403,
                "makeCall's source is not a number of the sub-account",
            );
            return;
        };
        let verdict = match self.directory.countries(&s.number.sub_account_id) {
            Some(allowed) => {
                let is_virtual = self.directory.number(&destination).is_some();
                numbers::may_dial(&destination, allowed, is_virtual)
            }
            None => numbers::may_dial(&destination, &std::collections::BTreeSet::new(), false),
        };
        s.b = Some(self.new_callee_leg(&source, destination.clone()));
        if let Err(refused) = verdict {
            self.fail_callee(s, ErrorCode::NoCoverage, 403, &refused.to_string());
            return;
        }
        let ways = self
            .config
            .ways_out(source.trunk.as_deref(), &destination, &mut self.rng);
        let trunks = match ways {
            Ok(trunks) => trunks,
            Err(no_way) => {
                self.fail_callee(s, ErrorCode::Connectivity, 500, &no_way.to_string());
                return;
            }
        };
        s.attempts.waiting = self.candidates(&trunks).into();
        let Some(first) = s.attempts.waiting.front() else {
            let reason = "no address and socket to reach the trunk";
            self.fail_callee(s, ErrorCode::Connectivity, 500, reason);
            return;
        };
        s.stage = Stage::Preparing(Target {
            destination,
            source,
            trunk: first.trunk,
            peer: first.peer,
        });
        self.try_next(s);
    }

    fn new_callee_leg(&mut self, source: &Arc<NumberEntry>, destination: Msisdn) -> Leg {
        Leg {
            call_id: self.new_uuid(),
            source: Party::Number(source.msisdn.clone()),
            destination: Party::Number(destination),
            reference_id: source.reference_id.clone(),
            initiated: self.now.wall,
            connected: None,
            connected_tick: None,
            ringing: false,
            end: None,
        }
    }

    pub(super) fn on_media_refused(&mut self, s: &mut Session) {
        if !matches!(s.stage, Stage::Preparing(_)) {
            return;
        }
        self.clear_timer(s, SessionTimer::MediaGuard);
        self.count("media_refused");
        self.fail_callee(s, ErrorCode::Internal, 500, "no free media port");
    }

    pub(super) fn on_media_opened(&mut self, s: &mut Session, caller_port: u16, callee_port: u16) {
        self.clear_timer(s, SessionTimer::MediaGuard);
        if matches!(s.media, Media::Resuming { .. }) {
            s.media = Media::Open {
                caller_port,
                callee_port,
            };
            return;
        }
        if s.media != Media::Opening {
            self.close_media(s.media_key(self.config.shard));
            return;
        }
        s.media = Media::Open {
            caller_port,
            callee_port,
        };
        let Stage::Preparing(target) = s.stage.clone() else {
            return;
        };
        let opened = Step::MediaOpened {
            caller_port,
            callee_port,
        };
        self.trace_step(s, opened);
        let Some(parts) = self.parts_of_attempt(s, &target) else {
            self.fail_callee(
                s,
                ErrorCode::Connectivity,
                500,
                "no socket reaches the trunk",
            );
            return;
        };
        s.outbound = Some(Callee {
            parts,
            invite: CalleeInvite::Gated,
            early: EarlyDialogs::default(),
            tries: 0,
            credentials: Vec::new(),
        });
        s.stage = Stage::Calling;
        if let Some(leg) = s.b.as_mut() {
            leg.initiated = self.now.wall;
        }
        self.record(
            s,
            Side::Callee,
            CallStatus::CallInitiated,
            Detail::default(),
        );
        let commit = self.save(s);
        self.gate(s, commit, Gated::InviteCallee);
    }

    /// As [`Self::invite_parts`], with keys of its own for each way to B.
    pub(super) fn parts_of_attempt(
        &mut self,
        s: &mut Session,
        target: &Target,
    ) -> Option<InviteParts> {
        s.callee.srtp = self.srtp_of(target.trunk, target.peer.transport)?;
        self.invite_parts(s, target)
    }

    /// B's INVITE is built from nothing: the virtual number, the callee, and us.
    fn invite_parts(&mut self, s: &Session, target: &Target) -> Option<InviteParts> {
        let peer = target.peer;
        let trunk = self.config.trunk(target.trunk)?;
        let sent_by = self.sent_by(peer);
        let trunk_name = trunk.name.clone();
        // A `sips:` URI says nothing more of its transport (RFC 5630 §3.1.4).
        let sips = trunk.tls.sips && peer.transport == crate::sip::Transport::Tls;
        let uri_parameters = if sips {
            ""
        } else {
            peer.transport.uri_parameter()
        };
        let local_tag = LocalTag {
            shard: self.config.shard,
            side: Side::Callee,
            session: s.key,
            secret: self.rng.next_u64(),
        };
        let mut leaving = trunk.identity.leaving(&LeavingParts {
            source: &target.source.msisdn,
            destination: &target.destination,
            target: &trunk.address.in_uri(),
            uri_parameters,
            ours: &sent_by.host_port,
            tag: &local_tag.to_string(),
        });
        if sips {
            leaving.uri = leaving.uri.replacen("sip:", "sips:", 1);
            leaving.to = leaving.to.replacen("<sip:", "<sips:", 1);
        }
        Some(InviteParts {
            uri: leaving.uri,
            branch: self.branch(),
            from: leaving.from,
            to: leaving.to,
            extra: leaving.extra,
            call_id: tag::new_call_id(&mut self.rng),
            cseq: 1,
            session_expires: self
                .config
                .session_expires
                .map_or(0, |it| u32::try_from(it.as_secs()).unwrap_or(0)),
            session_least: extensions::LEAST_INTERVAL_SECONDS,
            peer,
            trunk: trunk_name,
        })
    }

    /// CALL_INITIATED is durable: the INVITE leaves.
    pub(super) fn send_invite(&mut self, s: &mut Session) {
        let Media::Open { callee_port, .. } = s.media else {
            return;
        };
        if !matches!(
            s.outbound.as_ref().map(|callee| &callee.invite),
            Some(CalleeInvite::Gated)
        ) || self.gives_up_behind_a_late_ring(s)
        {
            return;
        }
        // A caller without an offer gets its choice of what the callee takes of ours.
        let (codecs, ptime_ms, direction) = match &s.caller.described {
            Some(offer) => (
                self.offered_first(s, offer),
                offer.ptime_ms,
                offer.direction,
            ),
            None => (sdp::defaults(), None, sdp::Direction::SendRecv),
        };
        let sdp = self.describe(s, Side::Callee, callee_port, |local| {
            sdp::write_offer(local, &codecs, ptime_ms, direction)
        });
        let credentials = self.invite_credentials(s, &sdp);
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        callee.credentials = credentials;
        let sent = self.compose_invite(callee, Some(&sdp)).and_then(|invite| {
            self.transactions.send_again(
                self.now.tick,
                callee.parts.peer,
                invite,
                Purpose::Invite(s.key, s.attempts.current),
                callee.tries,
            )
        });
        let Some(tx) = sent else {
            callee.invite = CalleeInvite::Ended;
            self.fail_callee(s, ErrorCode::Internal, 500, "the INVITE could not be built");
            return;
        };
        callee.invite = CalleeInvite::Calling {
            tx,
            provisional: false,
        };
        let no_answer = self.config.no_answer;
        self.set_timer(s, SessionTimer::NoAnswer, no_answer);
        self.watch_silence(s);
    }

    /// B's INVITE; without SDP where only its head matters: its dialog, its CANCEL.
    pub(super) fn compose_invite(&self, callee: &Callee, sdp: Option<&str>) -> Option<Request> {
        let parts = &callee.parts;
        let extra: Vec<_> = parts
            .extra
            .iter()
            .map(|(name, value)| (view::header_name(name), value.clone()))
            .chain([(HeaderName::Supported, extensions::SUPPORTED.to_owned())])
            .chain(extensions::timer_request(
                parts.session_expires,
                parts.session_least,
            ))
            .chain(callee.credentials.iter().cloned())
            .collect();
        compose::request(&RequestParts {
            method: Method::Invite,
            uri: &parts.uri,
            routes: &[],
            sent_by: &self.sent_by(parts.peer),
            branch: &parts.branch,
            from: &parts.from,
            to: &parts.to,
            call_id: &parts.call_id,
            cseq: parts.cseq,
            sdp,
            extra: &extra,
        })
    }

    /// How we describe our own end of the media towards a side.
    pub(super) fn local(&self, s: &Session, side: Side, port: u16) -> Local {
        // What a party says of itself counts more, where it has.
        let way = match side {
            Side::Caller => s.caller.dialog.as_ref().map(|dialog| dialog.peer),
            Side::Callee => s.outbound.as_ref().map(|callee| callee.parts.peer),
        };
        let elsewhere = s.media_address.map(MediaAddresses::from);
        let ours = elsewhere.unwrap_or(self.config.media_addresses);
        let ours = way.map_or(ours, |peer| ours.preferring(peer.addr.ip().to_canonical()));
        Local {
            address: ours.first(),
            second: ours.second(),
            srtp: s.party(side).srtp.ours(),
            port,
            // Derived from the random session key, so that both sides' descriptions share nothing.
            session_id: match side {
                Side::Caller => s.key >> 33,
                Side::Callee => s.key & 0x7fff_ffff,
            },
            version: s.party(side).sdp_version,
        }
    }

    pub(super) fn on_invite_response(&mut self, s: &mut Session, response: &Response) {
        let status = response.status.code();
        if self.try_longer_interval(s, response) {
            return;
        }
        let says_something = !(101..200).contains(&status) || self.take_provisional(s, response);
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        match (&mut callee.invite, status) {
            (CalleeInvite::Calling { provisional, .. }, 100..=199) => {
                *provisional = true;
                if says_something {
                    self.on_progress(s, response);
                }
            }
            (CalleeInvite::Calling { .. }, 200..=299) => self.on_callee_answered(s, response),
            (CalleeInvite::Calling { .. }, _) => {
                callee.invite = CalleeInvite::Ended;
                let cause = view::q850_cause(&response.headers);
                if !self.fails_over(s, response, cause) {
                    self.on_callee_refused(s, status, cause);
                }
            }
            (CalleeInvite::Cancelling { sent: false, .. }, 100..=199) => self.send_cancel(s),
            (CalleeInvite::Cancelling { sent: true, .. } | CalleeInvite::Gated, 100..=199) => {}
            (CalleeInvite::Cancelling { .. } | CalleeInvite::Ended, 200..=299) => {
                // It crossed our CANCEL: acknowledged and ended, and nobody hears of it.
                callee.invite = CalleeInvite::Ended;
                self.clear_timer(s, SessionTimer::CancelGuard);
                if let Some(callee) = s.outbound.clone() {
                    self.acknowledge_and_end(s, &callee, response);
                }
            }
            (CalleeInvite::Cancelling { .. }, _) => {
                callee.invite = CalleeInvite::Ended;
                self.clear_timer(s, SessionTimer::CancelGuard);
            }
            (CalleeInvite::Answered { .. }, 200..=299) => self.on_answer_again(s, response),
            (CalleeInvite::Gated | CalleeInvite::Ended | CalleeInvite::Answered { .. }, _) => {}
        }
    }

    /// B rings. `false`: that is known already.
    pub(super) fn on_ringing(&mut self, s: &mut Session) -> bool {
        let first = s.b.as_mut().is_some_and(|leg| {
            let first = !leg.ringing;
            leg.ringing = true;
            first
        });
        if first {
            self.record(
                s,
                Side::Callee,
                CallStatus::CallUpdated,
                Detail::update(Update::Ringing),
            );
            self.save(s);
        }
        first
    }

    /// B refused: what A hears, and how the session ends (contract §3).
    pub(super) fn on_callee_refused(&mut self, s: &mut Session, status: u16, cause: Option<u8>) {
        self.clear_timer(s, SessionTimer::NoAnswer);
        let rang = s.b.as_ref().is_some_and(|leg| leg.ringing);
        let outcome = outcome_of(status, cause, rang);
        if outcome == SessionStatus::Error {
            let error = "the trunk reports a failure of the network";
            self.fail_callee_with(s, ErrorCode::Connectivity, status, 500, error);
            return;
        }
        let heard = match outcome {
            SessionStatus::Busy if status == 603 => 603,
            SessionStatus::Busy => 486,
            SessionStatus::Completed
            | SessionStatus::NoAnswer
            | SessionStatus::Failed
            | SessionStatus::Canceled
            | SessionStatus::Error => 480,
        };
        let extra: Vec<_> = cause
            .map(|cause| (HeaderName::Reason, format!("Q.850;cause={cause}")))
            .into_iter()
            .collect();
        s.status = Some(outcome);
        self.end_leg(s, Side::Callee, status, outcome, None);
        self.refuse_caller(s, heard, &extra);
        self.end_leg(s, Side::Caller, heard, LegStatus::Completed, None);
        self.save(s);
        self.close(s);
    }

    /// Nothing came back to B's INVITE, or its transport failed.
    pub(super) fn on_invite_unanswered(&mut self, s: &mut Session) {
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        let was_calling = match callee.invite {
            CalleeInvite::Calling { .. } => true,
            CalleeInvite::Cancelling { .. } => false,
            // An answered INVITE's transaction only lingers: that its stream breaks changes
            // nothing, and a repeated 2xx is still the call's own.
            CalleeInvite::Gated | CalleeInvite::Answered { .. } | CalleeInvite::Ended => return,
        };
        callee.invite = CalleeInvite::Ended;
        self.clear_timer(s, SessionTimer::CancelGuard);
        if was_calling {
            self.clear_timer(s, SessionTimer::NoAnswer);
            if !self.fails_over_unanswered(s) {
                self.on_nothing_came_back(s);
            }
        }
    }

    pub(super) fn on_nothing_came_back(&mut self, s: &mut Session) {
        let reason = "nothing came back from the trunk";
        self.fail_callee_with(s, ErrorCode::Connectivity, 408, 500, reason);
    }

    pub(super) fn on_no_answer(&mut self, s: &mut Session) {
        if s.stage != Stage::Calling {
            return;
        }
        let provisional = matches!(
            s.outbound.as_ref().map(|callee| &callee.invite),
            Some(CalleeInvite::Calling {
                provisional: true,
                ..
            })
        );
        let rang = s.b.as_ref().is_some_and(|leg| leg.ringing);
        self.cancel_callee(s);
        if !provisional {
            self.on_nothing_came_back(s);
            return;
        }
        let outcome = if rang {
            SessionStatus::NoAnswer
        } else {
            SessionStatus::Failed
        };
        s.status = Some(outcome);
        self.end_leg(s, Side::Callee, 487, outcome, None);
        self.refuse_caller(s, 480, &[]);
        self.end_leg(s, Side::Caller, 480, LegStatus::Completed, None);
        self.save(s);
        self.close(s);
    }

    /// Gives B's INVITE up, whatever its state is. What still comes of it changes no event.
    pub(super) fn cancel_callee(&mut self, s: &mut Session) {
        self.clear_timer(s, SessionTimer::NoAnswer);
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        match callee.invite {
            CalleeInvite::Gated => callee.invite = CalleeInvite::Ended,
            CalleeInvite::Calling { tx, provisional } => {
                callee.invite = CalleeInvite::Cancelling { tx, sent: false };
                if provisional {
                    self.send_cancel(s);
                }
            }
            CalleeInvite::Cancelling { .. }
            | CalleeInvite::Answered { .. }
            | CalleeInvite::Ended => {}
        }
    }

    pub(super) fn send_cancel(&mut self, s: &mut Session) {
        let Some(callee) = s.outbound.as_mut() else {
            return;
        };
        let CalleeInvite::Cancelling { tx, .. } = callee.invite else {
            return;
        };
        callee.invite = CalleeInvite::Cancelling { tx, sent: true };
        let cancel = self.transactions.request(tx).and_then(compose::cancel_of);
        if let Some(cancel) = cancel {
            // It follows the INVITE, which may have gone by TCP for its size.
            let peer = self.transactions.peer(tx).unwrap_or(callee.parts.peer);
            self.say_farewell(peer, cancel, Purpose::Farewell);
        }
        // RFC 3261 §9.1: without a final answer in 64·T1 the INVITE is given up.
        let guard: Duration = self.config.timers.timeout();
        self.set_timer(s, SessionTimer::CancelGuard, guard);
    }

    pub(super) fn on_cancel_guard(&mut self, s: &mut Session) {
        if let Some(callee) = s.outbound.as_mut()
            && let CalleeInvite::Cancelling { tx, .. } = callee.invite
        {
            callee.invite = CalleeInvite::Ended;
            self.transactions.forget(tx);
        }
    }
}

/// The name of an action that this version cannot carry out.
const fn unsupported(action: &FlowAction) -> Option<&'static str> {
    match action {
        FlowAction::MakeCall { .. } | FlowAction::Hangup => None,
        FlowAction::Say { .. } => Some("say"),
        FlowAction::PlayFile { .. } => Some("playFile"),
        FlowAction::SayAndCapture(_) => Some("sayAndCapture"),
    }
}
