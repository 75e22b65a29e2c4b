//! A phone that changes its call: hold, another codec, another address, asking for an offer, by
//! re-INVITE or UPDATE, and what comes back (RFC 3261 §14, RFC 3311).

use std::net::SocketAddr;
use std::time::Duration;

use maskline_switch::modification::glare_delay;
use maskline_switch::sdp::{self, Direction};
use maskline_switch::sip::{Message, Method, Response, TxId, compose, view};
use rand::RngCore;

use crate::dialog::Standing;
use crate::phone::{Alarm, Phone, Purpose};
use crate::plan::Part;
use crate::speech::{self, Named};

/// Most times that a change is asked for when it meets one of the far end.
const MOST_TRIES: u8 = 4;

/// A change that a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub what: What,
    /// Whether by UPDATE; an offer is always asked for by INVITE.
    pub by_update: bool,
    /// Cancels the re-INVITE after so long.
    pub cancel_after: Option<Duration>,
}

/// What a user changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Puts the other party on hold, with music of its own.
    Hold,
    /// Puts the other party on hold, and sends nothing.
    HoldInactive,
    /// Takes it back.
    Resume,
    /// Speaks PCMU only.
    OnlyPcmu,
    /// Speaks PCMA only.
    OnlyPcma,
    /// Speaks either again.
    AnyCodec,
    /// Wants RTP elsewhere.
    Move(SocketAddr),
    /// Asks for an offer.
    Ask,
    /// Says the same again.
    Refresh,
}

impl What {
    /// By re-INVITE.
    #[must_use]
    pub const fn by_invite(self) -> Change {
        Change {
            what: self,
            by_update: false,
            cancel_after: None,
        }
    }

    /// By UPDATE.
    #[must_use]
    pub const fn by_update(self) -> Change {
        Change {
            what: self,
            by_update: true,
            cancel_after: None,
        }
    }
}

/// What a phone says of its media.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stance {
    pub(crate) media: SocketAddr,
    pub(crate) names: Named,
    /// Who sends, in this phone's words.
    pub(crate) direction: Direction,
}

/// A change that has no final answer yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    change: Change,
    /// Its transaction; `None`: it is asked for again later.
    tx: Option<TxId>,
    cseq: u32,
    tries: u8,
    provisional: bool,
    cancelled: bool,
    before: Stance,
}

impl Phone {
    /// The user changes the call; nothing happens while an earlier change has no answer.
    pub(crate) fn change(&mut self, change: Change) {
        let talking = |dialog: &crate::dialog::Dialog| dialog.standing == Standing::Confirmed;
        let Some(at) = self.dialogs.iter().position(talking) else {
            return;
        };
        if self.is_asking(at) {
            return;
        }
        let before = self.stance;
        match change.what {
            What::Hold => self.stance.direction = Direction::SendOnly,
            What::HoldInactive => self.stance.direction = Direction::Inactive,
            What::Resume => self.stance.direction = Direction::SendRecv,
            What::OnlyPcmu => self.stance.names = Named::PCMU,
            What::OnlyPcma => self.stance.names = Named::PCMA,
            What::AnyCodec => self.stance.names = Named::of(&self.config.manners),
            What::Move(media) => self.stance.media = media,
            What::Ask | What::Refresh => {}
        }
        let asking = Asking {
            change,
            tx: None,
            cseq: 0,
            tries: 0,
            provisional: false,
            cancelled: false,
            before,
        };
        // It takes the place of one that waits to be asked for again.
        self.clear_alarm(Alarm::AskAgain(at));
        self.set_asking(at, Some(asking));
        self.ask(at);
    }

    /// Sends what is to be asked for in a dialog, if that is still up.
    pub(crate) fn ask(&mut self, at: usize) {
        let talking = |dialog: &&crate::dialog::Dialog| dialog.standing == Standing::Confirmed;
        let dialog = self.dialogs.get(at).filter(talking);
        let Some(mut asking) = dialog.and_then(|dialog| dialog.asking) else {
            return;
        };
        let body = match asking.change.what {
            What::Ask => None,
            What::Refresh => Some(self.said.clone()),
            What::Hold
            | What::HoldInactive
            | What::Resume
            | What::OnlyPcmu
            | What::OnlyPcma
            | What::AnyCodec
            | What::Move(_) => Some(self.say(self.stance.names, self.stance.direction)),
        };
        let by_update = asking.change.by_update && body.is_some();
        let method = if by_update {
            Method::Update
        } else {
            Method::Invite
        };
        let branch = self.new_branch();
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        let peer = dialog.next_hop();
        let sent_by = &self.config.sent_by;
        let request = dialog.request(method, None, sent_by, &branch, body.as_deref());
        asking.cseq = dialog.local_cseq;
        asking.tries += 1;
        if !by_update {
            dialog.reinvite = Some((dialog.local_cseq, None));
        }
        let sent = request.and_then(|request| {
            let owner = Purpose::Change(at);
            self.transactions
                .send_request(self.now, peer, request, owner)
        });
        asking.tx = sent;
        dialog.asking = sent.map(|_| asking);
        if let Some(after) = asking.change.cancel_after {
            self.set_alarm(Alarm::CancelChange(at), after);
        }
    }

    pub(crate) fn is_asking(&self, at: usize) -> bool {
        let asking = self.dialogs.get(at).and_then(|dialog| dialog.asking);
        asking.is_some_and(|asking| asking.tx.is_some())
    }

