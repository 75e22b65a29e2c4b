//! How calls end: by either side, by a clock, by an error; each leg once, the session once.

use std::time::Duration;

use maskline_events::{CallStatus, ErrorCode, ErrorDetails, LegStatus, SessionStatus};
use maskline_media::{OneWay, Side, Tick};

use super::record::Detail;
use super::{Gated, Purpose, Shard};
use crate::io::Action;
use crate::overload::RETRY_AFTER_SECONDS;
use crate::session::{LegEnd, Media, OwedBye, Session, SessionTimer, Stage};
use crate::sip::{HeaderName, Method, Request, TxId, view};

/// How long the media figures of an ended call are waited for.
const SUMMARY_GUARD: Duration = Duration::from_secs(2);

impl Shard {
    /// Ends a leg: its one CALL_DISCONNECTED. A leg that connected ends with 200 unless `sip_code`
    /// says otherwise on purpose (408: A never acknowledged).
    pub(super) fn end_leg(
        &mut self,
        s: &mut Session,
        side: Side,
        sip_code: u16,
        status: LegStatus,
        error: Option<ErrorDetails>,
    ) {
        let (tick, wall): (Tick, _) = (self.now.tick, self.now.wall);
        let Some(leg) = s.leg_mut(side).filter(|leg| leg.end.is_none()) else {
            return;
        };
        leg.end = Some(LegEnd {
            at: wall,
            duration_seconds: leg.duration_seconds(tick, wall),
            sip_code,
            status,
        });
        self.record(
            s,
            side,
            CallStatus::CallDisconnected,
            Detail { data: None, error },
        );
        self.release_places(s, side);
    }

    /// Gives back the trunk places that a side holds.
    pub(super) fn release_places(&mut self, s: &mut Session, side: Side) {
        let actions = &mut self.actions;
        s.places.retain(|(held, trunk)| {
            if *held == side {
                actions.push_back(Action::Release { trunk: *trunk });
            }
            *held != side
        });
    }

    /// Every leg has ended: the media is closed, and its figures complete the summary.
    pub(super) fn close(&mut self, s: &mut Session) {
        for timer in [
            SessionTimer::CallflowGuard,
            SessionTimer::MediaGuard,
            SessionTimer::NoAnswer,
            SessionTimer::TrunkSilence,
            SessionTimer::MaxDuration,
        ] {
            self.clear_timer(s, timer);
        }
        let had_media = !matches!(s.media, Media::None | Media::Closing);
        if !had_media {
            self.summarise(s);
            return;
        }
        s.stage = Stage::Closing;
        s.media = Media::Closing;
        self.close_media(s.media_key(self.config.shard));
        self.set_timer(s, SessionTimer::SummaryGuard, SUMMARY_GUARD);
    }

    /// The platform or the VCA endpoint failed before there was a B.
    pub(super) fn fail_before_callee(
        &mut self,
        s: &mut Session,
        code: ErrorCode,
        heard: u16,
        reason: &str,
    ) {
        let error = ErrorDetails::with_reason(code, reason);
        s.status = Some(SessionStatus::Error);
        s.error = Some(error.clone());
        self.refuse_caller(s, heard, &[]);
        self.end_leg(s, Side::Caller, heard, LegStatus::Error, Some(error));
        self.save(s);
        self.close(s);
    }

    /// The platform failed on B's side before anything of B's came back.
    pub(super) fn fail_callee(
        &mut self,
        s: &mut Session,
        code: ErrorCode,
        heard: u16,
        reason: &str,
    ) {
        if s.stage != Stage::Calling {
            // B was decided on but never called: its leg begins and ends here, so that the summary
            // and the events name the same legs.
            self.record(
                s,
                Side::Callee,
                CallStatus::CallInitiated,
                Detail::default(),
            );
        }
        self.fail_callee_with(s, code, heard, heard, reason);
    }

