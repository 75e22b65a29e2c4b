//! Our provisional answers to A: sent once, or reliably until the PRACK comes (RFC 3262).

use maskline_events::{ErrorCode, ErrorDetails, LegStatus};
use maskline_media::Side;
use rand::RngCore;

use super::Shard;
use crate::session::early::{PendingProvisional, Provisional};
use crate::session::{Probe, Session, SessionTimer, Stage};
use crate::sip::extensions::{self, Numbering};
use crate::sip::{HeaderName, Request, TxId, compose};

/// Most provisional answers that wait for the PRACK of one before them.
const MOST_WAITING: usize = 4;

const NO_PRACK: &str = "the caller never acknowledged a provisional answer";

impl Shard {
    /// Sends A a provisional answer. One at a time is unacknowledged (RFC 3262 §3); the next one
    /// waits for it.
    pub(super) fn send_provisional(&mut self, s: &mut Session, provisional: Provisional) {
        if s.final_sent || s.stage != Stage::Calling {
            return;
        }
        if s.provisionals.unacknowledged.is_some() {
            if s.provisionals.waiting.len() < MOST_WAITING {
                s.provisionals.waiting.push_back(provisional);
            }
            return;
        }
        let (Some(tx), Some(dialog)) = (s.invite, s.caller.dialog.as_ref()) else {
            return;
        };
        let mut extra = vec![
            (
                HeaderName::Contact,
                self.sent_by(s.caller_invite.peer).contact(),
            ),
            (HeaderName::Allow, compose::ALLOW.to_owned()),
        ];
        if s.provisionals.reliable {
            let first = self.rng.next_u32() >> 1;
            let numbering = s
                .provisionals
                .numbering
                .get_or_insert_with(|| Numbering::starting_at(first));
            let Some(rseq) = numbering.allocate() else {
                return;
            };
            extra.push((HeaderName::Require, extensions::RELIABLE.to_owned()));
            extra.push((HeaderName::RSeq, rseq.to_string()));
        }
        let response = self.transactions.request(tx).and_then(|invite| {
            compose::response(
                invite,
                provisional.status,
                Some(&dialog.local_tag),
                &extra,
                provisional.sdp.as_deref(),
            )
        });
        let Some(response) = response else {
            return;
        };
        self.transactions
            .respond(self.now.tick, tx, response.clone());
        if s.provisionals.reliable {
            if let (Some(heard), Some(_)) = (s.provisionals.heard.as_mut(), &provisional.sdp) {
                heard.is_answer = true;
            }
            let timers = self.config.timers;
            s.provisionals.unacknowledged = Some(PendingProvisional {
                response,
                has_sdp: provisional.sdp.is_some(),
                interval: timers.t1,
                gives_up: self.now.tick + timers.timeout(),
            });
            self.set_timer(s, SessionTimer::ResendProvisional, timers.t1);
        }
    }

    pub(super) fn on_resend_provisional(&mut self, s: &mut Session) {
        let tick = self.now.tick;
        let (Some(tx), Some(pending)) = (s.invite, s.provisionals.unacknowledged.as_mut()) else {
            return;
        };
        if tick < pending.gives_up {
            // The interval has no upper bound (RFC 3262 §3), on streams as on datagrams.
            pending.interval *= 2;
            let next = pending.interval.min(pending.gives_up.since(tick));
            let response = pending.response.clone();
            self.transactions.respond(tick, tx, response);
            self.set_timer(s, SessionTimer::ResendProvisional, next);
            return;
        }
        self.count("never_pracked");
        if s.stage == Stage::Calling {
            self.cancel_callee(s);
            self.fail_callee_with(s, ErrorCode::Connectivity, 487, 500, NO_PRACK);
            return;
        }
        // B has answered, and A's 200 was waiting: A is gone, like one that acknowledges no 200.
        self.refuse_caller(s, 500, &[]);
        s.caller.owed_bye = None;
        if !s.is_live(Side::Caller) {
            return;
        }
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, NO_PRACK);
        for (side, code) in [(Side::Caller, 408), (Side::Callee, 200)] {
            self.end_leg(s, side, code, LegStatus::Completed, Some(error.clone()));
        }
        self.finish_call(s, vec![Side::Callee], Some(error));
    }

    /// A's final answer leaves: what is unacknowledged is not sent again, but its PRACK is still
    /// answered (RFC 3262 §3).
    pub(super) fn stop_provisionals(&mut self, s: &mut Session) {
        s.provisionals.unacknowledged = None;
        s.provisionals.waiting.clear();
        s.provisionals.holds_answer = false;
        self.clear_timer(s, SessionTimer::ResendProvisional);
    }

    /// Whether A's 200 has to wait for a PRACK: of a provisional answer with SDP (RFC 3262 §3).
    pub(super) fn holds_answer(&mut self, s: &mut Session) -> bool {
        let holds = s
            .provisionals
            .unacknowledged
            .as_ref()
            .is_some_and(|pending| pending.has_sdp);
        s.provisionals.holds_answer = holds;
        holds
    }

    pub(super) fn on_prack(&mut self, tx: TxId, prack: &Request) {
        let Some((key, side)) = self.dialog_of(prack) else {
            self.count("no_such_dialog");
            self.refuse(tx, prack, 481, &[]);
            return;
        };
        self.with(key, |shard, s| {
            if !shard.take_in_dialog(s, side, tx, prack) {
                return;
            }
            let cseq = s.provisionals.invite_cseq;
            let matches = side == Side::Caller
                && s.provisionals
                    .numbering
                    .as_mut()
                    .is_some_and(|numbering| extensions::acknowledges(numbering, prack, cseq));
            // That of an earlier run, whose numbers are lost, is to end too.
            let lost = side == Side::Caller
                && s.provisionals.numbering.is_none()
                && s.caller.probe != Probe::None;
            if !matches && !lost {
                shard.count("stray_prack");
                shard.respond(tx, prack, 481, None, &[]);
                return;
            }
            // What B sends before its answer is not A's to change: an offer is out of place here
            // (RFC 3262 §5).
            let status = if prack.body().is_empty() { 200 } else { 488 };
            shard.respond(tx, prack, status, None, &[]);
            s.provisionals.unacknowledged = None;
            shard.clear_timer(s, SessionTimer::ResendProvisional);
            if s.provisionals.holds_answer {
                s.provisionals.holds_answer = false;
                shard.answer_caller(s);
            } else if let Some(next) = s.provisionals.waiting.pop_front() {
                shard.send_provisional(s, next);
            }
        });
    }
}
