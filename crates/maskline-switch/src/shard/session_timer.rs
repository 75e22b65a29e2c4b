//! Session timers (RFC 4028), each side by itself: what is agreed, who refreshes, and what ends a
//! call that nobody refreshes.
//!
//! How a refresh travels is told in [`super::modify`].

use std::time::Duration;

use maskline_events::{ErrorCode, ErrorDetails};
use maskline_media::Side;

use super::{Gated, Shard};
use crate::session::early::EarlyDialogs;
use crate::session::{CalleeInvite, Session, SessionTimer, Stage};
use crate::sip::extensions::{self, Expiry, TimerAnswer};
use crate::sip::{HeaderName, Headers, Request, Response, TxId};

/// How long until a refresh that did not succeed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Most INVITEs to B in one call, each with a longer interval than the one before.
const MOST_INVITES: u32 = 4;

impl Shard {
    /// Refuses a request whose session interval is too small for us (RFC 4028 §9). `false`: it is
    /// not.
    pub(super) fn refuses_interval(&mut self, tx: TxId, request: &Request) -> bool {
        let too_small = self.timer_answer(&request.headers, None) == TimerAnswer::TooSmall;
        if too_small {
            self.count("session_interval_too_small");
            let least = extensions::LEAST_INTERVAL_SECONDS.to_string();
            let extra = [(HeaderName::MinSe, least)];
            if crate::sip::view::to_tag(&request.headers).is_some() {
                self.respond(tx, request, 422, None, &extra);
            } else {
                self.refuse(tx, request, 422, &extra);
            }
        }
        too_small
    }

    pub(super) fn timer_answer(&self, headers: &Headers, held: Option<Expiry>) -> TimerAnswer {
        extensions::timer_answer(headers, self.config.session_expires, held)
    }

    /// The headers of our 2xx to an INVITE or UPDATE of a side; the timer runs anew from here.
    pub(super) fn answer_timer(
        &mut self,
        s: &mut Session,
        side: Side,
        tx: TxId,
    ) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(HeaderName::Supported, extensions::SUPPORTED.to_owned())];
        let held = s.party(side).expiry;
        let Some(request) = self.transactions.request(tx) else {
            return headers;
        };
        if s.stage != Stage::Connected {
            return headers;
        }
        match self.timer_answer(&request.headers, held) {
            TimerAnswer::Run { expiry, require } => {
                let refresher = if expiry.we_refresh { "uas" } else { "uac" };
                let value = format!("{};refresher={refresher}", expiry.seconds);
                headers.push((HeaderName::SessionExpires, value));
                if require {
                    headers.push((HeaderName::Require, "timer".to_owned()));
                }
                self.run_session_timer(s, side, Some(expiry));
            }
            // A peer that knows no timer was still heard of.
            TimerAnswer::None | TimerAnswer::TooSmall => self.run_session_timer(s, side, held),
        }
        headers
    }

    /// The headers of a re-INVITE or UPDATE of ours (RFC 4028 §7.4): the roles stay as they are.
    pub(super) fn modifying_headers(&self, s: &Session, side: Side) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(HeaderName::Supported, extensions::SUPPORTED.to_owned())];
        if let Some(expiry) = s.party(side).expiry {
            let refresher = if expiry.we_refresh { "uac" } else { "uas" };
            let value = format!("{};refresher={refresher}", expiry.seconds);
            headers.push((HeaderName::SessionExpires, value));
            let least = extensions::LEAST_INTERVAL_SECONDS.to_string();
            headers.push((HeaderName::MinSe, least));
        }
        headers
    }

    /// A 2xx to our INVITE or UPDATE: its terms run from here (RFC 4028 §7.2).
    pub(super) fn hear_timer(&mut self, s: &mut Session, side: Side, headers: &Headers) {
        let held = s.party(side).expiry;
        let agreed = extensions::agreed_timer(headers, held);
        self.run_session_timer(s, side, agreed);
    }

    /// Runs a side's timer from now on, or none.
    pub(super) fn run_session_timer(
        &mut self,
        s: &mut Session,
        side: Side,
        expiry: Option<Expiry>,
    ) {
        s.party_mut(side).expiry = expiry;
        self.clear_timer(s, SessionTimer::Refresh(side));
        self.clear_timer(s, SessionTimer::Expiry(side));
        if let Some(expiry) = expiry {
            self.set_timer(s, SessionTimer::Expiry(side), expiry.ends_after());
            if expiry.we_refresh {
                self.set_timer(s, SessionTimer::Refresh(side), expiry.refreshes_after());
            }
        }
    }

    pub(super) fn on_refresh_due(&mut self, s: &mut Session, side: Side) {
        if matches!(s.stage, Stage::Closing | Stage::Summarised) {
            return;
        }
        // Until a 2xx runs the timer anew, it is tried again; whatever is under way refreshes as
        // well.
        self.set_timer(s, SessionTimer::Refresh(side), AGAIN);
        if self.refresh(s, side) {
            self.count("session_refreshed");
        }
    }

    /// The final answer to a refresh that ends nothing by itself. (408, 481 and silence end the
    /// call; 491 was tried again.)
    pub(super) fn on_refreshed(&mut self, s: &mut Session, side: Side, response: &Response) {
        if response.status.is_success() {
            return;
        }
        self.count("refresh_refused");
        if response.status.code() == 422
            && let Some(least) = extensions::least_interval(&response.headers)
            && let Some(expiry) = s.party_mut(side).expiry.as_mut()
        {
            expiry.seconds = expiry.seconds.max(least);
        }
    }

    /// Nobody refreshed a side in time (RFC 4028 §10).
    pub(super) fn on_session_expired(&mut self, s: &mut Session, side: Side) {
        if s.stage != Stage::Connected {
            return;
        }
        self.count("session_expired");
        let reason = match side {
            Side::Caller => "the caller's session was not refreshed",
            Side::Callee => "the callee's session was not refreshed",
        };
        let error = ErrorDetails::with_reason(ErrorCode::Connectivity, reason);
        self.hang_up(s, None, Some(error));
    }

    /// B wants a longer interval than our INVITE has: the same call is tried with it (RFC 4028
    /// §7.3). `false`: the 422 is a refusal like another.
    pub(super) fn try_longer_interval(&mut self, s: &mut Session, response: &Response) -> bool {
        let is_out = s
            .outbound
            .as_ref()
            .is_some_and(|callee| matches!(callee.invite, CalleeInvite::Calling { .. }));
        if response.status.code() != 422 || !is_out {
            return false;
        }
        let branch = self.branch();
        let Some(callee) = s.outbound.as_mut() else {
            return false;
        };
        let wanted = extensions::least_interval(&response.headers)
            .filter(|least| *least > callee.parts.session_expires);
        let Some(least) = wanted.filter(|_| callee.parts.cseq < MOST_INVITES) else {
            return false;
        };
        callee.parts.session_expires = least;
        callee.parts.session_least = least;
        callee.parts.cseq += 1;
        callee.parts.branch = branch;
        callee.early = EarlyDialogs::default();
        callee.invite = CalleeInvite::Gated;
        self.count("session_interval_raised");
        // A restarted node has to know which INVITE it cancels.
        let commit = self.save(s);
        self.gate(s, commit, Gated::InviteCallee);
        true
    }
}