    /// As [`Self::fail_callee`], with B's final status of its own.
    pub(super) fn fail_callee_with(
        &mut self,
        s: &mut Session,
        code: ErrorCode,
        sip_code: u16,
        heard: u16,
        reason: &str,
    ) {
        let error = ErrorDetails::with_reason(code, reason);
        s.status = Some(SessionStatus::Error);
        s.error = Some(error.clone());
        self.end_leg(
            s,
            Side::Callee,
            sip_code,
            LegStatus::Error,
            Some(error.clone()),
        );
        let extra: Vec<_> = (code == ErrorCode::TrunkCapacity)
            .then(|| (HeaderName::Reason, "Q.850;cause=34".to_owned()))
            .into_iter()
            .collect();
        self.refuse_caller(s, heard, &extra);
        self.end_leg(s, Side::Caller, heard, LegStatus::Completed, Some(error));
        self.save(s);
        self.close(s);
    }

    pub(super) fn on_bye(&mut self, tx: TxId, bye: &Request) {
        let Some((key, side)) = self.dialog_of(bye) else {
            if self.ended.owns(bye) {
                // It crossed our own BYE.
                self.respond(tx, bye, 200, None, &[]);
            } else {
                self.count("no_such_dialog");
                self.refuse(tx, bye, 481, &[]);
            }
            return;
        };
        self.with(key, |shard, s| {
            let in_order = s
                .party_mut(side)
                .dialog
                .as_mut()
                .is_some_and(|dialog| dialog.take_remote_cseq(&bye.headers));
            if !in_order {
                shard.count("cseq_out_of_order");
                shard.respond(tx, bye, 500, None, &[]);
                return;
            }
            shard.respond(tx, bye, 200, None, &[]);
            s.party_mut(side).owed_bye = None;
            // Whoever hangs up has the 2xx that made the dialog, whether or not its ACK got through.
            let party = s.party_mut(side);
            if party
                .pending_2xx
                .take_if(|pending| !pending.within)
                .is_some()
            {
                shard.clear_timer(s, SessionTimer::Resend(side));
            }
            if side == Side::Caller && s.a.connected.is_none() {
                // RFC 3261 §15: the caller may end an early dialog by BYE.
                shard.caller_gave_up(s);
                return;
            }
            shard.hang_up(s, Some(side), None);
            if side == Side::Caller && s.provisionals.holds_answer {
                // A's 200 waited for a PRACK, and A does not want it any more.
                shard.refuse_caller(s, 487, &[]);
            }
        });
    }

    /// Ends a call whose legs are connected: by this side, or by the platform.
    pub(super) fn hang_up(
        &mut self,
        s: &mut Session,
        by: Option<Side>,
        error: Option<ErrorDetails>,
    ) {
        let first = by.unwrap_or(Side::Caller);
        let mut owed = Vec::new();
        for side in [first, first.other()] {
            if !s.is_live(side) {
                continue;
            }
            self.end_leg(s, side, 200, LegStatus::Completed, error.clone());
            if by != Some(side) {
                owed.push(side);
            }
        }
        if matches!(s.stage, Stage::Closing | Stage::Summarised) {
            return;
        }
        self.finish_call(s, owed, error);
    }

    /// Records how a connected call ended, and owes the remaining parties their BYE.
    pub(super) fn finish_call(
        &mut self,
        s: &mut Session,
        owed: Vec<Side>,
        error: Option<ErrorDetails>,
    ) {
        s.status = Some(if error.is_some() {
            SessionStatus::Error
        } else {
            SessionStatus::Completed
        });
        s.error = error;
        self.abandon_modifications(s);
        for side in &owed {
            s.party_mut(*side).owed_bye = Some(OwedBye::Gated);
        }
        let commit = self.save(s);
        for side in owed {
            self.gate(s, commit, Gated::Bye(side));
            let gate = self.config.bye_gate;
            self.set_timer(s, SessionTimer::ByeGate, gate);
        }
        self.close(s);
    }

    /// The commit that a BYE waited for is there, or has taken too long.
    pub(super) fn open_bye_gate(&mut self, s: &mut Session, side: Side) {
        let party = s.party_mut(side);
        if party.owed_bye != Some(OwedBye::Gated) {
            return;
        }
        let pending = party.pending_2xx.is_some() && !party.has_2xx_unacknowledged();
        let unacknowledged = pending || (side == Side::Caller && !s.final_sent);
        if unacknowledged {
            s.party_mut(side).owed_bye = Some(OwedBye::Unacknowledged);
        } else {
            self.send_bye(s, side);
        }
    }

