//! The caller's way: INVITE, CANCEL, the ACK to a 2xx.

use std::time::Duration;

use maskline_switch::sdp;
use maskline_switch::sip::compose::{self, RequestParts};
use maskline_switch::sip::{HeaderName, Message, Method, Peer, Response, view};

use crate::dialog::{Dialog, Standing};
use crate::io::PhoneEvent;
use crate::phone::{Alarm, Call, Calling, Phone, Purpose};
use crate::plan::Part;

fn text_of(response: &Response) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

impl Phone {
    pub(crate) fn dial(&mut self, peer: Peer, uri: &str) {
        let Part::Caller(caller) = self.config.part.clone() else {
            return;
        };
        if self.call != Call::New {
            return;
        }
        let identity = self.config.identity.clone();
        let display = if identity.display_name.is_empty() {
            String::new()
        } else {
            format!("\"{}\" ", identity.display_name)
        };
        let tag = self.new_word("t");
        let call_id = format!("{}@{}", self.new_word("c"), identity.domain);
        let branch = self.new_branch();
        let sdp = (!self.config.manners.dials_without_offer)
            .then(|| self.say(self.stance.names, sdp::Direction::SendRecv));
        let mut extra = self.device_headers(b"User-Agent");
        if self.config.manners.requires_reliable {
            extra.push((HeaderName::Require, "100rel".to_owned()));
        } else if self.config.manners.reliable {
            extra.push((HeaderName::Supported, "100rel".to_owned()));
        }
        if let Some(plan) = self.config.manners.timer {
            extra.push((HeaderName::Supported, "timer".to_owned()));
            extra.extend(self.timer_request(plan));
        }
        let invite = compose::request(&RequestParts {
            method: Method::Invite,
            uri,
            routes: &[],
            sent_by: &self.config.sent_by,
            branch: &branch,
            from: &format!(
                "{display}<sip:{}@{}>;tag={tag}",
                identity.user, identity.domain
            ),
            to: &format!("<{uri}>"),
            call_id: &call_id,
            cseq: 1,
            sdp: sdp.as_deref(),
            extra: &extra,
        });
        let sent = invite.and_then(|invite| {
            self.transactions
                .send_request(self.now, peer, invite, Purpose::Invite)
        });
        let Some(tx) = sent else {
            self.notice(PhoneEvent::Lost);
            self.finish();
            return;
        };
        self.invite = Some(tx);
        self.call = Call::Calling(Calling {
            tx,
            provisional: false,
            given_up: false,
            cancelled: false,
        });
        self.notice(PhoneEvent::Dialled);
        self.set_alarm(Alarm::Patience, self.config.patience);
        if let Some(after) = caller.cancel_after {
            self.set_alarm(Alarm::HangUp, after);
        }
    }

    /// The user gives up before the answer; the CANCEL waits for a 1xx (RFC 3261 §9.1).
    pub(crate) fn give_up(&mut self) {
        if let Call::Calling(calling) = &mut self.call {
            calling.given_up = true;
            if calling.provisional {
                self.cancel();
            }
        }
    }

    fn cancel(&mut self) {
        let Call::Calling(calling) = &mut self.call else {
            return;
        };
        if std::mem::replace(&mut calling.cancelled, true) {
            return;
        }
        let tx = calling.tx;
        let cancel = self.transactions.request(tx).and_then(compose::cancel_of);
        if let (Some(cancel), Some(peer)) = (cancel, self.transactions.peer(tx)) {
            self.transactions
                .send_request(self.now, peer, cancel, Purpose::Cancel);
        }
        self.set_alarm(Alarm::Abandon, self.config.timers.timeout());
    }

    /// RFC 3261 §9.1: without a final answer in 64·T1 after the CANCEL the INVITE is given up.
    pub(crate) fn abandon(&mut self) {
        if let Call::Calling(calling) = self.call {
            self.transactions.forget(calling.tx);
            self.notice(PhoneEvent::Lost);
            self.finish();
        }
    }

