//! What happens inside a phone's dialogs: BYE, hold, the far end's re-INVITE and UPDATE.

use bytes::Bytes;
use maskline_switch::sip::{HeaderName, Method, Peer, Request, TxId, compose};

use crate::dialog::Standing;
use crate::io::{PhoneAction, PhoneEvent};
use crate::phone::{Alarm, Phone, Purpose};

impl Phone {
    /// The user hangs up: every dialog gets its BYE; one that waits for an ACK gets it then
    /// (RFC 3261 §15).
    pub(crate) fn leave(&mut self) {
        for at in 0..self.dialogs.len() {
            match self.dialogs.get(at).map(|dialog| dialog.standing) {
                Some(Standing::Confirmed) => self.send_bye(at),
                Some(Standing::Answered) => {
                    if self.config.manners.never_acknowledges {
                        // It has no business to go on with this call.
                        self.set_over(at);
                    } else {
                        self.leaves_when_acknowledged = true;
                    }
                }
                Some(Standing::Leaving | Standing::Over) | None => {}
            }
        }
    }

    pub(crate) fn send_bye(&mut self, at: usize) {
        let branch = self.new_branch();
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        if matches!(dialog.standing, Standing::Leaving | Standing::Over) {
            return;
        }
        dialog.standing = Standing::Leaving;
        dialog.unacknowledged = None;
        let peer = dialog.next_hop();
        let bye = dialog.request(Method::Bye, None, &self.config.sent_by, &branch, None);
        let sent = bye.and_then(|bye| {
            self.transactions
                .send_request(self.now, peer, bye, Purpose::Bye(at))
        });
        if sent.is_none() {
            self.set_over(at);
        }
        self.clear_alarm(Alarm::Resend(at));
        self.notice(PhoneEvent::HungUp { by_us: true });
    }

    pub(crate) fn set_over(&mut self, at: usize) {
        if let Some(dialog) = self.dialogs.get_mut(at) {
            dialog.standing = Standing::Over;
            dialog.unacknowledged = None;
        }
        self.clear_alarm(Alarm::Resend(at));
        if self.is_asking(at) {
            self.set_alarm(Alarm::Unanswered(at), self.config.timers.timeout());
        }
    }

    pub(crate) fn on_bye(&mut self, tx: TxId, bye: &Request) {
        let found = self
            .dialogs
            .iter()
            .position(|dialog| dialog.standing != Standing::Over && dialog.owns(bye));
        let Some(at) = found else {
            self.answer(tx, bye, 481, &[], None);
            return;
        };
        if !self
            .dialogs
            .get_mut(at)
            .is_some_and(|dialog| dialog.in_order(bye))
        {
            self.answer(tx, bye, 500, &[], None);
            return;
        }
        self.answer(tx, bye, 200, &[], None);
        self.set_over(at);
        self.notice(PhoneEvent::HungUp { by_us: false });
    }

    /// The far end changes its media, or asks for an offer.
    pub(crate) fn on_reinvite(&mut self, tx: TxId, invite: &Request) {
        let Some(at) = self.may_change(tx, invite) else {
            return;
        };
        let tag = self.dialogs.get(at).map(|dialog| dialog.local_tag.clone());
        let tag = tag.unwrap_or_default();
        if invite.body().is_empty() {
            let offer = self.say(self.stance.names, self.stance.direction);
            self.accept_with(at, tx, &tag, &offer, true);
        } else if let Some(answer) = self.take_offer(tx, invite) {
            self.accept_with(at, tx, &tag, &answer, false);
        }
    }

    pub(crate) fn on_update(&mut self, tx: TxId, update: &Request) {
        let Some(at) = self.confirmed(update) else {
            self.answer(tx, update, 481, &[], None);
            return;
        };
        let mut contact = vec![(HeaderName::Contact, self.config.sent_by.contact())];
        contact.extend(self.timer_answer(update));
        if update.body().is_empty() {
            let dialog = self.dialogs.get_mut(at);
            let in_order = dialog.is_some_and(|dialog| dialog.in_order(update));
            let status = if in_order { 200 } else { 500 };
            self.answer(tx, update, status, &contact, None);
        } else if self.may_change(tx, update).is_some()
            && let Some(answer) = self.take_offer(tx, update)
        {
            self.answer(tx, update, 200, &contact, Some(&answer));
        }
    }

    /// The dialog whose far end may change it now; a request that may not is answered.
    fn may_change(&mut self, tx: TxId, request: &Request) -> Option<usize> {
        let Some(at) = self.confirmed(request) else {
            self.answer(tx, request, 481, &[], None);
            return None;
        };
        let dialog = self.dialogs.get_mut(at)?;
        let waiting = dialog.unacknowledged.is_some();
        let refusal = if !dialog.in_order(request) || waiting {
            Some(500)
        } else if self.is_asking(at) {
            // RFC 3261 §14.2: ours is out.
            Some(491)
        } else {
            self.config.manners.refuses_changes
        };
        if let Some(status) = refusal {
            self.answer(tx, request, status, &[], None);
            return None;
        }
        Some(at)
    }

    /// Our answer to an offer; where there is none, the request is refused.
    fn take_offer(&mut self, tx: TxId, request: &Request) -> Option<String> {
        let offer = self.read(request.body());
        let usable = offer.filter(|offer| self.stance.names.common(offer).is_some());
        if usable.is_none() {
            self.answer(tx, request, 488, &[], None);
            return None;
        }
        self.remember(usable);
        self.answer_to_remote()
    }

    /// The user presses a key that is told by INFO.
    pub(crate) fn press_by_info(&mut self, key: char) {
        let branch = self.new_branch();
        let talking = |dialog: &&mut crate::dialog::Dialog| dialog.standing == Standing::Confirmed;
        let Some(dialog) = self.dialogs.iter_mut().find(talking) else {
            return;
        };
        let peer = dialog.next_hop();
        let body = format!("Signal={key}\r\nDuration=200\r\n");
        let info = dialog
            .request_with(Method::Info, &self.config.sent_by, &branch, &[])
            .and_then(|info| compose::with_body(info, "application/dtmf-relay", body));
        if let Some(info) = info {
            self.transactions
                .send_request(self.now, peer, info, Purpose::Aside);
        }
    }

    pub(crate) fn on_info(&mut self, tx: TxId, info: &Request) {
        let Some(at) = self.confirmed(info) else {
            self.answer(tx, info, 481, &[], None);
            return;
        };
        if !self
            .dialogs
            .get_mut(at)
            .is_some_and(|dialog| dialog.in_order(info))
        {
            self.answer(tx, info, 500, &[], None);
            return;
        }
        let body = String::from_utf8_lossy(info.body()).into_owned();
        let key = body
            .strip_prefix("Signal=")
            .and_then(|key| key.chars().next());
        self.report.info_digits.extend(key);
        self.answer(tx, info, 200, &[], None);
    }

    /// Whether a request belongs to a dialog that is not over.
    pub(crate) fn knows(&self, request: &Request) -> bool {
        self.dialogs
            .iter()
            .any(|dialog| dialog.standing != Standing::Over && dialog.owns(request))
    }

    fn confirmed(&self, request: &Request) -> Option<usize> {
        self.dialogs
            .iter()
            .position(|dialog| dialog.standing == Standing::Confirmed && dialog.owns(request))
    }

    pub(crate) fn resend_bytes(&mut self, peer: Peer, bytes: Bytes) {
        self.act(PhoneAction::Send { peer, bytes });
    }
}