    pub(crate) fn on_change_response(&mut self, at: usize, response: &Response) {
        let status = response.status.code();
        let number = view::cseq(&response.headers).map(|(number, _)| number);
        let asking = self.dialogs.get(at).and_then(|dialog| dialog.asking);
        let current = asking.filter(|asking| asking.tx.is_some() && Some(asking.cseq) == number);
        let Some(mut asking) = current else {
            self.acknowledge_again(at, response);
            return;
        };
        if status < 200 {
            let first = !std::mem::replace(&mut asking.provisional, true);
            self.set_asking(at, Some(asking));
            // Behind a later one it is out already.
            if first && asking.cancelled {
                self.send_change_cancel(at);
            }
            return;
        }
        self.clear_alarm(Alarm::CancelChange(at));
        self.set_asking(at, None);
        if response.status.is_success() {
            self.report.changed += 1;
            self.take_change(at, asking, response);
            return;
        }
        if status == 491 && asking.tries < MOST_TRIES && !asking.cancelled {
            asking.tx = None;
            asking.provisional = false;
            self.set_asking(at, Some(asking));
            let made_call_id = matches!(self.config.part, Part::Caller(_));
            let delay = glare_delay(made_call_id, self.rng.next_u32());
            self.set_alarm(Alarm::AskAgain(at), delay);
            return;
        }
        self.stance = asking.before;
        self.report.refused_change = Some(status);
    }

    fn set_asking(&mut self, at: usize, asking: Option<Asking>) {
        if let Some(dialog) = self.dialogs.get_mut(at) {
            dialog.asking = asking;
        }
    }

    /// A change was agreed to: an INVITE is acknowledged, with our answer where the far end offers.
    fn take_change(&mut self, at: usize, asking: Asking, response: &Response) {
        let described = self.read(response.body());
        self.remember(described);
        if asking.change.by_update && asking.change.what != What::Ask {
            return;
        }
        let answers = asking.change.what == What::Ask && !self.config.manners.answers_no_offer;
        let answer = if answers {
            self.answer_to_remote()
        } else {
            None
        };
        let branch = self.new_branch();
        let Some(dialog) = self.dialogs.get_mut(at) else {
            return;
        };
        let (sent_by, cseq) = (&self.config.sent_by, Some(asking.cseq));
        let ack = dialog.request(Method::Ack, cseq, sent_by, &branch, answer.as_deref());
        let peer = dialog.next_hop();
        if let Some(ack) = ack.map(Message::Request) {
            dialog.reinvite = Some((asking.cseq, Some((peer, ack.to_bytes()))));
            self.transactions.send_bare(peer, ack);
        }
    }

    /// The same 2xx again wants the same ACK again.
    fn acknowledge_again(&mut self, at: usize, response: &Response) {
        let number = view::cseq(&response.headers).map(|(number, _)| number);
        let known = self
            .dialogs
            .get(at)
            .and_then(|dialog| dialog.reinvite.clone());
        if let Some((cseq, Some((peer, bytes)))) = known
            && Some(cseq) == number
            && response.status.is_success()
        {
            self.resend_bytes(peer, bytes);
        }
    }

    pub(crate) fn on_change_unanswered(&mut self, at: usize) {
        self.set_asking(at, None);
        self.clear_alarm(Alarm::CancelChange(at));
    }

    /// The user thinks better of a re-INVITE; the CANCEL waits for a 1xx (RFC 3261 §9.1).
    pub(crate) fn cancel_change(&mut self, at: usize) {
        let asking = self.dialogs.get(at).and_then(|dialog| dialog.asking);
        let Some(mut asking) = asking.filter(|asking| asking.tx.is_some()) else {
            return;
        };
        asking.cancelled = true;
        self.set_asking(at, Some(asking));
        if asking.provisional {
            self.send_change_cancel(at);
        }
    }

    fn send_change_cancel(&mut self, at: usize) {
        let asking = self.dialogs.get(at).and_then(|dialog| dialog.asking);
        let Some(tx) = asking.and_then(|asking| asking.tx) else {
            return;
        };
        let cancel = self.transactions.request(tx).and_then(compose::cancel_of);
        if let (Some(cancel), Some(peer)) = (cancel, self.transactions.peer(tx)) {
            self.transactions
                .send_request(self.now, peer, cancel, Purpose::Cancel);
        }
    }

    /// The dialog ended long ago, and nothing came to what was asked in it.
    pub(crate) fn on_change_forgotten(&mut self, at: usize) {
        let asking = self
            .dialogs
            .get_mut(at)
            .and_then(|dialog| dialog.asking.take());
        if let Some(tx) = asking.and_then(|asking| asking.tx) {
            self.report.left_unanswered = true;
            self.transactions.forget(tx);
        }
    }

    /// What the far end says of its media from here on.
    pub(crate) fn remember(&mut self, described: Option<sdp::MediaDescription>) {
        if let Some(described) = described {
            self.hush(!described.direction.receives());
            self.report.remote = Some(described.clone());
            self.remote = Some(described);
        }
    }

    /// An answer to what the far end offered last; `None`: there is nothing in common.
    pub(crate) fn answer_to_remote(&mut self) -> Option<String> {
        let offer = self.remote.clone()?;
        let named = self.stance.names.common(&offer)?;
        // No more than the offer allows (RFC 3264 §6.1).
        let direction = self.stance.direction.within(offer.direction.answered());
        Some(self.say(named, direction))
    }

    /// Describes the phone's media; the version counts up when it differs from the last one.
    pub(crate) fn say(&mut self, names: Named, direction: Direction) -> String {
        let direction = match direction {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        };
        let mark = self.config.identity.mark.clone();
        let media = self.stance.media;
        let text = speech::describe(&mark, media, self.sdp_version, names, direction);
        let text = self.with_keys(text);
        if self.said.is_empty() || self.said == text {
            self.said.clone_from(&text);
            return text;
        }
        self.sdp_version += 1;
        let text = speech::describe(&mark, media, self.sdp_version, names, direction);
        self.said = self.with_keys(text);
        self.said.clone()
    }
}
