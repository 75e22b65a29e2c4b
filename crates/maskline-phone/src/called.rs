//! The callee's way: ringing, the answer and its retransmission, refusals, CANCEL.

use std::time::Duration;

use maskline_switch::sip::{HeaderName, Peer, Request, TxId, compose, view};

use crate::announcing::WAITS;
use crate::dialog::{Dialog, Standing, Unacknowledged};
use crate::io::PhoneEvent;
use crate::phone::{Alarm, Call, Phone};
use crate::plan::{Callee, Outcome, Part};

impl Phone {
    pub(crate) fn on_invite(&mut self, tx: TxId, invite: &Request, _peer: Peer) {
        let Some(callee) = self.callee().filter(|_| self.call == Call::New) else {
            self.answer(tx, invite, 486, &[], None);
            return;
        };
        let Some(offer) = self.read(invite.body()) else {
            self.answer(tx, invite, 488, &[], None);
            return;
        };
        self.remember(Some(offer));
        self.call = Call::Called(tx);
        self.invite = Some(tx);
        let shows = view::from_user(&invite.headers).unwrap_or_default();
        self.report.shows = Some(shows.clone());
        self.notice(PhoneEvent::Called { shows });
        if let Some(trying) = compose::response(invite, 100, None, &[], None) {
            self.transactions.respond(self.now, tx, trying);
        }
        self.set_alarm(Alarm::Patience, self.config.patience);
        if let Some(after) = callee.ring_after {
            self.set_alarm(Alarm::Ring, after);
        }
        if let Some(plan) = self.config.manners.announces {
            self.set_alarm(Alarm::Announce, plan.after);
        }
        match callee.outcome {
            Outcome::Answer(after) | Outcome::Refuse { after, .. } => {
                self.set_alarm(Alarm::Decide, after);
            }
            Outcome::Ignore | Outcome::Silence => {}
        }
    }

    fn callee(&self) -> Option<Callee> {
        match &self.config.part {
            Part::Callee(callee) => Some(callee.clone()),
            Part::Caller(_) => None,
        }
    }

    pub(crate) fn ring(&mut self) {
        let Call::Called(tx) = self.call else {
            return;
        };
        if self.unpracked.is_some() {
            self.set_alarm(Alarm::Ring, WAITS);
            return;
        }
        self.report.rang = true;
        self.notice(PhoneEvent::Ringing);
        self.send_ringing(tx);
    }

    pub(crate) fn decide(&mut self) {
        let (Call::Called(tx), Some(callee)) = (self.call, self.callee()) else {
            return;
        };
        match callee.outcome {
            Outcome::Answer(_) => self.pick_up(tx),
            Outcome::Refuse { status, cause, .. } => self.refuse(tx, status, cause),
            Outcome::Ignore | Outcome::Silence => {}
        }
    }

    pub(crate) fn refuse(&mut self, tx: TxId, status: u16, cause: Option<u8>) {
        let mut extra = self.device_headers(b"Server");
        if let Some(cause) = cause {
            let text = &self.config.identity.mark;
            let reason = format!("Q.850;cause={cause};text=\"{text}\"");
            extra.push((HeaderName::Reason, reason));
        }
        if let Some(invite) = self.transactions.request(tx).cloned() {
            self.answer(tx, &invite, status, &extra, None);
        }
        self.report.final_status.get_or_insert(status);
        self.notice(PhoneEvent::Refused(status));
        self.finish();
    }

    pub(crate) fn pick_up(&mut self, tx: TxId) {
        // RFC 3262 §3: no 2xx before the PRACK to a provisional with SDP.
        self.picks_up_when_pracked = self.waits_for_prack();
        if self.picks_up_when_pracked {
            return;
        }
        self.clear_alarm(Alarm::Ring);
        self.clear_alarm(Alarm::Decide);
        self.clear_alarm(Alarm::Announce);
        let mut other = self.leave_announcement();
        self.answered_early &= !other;
        self.call = Call::Talking;
        self.report.final_status.get_or_insert(200);
        let branches = if self.config.manners.forks { 2 } else { 1 };
        for _ in 0..branches {
            let early = if std::mem::take(&mut other) {
                None
            } else {
                self.early.pop().map(|early| early.dialog)
            };
            let tag = match &early {
                Some(early) => early.local_tag.clone(),
                None => self.new_word("t"),
            };
            let made = early.or_else(|| {
                let invite = self.transactions.request(tx)?;
                Dialog::called(invite, &tag, self.transactions.peer(tx)?)
            });
            if let Some(dialog) = made {
                self.report.dialogs += 1;
                self.dialogs.push(dialog);
                self.accept(self.dialogs.len() - 1, tx, &tag);
            }
        }
    }

