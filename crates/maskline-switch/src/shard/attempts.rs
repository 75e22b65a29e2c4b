//! Failover: a call that one address does not take goes on to the next, and B never rings twice.
//!
//! A 503, a 408, no answer at all or no way to send lead on; any 18x ends the search, because B may
//! have rung. An INVITE that was given up silent is remembered: a late 1xx gets a CANCEL, a late 2xx
//! its ACK and a BYE.

use std::time::Duration;

use maskline_events::ErrorCode;
use maskline_media::Side;

use super::{Gated, Purpose, Shard};
use crate::attempts::{Abandoned, AttemptEnd, Candidate};
use crate::config::TrunkId;
use crate::credentials::Answers;
use crate::io::Action;
use crate::session::early::EarlyDialogs;
use crate::session::{Callee, CalleeInvite, Session, SessionTimer, Stage};
use crate::sip::{Peer, Response, compose, view};
use crate::targets::TargetKey;

/// For how long a target that was silent is tried after all others.
const SILENCE_PENALTY: Duration = Duration::from_secs(30);
/// Longest time that a `Retry-After` keeps a target behind the others.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

impl Shard {
    /// The addresses of these trunks in the order in which a call tries them: those that are down
    /// or were silent a moment ago come last.
    pub(super) fn candidates(&mut self, trunks: &[TrunkId]) -> Vec<Candidate> {
        let (mut well, mut poorly) = (Vec::new(), Vec::new());
        for trunk in trunks {
            for target in self.targets.in_order(*trunk, &mut self.rng) {
                let Some(peer) = self.config.peer_at(target.transport, target.addr) else {
                    continue;
                };
                let candidate = Candidate {
                    trunk: *trunk,
                    peer,
                };
                if self.is_shunned(key_of(candidate)) {
                    poorly.push(candidate);
                } else {
                    well.push(candidate);
                }
            }
        }
        well.append(&mut poorly);
        well.truncate(self.config.failover.attempts.max(1));
        well
    }

    fn is_shunned(&self, key: TargetKey) -> bool {
        let penalised = self
            .shunned
            .get(&key)
            .is_some_and(|until| *until > self.now.tick);
        penalised || self.down.contains(&key)
    }

    fn shun(&mut self, key: TargetKey, time: Duration) {
        let now = self.now.tick;
        self.shunned.retain(|_, until| *until > now);
        // Only addresses of trunks are ever tried, so the map is no larger than their list.
        let until = self.shunned.entry(key).or_insert(now);
        *until = (*until).max(now + time);
    }

    /// Asks the next trunk for a place. Without another way, a call whose last attempt has ended
    /// ends by it, and one whose attempt is still out goes on.
    pub(super) fn try_next(&mut self, s: &mut Session) {
        let Some(candidate) = s.attempts.waiting.pop_front() else {
            self.conclude(s);
            return;
        };
        let has_place = s.places.contains(&(Side::Callee, candidate.trunk));
        if has_place && s.stage == Stage::Calling {
            self.begin_attempt(s, candidate);
            return;
        }
        s.attempts.admitting = Some(candidate);
        if let Stage::Preparing(target) = &mut s.stage {
            target.trunk = candidate.trunk;
            target.peer = candidate.peer;
            s.attempts.target = Some(target.clone());
        }
        self.actions.push_back(Action::Admit {
            session: s.key,
            side: Side::Callee,
            trunk: candidate.trunk,
            source: None,
        });
    }

    /// Nothing else is to be tried.
    fn conclude(&mut self, s: &mut Session) {
        let is_out = s.outbound.as_ref().is_some_and(|callee| {
            matches!(
                callee.invite,
                CalleeInvite::Gated | CalleeInvite::Calling { .. }
            )
        });
        if is_out {
            return;
        }
        match s.attempts.last {
            None => self.fail_callee(
                s,
                ErrorCode::TrunkCapacity,
                480,
                "the outbound trunk has no free place",
            ),
            Some(AttemptEnd::Refused { status, cause }) => {
                self.on_callee_refused(s, status, cause);
            }
            Some(AttemptEnd::Unanswered) => self.on_nothing_came_back(s),
        }
    }

