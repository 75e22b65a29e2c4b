//! What happens inside a phone's dialogs: BYE, hold, the far end's re-INVITE and UPDATE.

use bytes::Bytes;
use maskline_switch::sdp;
use maskline_switch::sip::{
    HeaderName, Message, Method, Peer, Request, Response, TxId, compose, view,
};

use crate::dialog::Standing;
use crate::io::{PhoneAction, PhoneEvent};
use crate::phone::{Alarm, Phone, Purpose};
use crate::speech::{self, Named};

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

    fn is_asking(&self, at: usize) -> bool {
        self.dialogs
            .get(at)
            .is_some_and(|dialog| dialog.asking.is_some())
    }

    /// The dialog ended long ago, and nothing came to what was asked in it.
    pub(crate) fn on_reinvite_forgotten(&mut self, at: usize) {
        if let Some(tx) = self
            .dialogs
            .get_mut(at)
            .and_then(|dialog| dialog.asking.take())
        {
            self.report.left_unanswered = true;
            self.transactions.forget(tx);
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

    pub(crate) fn hold(&mut self, hold: bool) {
        let talking = |dialog: &crate::dialog::Dialog| dialog.standing == Standing::Confirmed;
        let Some(at) = self.dialogs.iter().position(talking) else {
            return;
        };
        self.sdp_version += 1;
        self.is_holding = hold;
        let direction = if hold { "sendonly" } else { "sendrecv" };
        let mark = self.config.identity.mark.clone();
        let sdp = speech::describe(&mark, self.media(), self.sdp_version, Named::ALL, direction);
        let branch = self.new_branch();
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        let peer = dialog.next_hop();
        let invite = dialog.request(
            Method::Invite,
            None,
            &self.config.sent_by,
            &branch,
            Some(&sdp),
        );
        dialog.reinvite = Some((dialog.local_cseq, None));
        let sent = invite.and_then(|invite| {
            self.transactions
                .send_request(self.now, peer, invite, Purpose::Reinvite(at))
        });
        if let Some(dialog) = self.dialogs.get_mut(at) {
            dialog.asking = sent;
        }
    }

    pub(crate) fn on_reinvite_response(&mut self, at: usize, response: &Response) {
        let branch = self.new_branch();
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        let number = view::cseq(&response.headers).map(|(number, _)| number);
        let Some((cseq, known)) = dialog
            .reinvite
            .clone()
            .filter(|(cseq, _)| Some(*cseq) == number)
        else {
            return;
        };
        if response.status.code() >= 200 {
            dialog.asking = None;
        }
        if !response.status.is_success() {
            return;
        }
        if let Some((peer, bytes)) = known {
            self.resend_bytes(peer, bytes);
            return;
        }
        let ack = dialog.request(Method::Ack, Some(cseq), &self.config.sent_by, &branch, None);
        let peer = dialog.next_hop();
        if let Some(ack) = ack.map(Message::Request) {
            dialog.reinvite = Some((cseq, Some((peer, ack.to_bytes()))));
            self.transactions.send_bare(peer, ack);
        }
    }

    /// The far end changes its media: agreed to.
    pub(crate) fn on_reinvite(&mut self, tx: TxId, invite: &Request) {
        let Some(at) = self.confirmed(invite) else {
            self.answer(tx, invite, 481, &[], None);
            return;
        };
        let waiting = self
            .dialogs
            .get(at)
            .is_some_and(|dialog| dialog.unacknowledged.is_some());
        let in_order = self
            .dialogs
            .get_mut(at)
            .is_some_and(|dialog| dialog.in_order(invite));
        let offer = sdp::parse(invite.body())
            .ok()
            .filter(|offer| Named::common(offer).is_some());
        let asking = self.is_asking(at);
        match offer {
            _ if !in_order || waiting => self.answer(tx, invite, 500, &[], None),
            // RFC 3261 §14.2: ours is out.
            _ if asking => self.answer(tx, invite, 491, &[], None),
            None => self.answer(tx, invite, 488, &[], None),
            Some(offer) => {
                self.hush(!offer.direction.receives());
                self.remote = Some(offer);
                self.sdp_version += 1;
                let tag = self.dialogs.get(at).map(|dialog| dialog.local_tag.clone());
                self.accept(at, tx, &tag.unwrap_or_default());
            }
        }
    }

    pub(crate) fn on_update(&mut self, tx: TxId, update: &Request) {
        let Some(at) = self.confirmed(update) else {
            self.answer(tx, update, 481, &[], None);
            return;
        };
        if !self
            .dialogs
            .get_mut(at)
            .is_some_and(|dialog| dialog.in_order(update))
        {
            self.answer(tx, update, 500, &[], None);
            return;
        }
        let contact = [(HeaderName::Contact, self.config.sent_by.contact())];
        if self.is_asking(at) && !update.body().is_empty() {
            self.answer(tx, update, 491, &[], None);
            return;
        }
        let offer = sdp::parse(update.body()).ok();
        let named = offer.as_ref().and_then(Named::common);
        if let (Some(offer), Some(_)) = (offer, named) {
            self.hush(!offer.direction.receives());
            self.remote = Some(offer);
            self.sdp_version += 1;
        }
        let mark = self.config.identity.mark.clone();
        let direction = self.answers_with();
        let sdp = named
            .map(|named| speech::describe(&mark, self.media(), self.sdp_version, named, direction));
        self.answer(tx, update, 200, &contact, sdp.as_deref());
    }

    /// What an answer to the far end's offer says: no more than it allows (RFC 3264 §6.1).
    pub(crate) fn answers_with(&self) -> &'static str {
        use maskline_switch::sdp::Direction;
        let own = if self.is_holding {
            Direction::SendOnly
        } else {
            Direction::SendRecv
        };
        let offered = self
            .remote
            .as_ref()
            .map_or(Direction::SendRecv, |it| it.direction);
        match own.within(offered.answered()) {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
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

    fn confirmed(&self, request: &Request) -> Option<usize> {
        self.dialogs
            .iter()
            .position(|dialog| dialog.standing == Standing::Confirmed && dialog.owns(request))
    }

    pub(crate) fn resend_bytes(&mut self, peer: Peer, bytes: Bytes) {
        self.act(PhoneAction::Send { peer, bytes });
    }
}