    pub(super) fn send_bye(&mut self, s: &mut Session, side: Side) {
        self.send_bye_for(s, side, Purpose::Farewell);
    }

    pub(super) fn send_bye_for(&mut self, s: &mut Session, side: Side, purpose: Purpose) {
        let party = s.party_mut(side);
        party.owed_bye = None;
        let Some(dialog) = party.dialog.as_mut() else {
            return;
        };
        let (peer, second_way) = (dialog.next_hop(), dialog.second_way());
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        if let Some(mut bye) = dialog.request(Method::Bye, &sent_by, &branch) {
            self.give_credentials(s, side, &mut bye);
            let sent = self.say_farewell(peer, bye, purpose);
            if let (Some(tx), Some(way)) = (sent, second_way) {
                self.transactions.set_second_way(tx, way);
            }
        }
        if s.callee.owed_bye.is_none() && s.caller.owed_bye.is_none() {
            self.clear_timer(s, SessionTimer::ByeGate);
        }
    }

    pub(super) fn on_max_duration(&mut self, s: &mut Session) {
        self.count("max_duration");
        self.hang_up(s, None, None);
    }

    /// A party that should send has been silent for too long.
    pub(super) fn on_silence(&mut self, s: &mut Session, side: Side) {
        if s.stage != Stage::Connected || s.caller.holding || s.callee.holding {
            return;
        }
        self.count("media_stopped");
        let reason = match side {
            Side::Caller => "the caller's media stopped",
            Side::Callee => "the callee's media stopped",
        };
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, reason);
        self.hang_up(s, None, Some(error));
    }

    /// One party hears nothing of the other: for whoever runs this to know. The call goes on.
    pub(super) fn on_one_way(&mut self, s: &Session, side: Side, fault: OneWay) {
        if s.stage != Stage::Connected || s.caller.holding || s.callee.holding {
            return;
        }
        let who = match side {
            Side::Caller => "A",
            Side::Callee => "B",
        };
        let text = format!("one-way audio: {who} {fault}");
        self.count("one_way_audio");
        self.trace_note(s, text.clone());
        self.actions.push_back(Action::Warn {
            session_id: s.id,
            text,
        });
    }

    /// The drain's deadline passed.
    pub(super) fn end_all(&mut self) {
        let live: Vec<_> = self.sessions.keys().copied().collect();
        for key in live {
            self.with(key, |shard, s| shard.end_now(s, "the node is shut down"));
        }
    }

    /// Ends a call for a reason of the platform's own, wherever it stands.
    pub(super) fn end_now(&mut self, s: &mut Session, reason: &str) {
        match s.stage {
            Stage::Admitting => {
                let retry = (HeaderName::RetryAfter, RETRY_AFTER_SECONDS.to_owned());
                self.refuse_caller(s, 503, &[retry]);
                s.stage = Stage::Summarised;
            }
            Stage::Journaling | Stage::Asking => {
                self.fail_before_callee(s, ErrorCode::Internal, 500, reason);
            }
            Stage::Preparing(_) => self.fail_callee(s, ErrorCode::Internal, 500, reason),
            Stage::Calling => {
                self.cancel_callee(s);
                self.fail_callee_with(s, ErrorCode::Internal, 487, 500, reason);
            }
            Stage::Answering | Stage::Connected => {
                let error = ErrorDetails::with_reason(ErrorCode::Internal, reason);
                self.hang_up(s, None, Some(error));
            }
            Stage::Closing | Stage::Summarised => {}
        }
    }

    /// The session and side whose dialog a request belongs to.
    pub(super) fn dialog_of(&self, request: &Request) -> Option<(crate::io::SessionKey, Side)> {
        let tag = view::to_tag(&request.headers)?;
        let tag = crate::sip::LocalTag::parse(&tag)?;
        let dialog = self
            .sessions
            .get(&tag.session)?
            .party(tag.side)
            .dialog
            .as_ref()?;
        dialog
            .owns(&request.headers)
            .then_some((tag.session, tag.side))
    }
}
