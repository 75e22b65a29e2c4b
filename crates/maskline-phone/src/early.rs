//! What a phone does before the answer: reliable provisionals (RFC 3262), as caller and as callee.

use std::time::Duration;

use maskline_media::Tick;
use maskline_switch::sip::{HeaderName, Headers, Method, Request, Response, TxId, compose, view};

use crate::dialog::Dialog;
use crate::phone::{Alarm, Call, Phone, Purpose};

/// The `RSeq` of a callee's first provisional answer.
const FIRST_RSEQ: u32 = 4_711;

/// A dialog that no 2xx has made yet.
#[derive(Clone, Debug)]
pub(crate) struct Early {
    pub(crate) dialog: Dialog,
    /// The last reliable provisional that was taken.
    rseq: u32,
}

/// A provisional answer of ours that waits for its PRACK.
#[derive(Clone, Debug)]
pub(crate) struct Unpracked {
    tx: TxId,
    response: Response,
    rseq: u32,
    interval: Duration,
    gives_up: Tick,
}

/// Whether a list header names a word.
pub(crate) fn lists(headers: &Headers, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).any(|header| {
        let value = header.value();
        String::from_utf8_lossy(&value)
            .split(',')
            .any(|listed| listed.trim().eq_ignore_ascii_case(word))
    })
}

fn number(headers: &Headers, name: &HeaderName) -> Option<u32> {
    view::text(headers, name)?.parse().ok()
}

impl Phone {
    /// A caller acknowledges a reliable provisional. `false`: it came before, or before its turn.
    pub(crate) fn take_progress(&mut self, response: &Response) -> bool {
        let headers = &response.headers;
        if !lists(headers, &HeaderName::Require, "100rel") {
            return true;
        }
        let manners = self.config.manners;
        if !(manners.reliable || manners.requires_reliable) || manners.never_pracks {
            return true;
        }
        let (Some(rseq), Some(tag)) = (number(headers, &HeaderName::RSeq), view::to_tag(headers))
        else {
            return true;
        };
        let of_tag = |early: &Early| early.dialog.remote_tag == tag;
        let at = match self.early.iter().position(of_tag) {
            Some(at) => at,
            None => {
                let made = self.invite.and_then(|tx| {
                    let peer = self.transactions.peer(tx)?;
                    Dialog::dialled(self.transactions.request(tx)?, response, peer)
                });
                let Some(dialog) = made else {
                    return true;
                };
                self.early.push(Early {
                    dialog,
                    rseq: rseq.saturating_sub(1),
                });
                self.early.len() - 1
            }
        };
        let branch = self.new_branch();
        let Some(early) = self.early.get_mut(at) else {
            return true;
        };
        if rseq != early.rseq.saturating_add(1) {
            return false;
        }
        early.rseq = rseq;
        let cseq = self.invite_cseq;
        let rack = [(HeaderName::RAck, format!("{rseq} {cseq} INVITE"))];
        let prack = early
            .dialog
            .request_with(Method::Prack, &self.config.sent_by, &branch, &rack);
        let peer = early.dialog.next_hop();
        if let Some(prack) = prack {
            self.transactions
                .send_request(self.now, peer, prack, Purpose::Aside);
            self.report.pracks += 1;
        }
        true
    }

    /// A dialog that a 2xx makes goes on with its early one's numbers.
    pub(crate) fn confirm(&self, dialog: &mut Dialog) {
        let of_tag = |early: &&Early| early.dialog.remote_tag == dialog.remote_tag;
        if let Some(early) = self.early.iter().find(of_tag) {
            dialog.local_cseq = early.dialog.local_cseq;
        }
    }

    /// A callee rings, reliably where both sides can.
    pub(crate) fn send_ringing(&mut self, tx: TxId) {
        let reliable = self.is_reliable(tx);
        self.answered_early |= reliable && self.config.manners.answers_early;
        let sdp = (reliable && self.config.manners.answers_early)
            .then(|| self.answer_to_remote())
            .flatten();
        self.send_progress(tx, 180, sdp.as_deref());
    }

    fn is_reliable(&self, tx: TxId) -> bool {
        let invite = self.transactions.request(tx);
        self.config.manners.reliable
            && invite.is_some_and(|it| lists(&it.headers, &HeaderName::Supported, "100rel"))
    }