    /// The place that an attempt after the first needs is there.
    pub(super) fn on_next_place(&mut self, s: &mut Session) {
        if let Some(candidate) = s.attempts.admitting.take() {
            self.begin_attempt(s, candidate);
        }
    }

    /// A new INVITE takes the place of the last one: first in the journal, so that a restarted node
    /// cancels each that is out.
    fn begin_attempt(&mut self, s: &mut Session, candidate: Candidate) {
        let Some(mut target) = s.attempts.target.clone() else {
            return;
        };
        self.abandon(s);
        let actions = &mut self.actions;
        s.places.retain(|(side, trunk)| {
            let kept = *side != Side::Callee || *trunk == candidate.trunk;
            if !kept {
                actions.push_back(Action::Release { trunk: *trunk });
            }
            kept
        });
        target.trunk = candidate.trunk;
        target.peer = candidate.peer;
        s.attempts.current = s.attempts.current.saturating_add(1);
        s.attempts.target = Some(target.clone());
        let Some(parts) = self.parts_of_attempt(s, &target) else {
            s.attempts.last = Some(AttemptEnd::Unanswered);
            self.try_next(s);
            return;
        };
        s.outbound = Some(Callee {
            parts,
            invite: CalleeInvite::Gated,
            early: EarlyDialogs::default(),
            tries: 0,
            credentials: Vec::new(),
        });
        // What the other trunk asked for is no business of this one.
        s.callee.answers = Answers::default();
        let commit = self.save(s);
        self.gate(s, commit, Gated::InviteCallee);
    }

    /// Puts the attempt that counts aside.
    fn abandon(&mut self, s: &mut Session) {
        self.clear_timer(s, SessionTimer::NoAnswer);
        self.clear_timer(s, SessionTimer::TrunkSilence);
        let Some(callee) = s.outbound.take() else {
            return;
        };
        let invite = match callee.invite {
            // Without a 1xx no CANCEL may be sent (RFC 3261 §9.1); the INVITE goes on being sent
            // again, so that one that arrived and whose answers were lost is heard of.
            CalleeInvite::Calling { tx, .. } => CalleeInvite::Cancelling { tx, sent: false },
            CalleeInvite::Cancelling { tx, sent } => CalleeInvite::Cancelling { tx, sent },
            CalleeInvite::Gated | CalleeInvite::Answered { .. } | CalleeInvite::Ended => {
                CalleeInvite::Ended
            }
        };
        s.attempts.abandoned.push(Abandoned {
            number: s.attempts.current,
            callee: Callee { invite, ..callee },
            taken_up: false,
            rang: false,
        });
    }

    /// B's INVITE has left: from now on the clock of its silence runs.
    pub(super) fn watch_silence(&mut self, s: &mut Session) {
        s.attempts.began.get_or_insert(self.now.tick);
        let silence = self.config.failover.silence;
        self.set_timer(s, SessionTimer::TrunkSilence, silence);
    }

    /// Nothing at all came back for a while.
    pub(super) fn on_trunk_silence(&mut self, s: &mut Session) {
        let silent = matches!(
            s.outbound.as_ref().map(|callee| &callee.invite),
            Some(CalleeInvite::Calling {
                provisional: false,
                ..
            })
        );
        if !silent || s.stage != Stage::Calling {
            return;
        }
        self.penalise_current(s, SILENCE_PENALTY);
        if !self.may_try_another(s) {
            return;
        }
        self.count("failover_silence");
        self.try_next(s);
    }

    fn penalise_current(&mut self, s: &Session, time: Duration) {
        if let Some(target) = &s.attempts.target {
            let key = key_of(Candidate {
                trunk: target.trunk,
                peer: target.peer,
            });
            self.shun(key, time);
        }
    }

    /// Whether a call whose attempt came to nothing may go on to another address.
    fn may_try_another(&self, s: &Session) -> bool {
        let in_time = s
            .attempts
            .began
            .is_none_or(|began| self.now.tick.since(began) < self.config.failover.within);
        s.stage == Stage::Calling
            && in_time
            && !s.attempts.progressed
            && !s.attempts.rang_elsewhere()
            && !s.attempts.waiting.is_empty()
    }

