//! Dialogs that are over on our side, remembered for as long as their peer may still be sending:
//! a BYE that crossed ours is answered 200, not 481.

use std::collections::{BTreeMap, VecDeque};

use maskline_media::{Side, Tick};

use crate::io::SessionKey;
use crate::session::Session;
use crate::sip::{LocalTag, Request, view};

/// Most dialogs that are remembered; the oldest is forgotten first.
const MOST: usize = 100_000;

/// What a request of the peer must match.
#[derive(Debug)]
struct Ended {
    call_id: Box<str>,
    local_tag: Box<str>,
    remote_tag: Box<str>,
}

/// The dialogs that ended lately.
#[derive(Debug, Default)]
pub(super) struct EndedDialogs {
    dialogs: BTreeMap<(SessionKey, Side), Ended>,
    order: VecDeque<(Tick, (SessionKey, Side))>,
}

impl EndedDialogs {
    pub(super) fn is_empty(&self) -> bool {
        self.dialogs.is_empty()
    }

    /// Remembers both dialogs of a session until `until`, which never goes back from call to call.
    pub(super) fn remember(&mut self, s: &Session, until: Tick) {
        for side in [Side::Caller, Side::Callee] {
            let Some(dialog) = &s.party(side).dialog else {
                continue;
            };
            let ended = Ended {
                call_id: dialog.call_id.as_str().into(),
                local_tag: dialog.local_tag.as_str().into(),
                remote_tag: dialog.remote_tag.as_str().into(),
            };
            self.dialogs.insert((s.key, side), ended);
            self.order.push_back((until, (s.key, side)));
        }
        while self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    /// Forgets what is due.
    pub(super) fn on_deadline(&mut self, now: Tick) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    /// When [`Self::on_deadline`] has something to do.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.order.front().map(|(until, _)| *until)
    }

    /// Whether a request belongs to one of them.
    pub(super) fn owns(&self, request: &Request) -> bool {
        let headers = &request.headers;
        let Some(local_tag) = view::to_tag(headers) else {
            return false;
        };
        let Some(tag) = LocalTag::parse(&local_tag) else {
            return false;
        };
        self.dialogs
            .get(&(tag.session, tag.side))
            .is_some_and(|ended| {
                *ended.local_tag == *local_tag
                    && view::from_tag(headers).as_deref() == Some(&ended.remote_tag)
                    && view::call_id(headers).as_deref() == Some(&ended.call_id)
            })
    }

    fn forget_oldest(&mut self) {
        if let Some((_, owner)) = self.order.pop_front() {
            self.dialogs.remove(&owner);
        }
    }
}