    /// Sends a provisional answer, reliably where both sides can. What is reliable or describes media
    /// makes an early dialog, which all that follows belong to.
    pub(crate) fn send_progress(&mut self, tx: TxId, status: u16, sdp: Option<&str>) {
        let Some(invite) = self.transactions.request(tx).cloned() else {
            return;
        };
        let reliable = self.is_reliable(tx);
        let before = self.early.first();
        let rseq = before.map_or(FIRST_RSEQ, |early| early.rseq + 1);
        let tag = match before.map(|early| early.dialog.local_tag.clone()) {
            Some(tag) => tag,
            None if reliable || sdp.is_some() => self.new_word("t"),
            None => format!("{}tring", self.config.identity.mark),
        };
        let mut extra = self.device_headers(b"Server");
        extra.push((HeaderName::Contact, self.config.sent_by.contact()));
        if reliable {
            extra.push((HeaderName::Require, "100rel".to_owned()));
            extra.push((HeaderName::RSeq, rseq.to_string()));
        }
        let Some(response) = compose::response(&invite, status, Some(&tag), &extra, sdp) else {
            return;
        };
        self.transactions.respond(self.now, tx, response.clone());
        let peer = self.transactions.peer(tx);
        match self.early.first_mut() {
            Some(early) => early.rseq = rseq,
            None if reliable || sdp.is_some() => {
                let made = peer.and_then(|peer| Dialog::called(&invite, &tag, peer));
                self.early.extend(made.map(|dialog| Early { dialog, rseq }));
            }
            None => {}
        }
        if reliable {
            let timers = self.config.timers;
            self.unpracked = Some(Unpracked {
                tx,
                response,
                rseq,
                interval: timers.t1,
                gives_up: self.now + timers.timeout(),
            });
            self.set_alarm(Alarm::Provisional, timers.t1);
        }
    }

    pub(crate) fn resend_provisional(&mut self) {
        let Some(waiting) = self.unpracked.as_mut() else {
            return;
        };
        if !matches!(self.call, Call::Called(_)) {
            return;
        }
        let tx = waiting.tx;
        if self.now < waiting.gives_up {
            waiting.interval *= 2;
            let next = waiting.interval.min(waiting.gives_up.since(self.now));
            let response = waiting.response.clone();
            self.transactions.respond(self.now, tx, response);
            self.set_alarm(Alarm::Provisional, next);
        } else {
            self.report.never_acknowledged = true;
            self.refuse(tx, 504, None);
        }
    }

    /// The PRACK to our provisional; it may come behind our 2xx.
    pub(crate) fn on_prack(&mut self, tx: TxId, prack: &Request) {
        let rack = view::text(&prack.headers, &HeaderName::RAck).unwrap_or_default();
        let invite = self.invite.and_then(|tx| self.transactions.request(tx));
        let cseq = invite.and_then(|invite| view::cseq(&invite.headers));
        let cseq = cseq.map_or(1, |(number, _)| number);
        let awaited = self
            .unpracked
            .as_ref()
            .is_some_and(|waiting| rack == format!("{} {cseq} INVITE", waiting.rseq));
        let early = self.early.iter_mut().map(|early| &mut early.dialog);
        let in_order = early
            .chain(self.dialogs.iter_mut())
            .find(|dialog| dialog.owns(prack))
            .is_some_and(|dialog| dialog.in_order(prack));
        if !(awaited && in_order) {
            self.answer(tx, prack, 481, &[], None);
            return;
        }
        self.unpracked = None;
        self.clear_alarm(Alarm::Provisional);
        self.report.pracks += 1;
        self.answer(tx, prack, 200, &[], None);
        if self.config.manners.updates_early {
            self.update_early();
        }
        if self.picks_up_when_pracked
            && let Call::Called(invite) = self.call
        {
            self.pick_up(invite);
        }
    }

    fn update_early(&mut self) {
        let branch = self.new_branch();
        let Some(early) = self.early.first_mut() else {
            return;
        };
        let peer = early.dialog.next_hop();
        let update = early
            .dialog
            .request_with(Method::Update, &self.config.sent_by, &branch, &[]);
        if let Some(update) = update {
            self.transactions
                .send_request(self.now, peer, update, Purpose::EarlyUpdate);
        }
    }
}