    /// The attempt that counts was refused. `true`: the call goes on elsewhere, or is about to.
    pub(super) fn fails_over(
        &mut self,
        s: &mut Session,
        response: &Response,
        cause: Option<u8>,
    ) -> bool {
        let status = response.status.code();
        if status == 503
            && let Some(seconds) = view::retry_after(&response.headers)
        {
            let time = Duration::from_secs(u64::from(seconds)).min(MAX_RETRY_AFTER);
            self.penalise_current(s, time);
        }
        let reason = match status {
            _ if is_of_callee(cause) => return false,
            503 => "failover_503",
            408 => "failover_408",
            _ => return false,
        };
        if !self.may_try_another(s) {
            return false;
        }
        self.count(reason);
        s.attempts.last = Some(AttemptEnd::Refused { status, cause });
        self.try_next(s);
        true
    }

    /// Nothing came back to the attempt that counts, or its transport failed. `true`: the call goes
    /// on elsewhere, or is about to.
    pub(super) fn fails_over_unanswered(&mut self, s: &mut Session) -> bool {
        self.penalise_current(s, SILENCE_PENALTY);
        if !self.may_try_another(s) {
            return false;
        }
        self.count("failover_unanswered");
        s.attempts.last = Some(AttemptEnd::Unanswered);
        self.try_next(s);
        true
    }

    /// An answer to one of a call's INVITEs.
    pub(super) fn on_attempt_response(&mut self, s: &mut Session, number: u8, response: &Response) {
        if let Some(at) = abandoned_at(s, |it| it.number == number) {
            self.on_abandoned_response(s, at, response);
            return;
        }
        if number != s.attempts.current {
            return;
        }
        self.clear_timer(s, SessionTimer::TrunkSilence);
        let calling = matches!(
            s.outbound.as_ref().map(|callee| &callee.invite),
            Some(CalleeInvite::Calling { .. })
        );
        if calling {
            reclaim(s);
            s.attempts.progressed |= (101..=199).contains(&response.status.code());
        }
        self.on_invite_response(s, response);
    }

    /// One of a call's INVITEs will not be answered any more.
    pub(super) fn on_attempt_unanswered(&mut self, s: &mut Session, number: u8) {
        if let Some(at) = abandoned_at(s, |it| it.number == number) {
            self.set_abandoned(s, at, CalleeInvite::Ended);
        } else if number == s.attempts.current {
            reclaim(s);
            self.on_invite_unanswered(s);
        }
    }

    /// A response that no transaction took and that answers an abandoned INVITE. `false`: it does
    /// not.
    pub(super) fn on_stray_of_abandoned(&mut self, s: &mut Session, response: &Response) -> bool {
        let call_id = view::call_id(&response.headers);
        match abandoned_at(s, |it| Some(&it.callee.parts.call_id) == call_id.as_ref()) {
            Some(at) => {
                self.on_abandoned_response(s, at, response);
                true
            }
            None => false,
        }
    }

    fn on_abandoned_response(&mut self, s: &mut Session, at: usize, response: &Response) {
        let Some(abandoned) = s.attempts.abandoned.get_mut(at) else {
            return;
        };
        abandoned.rang |= (101..=299).contains(&response.status.code());
        match (&abandoned.callee.invite, response.status.code()) {
            (CalleeInvite::Cancelling { sent: false, .. }, 100..=199) => {
                self.count("failover_late_answer");
                self.cancel_abandoned(s, at);
            }
            (CalleeInvite::Ended, 100..=199) if !abandoned.taken_up => {
                abandoned.taken_up = true;
                self.count("failover_late_answer");
                self.take_up_abandoned(s, at);
            }
            (_, 100..=199) => {}
            (_, 200..=299) => {
                self.set_abandoned(s, at, CalleeInvite::Ended);
                self.count("failover_late_answer");
                if let Some(abandoned) = s.attempts.abandoned.get(at).cloned() {
                    self.acknowledge_and_end(s, &abandoned.callee, response);
                }
            }
            (_, _) => self.set_abandoned(s, at, CalleeInvite::Ended),
        }
    }