    pub(crate) fn on_invite_response(&mut self, response: &Response) {
        let status = response.status.code();
        match status {
            0..=199 => self.on_progress(response),
            200..=299 => self.on_success(response),
            _ => {
                self.report.final_status.get_or_insert(status);
                if matches!(self.call, Call::Calling(_)) {
                    self.notice(PhoneEvent::Refused(status));
                    self.finish();
                }
            }
        }
    }

    fn on_progress(&mut self, response: &Response) {
        let status = response.status.code();
        let pracks = self.report.pracks;
        let says_something = self.take_progress(response);
        if self.report.early.is_none() && !response.body().is_empty() {
            self.report.early = Some(text_of(response));
            self.report.early_is_answer = self.report.pracks > pracks;
        }
        if matches!(self.call, Call::Calling(calling) if !calling.provisional) {
            self.send_copies();
        }
        if let Call::Calling(calling) = &mut self.call {
            calling.provisional = true;
            if calling.given_up {
                self.cancel();
            } else if says_something && status == 180 && !self.report.rang {
                self.report.rang = true;
                self.notice(PhoneEvent::Ringing);
            }
        }
    }

    fn on_success(&mut self, response: &Response) {
        self.report
            .final_status
            .get_or_insert(response.status.code());
        let tag = view::to_tag(&response.headers);
        if self
            .dialogs
            .iter()
            .any(|dialog| Some(&dialog.remote_tag) == tag.as_ref())
        {
            self.on_repeated_success(response);
            return;
        }
        let dialog = self.invite.and_then(|tx| {
            let peer = self.transactions.peer(tx)?;
            Dialog::dialled(self.transactions.request(tx)?, response, peer)
        });
        let Some(mut dialog) = dialog else {
            return;
        };
        let given_up = match self.call {
            Call::Calling(calling) => calling.given_up,
            // A second dialog, of a fork; or one that comes after we gave up.
            Call::New | Call::Called(_) | Call::Talking | Call::Over => true,
        };
        self.report.dialogs += 1;
        self.call = Call::Talking;
        self.clear_alarm(Alarm::Abandon);
        self.clear_alarm(Alarm::HangUp);
        let at = self.dialogs.len();
        if self.config.manners.never_acknowledges {
            self.dialogs.push(dialog);
            return;
        }
        let cseq = dialog.local_cseq;
        self.confirm(&mut dialog);
        let branch = self.new_branch();
        self.report.answer.get_or_insert_with(|| text_of(response));
        self.remember(self.read(response.body()));
        let manners = self.config.manners;
        let answers = manners.dials_without_offer && !manners.answers_no_offer;
        let answer = if answers {
            self.answer_to_remote()
        } else {
            None
        };
        let sent_by = &self.config.sent_by;
        let ack = dialog.request(Method::Ack, Some(cseq), sent_by, &branch, answer.as_deref());
        if let Some(ack) = ack.map(Message::Request) {
            let peer = dialog.next_hop();
            dialog.ack = Some((peer, ack.to_bytes()));
            self.transactions.send_bare(peer, ack);
        }
        dialog.standing = Standing::Confirmed;
        self.dialogs.push(dialog);
        if given_up {
            self.send_bye(at);
            return;
        }
        self.hear_timer(response);
        let hang_up_after = match &self.config.part {
            Part::Caller(caller) => caller.hang_up_after,
            Part::Callee(_) => None,
        };
        if hang_up_after == Some(Duration::ZERO) {
            self.start_talking(None);
            self.leave();
        } else {
            self.start_talking(hang_up_after);
        }
    }

    /// The same 2xx again wants the same ACK again (RFC 3261 §13.2.2.4).
    pub(crate) fn on_repeated_success(&mut self, response: &Response) {
        let tag = view::to_tag(&response.headers);
        let number = view::cseq(&response.headers).map(|(number, _)| number);
        let known = self
            .dialogs
            .iter()
            .find(|dialog| Some(&dialog.remote_tag) == tag.as_ref());
        let ack = known.and_then(|dialog| match &dialog.reinvite {
            Some((cseq, ack)) if Some(*cseq) == number => ack.clone(),
            Some(_) | None => dialog
                .ack
                .clone()
                .filter(|_| number == Some(self.invite_cseq)),
        });
        if let Some((peer, bytes)) = ack {
            self.resend_bytes(peer, bytes);
        }
    }
}