    /// Gives an INVITE its 200, again and again until the ACK comes (RFC 3261 §13.3.1.4).
    pub(crate) fn accept(&mut self, at: usize, tx: TxId, tag: &str) {
        if let Some(sdp) = self.answer_to_remote() {
            self.accept_with(at, tx, tag, &sdp, false);
        }
    }

    /// As [`Self::accept`], with this description.
    pub(crate) fn accept_with(&mut self, at: usize, tx: TxId, tag: &str, sdp: &str, offers: bool) {
        let mut extra = self.device_headers(b"Server");
        extra.push((HeaderName::Contact, self.config.sent_by.contact()));
        let allow = if self.config.manners.lacks_info {
            compose::ALLOW.replace(", INFO", "")
        } else {
            compose::ALLOW.to_owned()
        };
        extra.push((HeaderName::Allow, allow));
        if let Some(invite) = self.transactions.request(tx).cloned() {
            extra.extend(self.timer_answer(&invite));
        }
        let answered_early = self.answered_early;
        let built = self.transactions.request(tx).and_then(|invite| {
            let (cseq, _) = view::cseq(&invite.headers)?;
            let within = view::to_tag(&invite.headers).is_some();
            let sdp = (within || !answered_early).then_some(sdp);
            Some((
                cseq,
                compose::response(invite, 200, Some(tag), &extra, sdp)?,
            ))
        });
        let (Some((cseq, response)), Some(dialog)) = (built, self.dialogs.get_mut(at)) else {
            return;
        };
        let timers = self.config.timers;
        dialog.unacknowledged = Some(Unacknowledged {
            tx,
            cseq,
            response: response.clone(),
            interval: timers.t1,
            gives_up: self.now + timers.timeout(),
            offers,
        });
        self.transactions.respond(self.now, tx, response);
        self.set_alarm(Alarm::Resend(at), timers.t1);
    }

    pub(crate) fn resend(&mut self, at: usize) {
        let t2 = self.config.timers.t2;
        let Some(waiting) = self
            .dialogs
            .get_mut(at)
            .and_then(|d| d.unacknowledged.as_mut())
        else {
            return;
        };
        if self.now < waiting.gives_up {
            waiting.interval = (waiting.interval * 2).min(t2);
            let next = waiting.interval.min(waiting.gives_up.since(self.now));
            let (tx, response) = (waiting.tx, waiting.response.clone());
            self.transactions.respond(self.now, tx, response);
            self.set_alarm(Alarm::Resend(at), next);
            return;
        }
        self.report.never_acknowledged = true;
        self.send_bye(at);
    }

    pub(crate) fn on_ack(&mut self, ack: &Request) {
        let number = view::cseq(&ack.headers).map(|(number, _)| number);
        let Some(at) = self.dialogs.iter().position(|dialog| dialog.owns(ack)) else {
            return;
        };
        self.look_at_ack(ack);
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        let acknowledged = dialog
            .unacknowledged
            .take_if(|waiting| Some(waiting.cseq) == number);
        let Some(acknowledged) = acknowledged else {
            return;
        };
        let first = dialog.standing == Standing::Answered;
        if first {
            dialog.standing = Standing::Confirmed;
        }
        self.clear_alarm(Alarm::Resend(at));
        if acknowledged.offers {
            self.remember(self.read(ack.body()));
        }
        if !first {
            return;
        }
        if self.leaves_when_acknowledged {
            self.send_bye(at);
        } else if !self.report.talked {
            let hang_up_after = self.callee().and_then(|callee| callee.hang_up_after);
            if hang_up_after == Some(Duration::ZERO) {
                self.start_talking(None);
                self.leave();
            } else {
                self.start_talking(hang_up_after);
            }
        }
    }

    pub(crate) fn on_cancel(&mut self, tx: TxId, cancel: &Request) {
        let Some(invite) = self.transactions.invite_of(cancel) else {
            self.answer(tx, cancel, 481, &[], None);
            return;
        };
        if self.call == Call::Called(invite) {
            if self.config.manners.answers_when_cancelled {
                self.pick_up(invite);
            } else {
                self.refuse(invite, 487, None);
            }
        }
        self.answer(tx, cancel, 200, &[], None);
    }
}