    /// B rang by a way that was given up, while the INVITE by another waited for the journal: that
    /// one never leaves. `false`: it may.
    pub(super) fn gives_up_behind_a_late_ring(&mut self, s: &mut Session) -> bool {
        let gives_up = s.attempts.rang_elsewhere();
        if gives_up {
            self.count("failover_rang_meanwhile");
            self.cancel_callee(s);
            let reason = "the callee rang by a way that had been given up";
            self.fail_callee_with(s, ErrorCode::Connectivity, 487, 500, reason);
        }
        gives_up
    }

    fn set_abandoned(&mut self, s: &mut Session, at: usize, invite: CalleeInvite) {
        if let Some(abandoned) = s.attempts.abandoned.get_mut(at) {
            abandoned.callee.invite = invite;
            let guard = SessionTimer::AbandonGuard(abandoned.number);
            self.clear_timer(s, guard);
        }
    }

    fn cancel_abandoned(&mut self, s: &mut Session, at: usize) {
        let Some(abandoned) = s.attempts.abandoned.get_mut(at) else {
            return;
        };
        let CalleeInvite::Cancelling { tx, .. } = abandoned.callee.invite else {
            return;
        };
        abandoned.callee.invite = CalleeInvite::Cancelling { tx, sent: true };
        let (number, peer) = (abandoned.number, abandoned.callee.parts.peer);
        if let Some(cancel) = self.transactions.request(tx).and_then(compose::cancel_of) {
            self.say_farewell(peer, cancel, Purpose::Farewell);
        }
        let guard = self.config.timers.timeout();
        self.set_timer(s, SessionTimer::AbandonGuard(number), guard);
    }

    pub(super) fn on_abandon_guard(&mut self, s: &mut Session, number: u8) {
        if let Some(abandoned) = s
            .attempts
            .abandoned
            .iter_mut()
            .find(|it| it.number == number)
            && let CalleeInvite::Cancelling { tx, .. } = abandoned.callee.invite
        {
            abandoned.callee.invite = CalleeInvite::Ended;
            self.transactions.forget(tx);
        }
    }

    /// Cancels an INVITE whose transaction is gone.
    fn take_up_abandoned(&mut self, s: &mut Session, at: usize) {
        let Some(abandoned) = s.attempts.abandoned.get(at) else {
            return;
        };
        let (number, callee) = (abandoned.number, abandoned.callee.clone());
        if let Some(tx) = self.take_up(s, number, &callee) {
            self.set_abandoned(s, at, CalleeInvite::Cancelling { tx, sent: false });
            self.cancel_abandoned(s, at);
        }
    }

    /// Makes a transaction for an INVITE that was sent without one that is left.
    fn take_up(&mut self, s: &Session, number: u8, callee: &Callee) -> Option<crate::sip::TxId> {
        let invite = self.compose_invite(callee, None)?;
        let owner = Purpose::Invite(s.key, number);
        self.transactions
            .resume_invite(self.now.tick, callee.parts.peer, invite, owner)
    }

    /// After a restart: each abandoned INVITE whose end was not seen is cancelled.
    pub(super) fn cancel_adopted_attempts(&mut self, s: &mut Session) {
        for at in 0..s.attempts.abandoned.len() {
            self.take_up_abandoned(s, at);
        }
    }
}

fn abandoned_at(s: &Session, is: impl Fn(&Abandoned) -> bool) -> Option<usize> {
    s.attempts.abandoned.iter().position(is)
}

/// The way that was about to be taken instead of a silent one may still be needed.
pub(super) fn reclaim(s: &mut Session) {
    if s.stage == Stage::Calling
        && let Some(candidate) = s.attempts.admitting.take()
    {
        s.attempts.waiting.push_front(candidate);
    }
}

fn key_of(candidate: Candidate) -> TargetKey {
    let Peer {
        addr, transport, ..
    } = candidate.peer;
    TargetKey {
        trunk: candidate.trunk,
        addr,
        transport,
    }
}

/// Whether a Q.850 cause speaks of the callee, so that no other way leads anywhere else.
const fn is_of_callee(cause: Option<u8>) -> bool {
    matches!(cause, Some(1 | 17 | 18 | 19 | 20 | 21 | 22 | 27 | 28))
}
