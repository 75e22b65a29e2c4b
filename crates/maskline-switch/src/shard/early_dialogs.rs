//! B's provisional answers: the early dialogs that they make, and the PRACK to a reliable one
//! (RFC 3262 §4).

use super::{Purpose, Shard};
use crate::session::Session;
use crate::sip::extensions::{self, Received};
use crate::sip::{HeaderName, Method, Response, Side, view};

/// Most provisional answers of one early dialog that are acknowledged.
const MOST_PRACKS: u32 = 64;

impl Shard {
    /// Takes note of a provisional answer of B above 100, and acknowledges a reliable one. `false`:
    /// it came before or out of order, and says nothing.
    pub(super) fn take_provisional(&mut self, s: &mut Session, response: &Response) -> bool {
        let Some(tag) = view::to_tag(&response.headers) else {
            return true;
        };
        let known = s
            .outbound
            .as_ref()
            .is_some_and(|callee| callee.early.with_tag(&tag).is_some());
        if !known {
            let Some(dialog) = self.callee_dialog(s, response) else {
                self.count("unusable_provisional");
                return true;
            };
            if !s
                .outbound
                .as_mut()
                .is_some_and(|callee| callee.early.insert(dialog))
            {
                self.count("early_dialogs_full");
                return true;
            }
        }
        let Some(rseq) = extensions::reliable_number(response) else {
            return true;
        };
        let Some(callee) = s.outbound.as_mut() else {
            return false;
        };
        let Some(early) = callee.early.with_tag_mut(&tag) else {
            return false;
        };
        match early.sequence.accept(rseq) {
            Received::Duplicate => return false,
            Received::OutOfOrder => {
                self.count("rseq_out_of_order");
                return false;
            }
            Received::Acknowledge => {}
        }
        if early.acknowledged == MOST_PRACKS {
            self.count("too_many_provisionals");
            return false;
        }
        early.acknowledged += 1;
        let rack = extensions::rack(rseq, callee.parts.cseq);
        let peer = early.dialog.next_hop();
        let sent_by = self.sent_by(peer);
        let branch = self.branch();
        let prack = early.dialog.request_with(
            Method::Prack,
            &sent_by,
            &branch,
            &[(HeaderName::RAck, rack)],
            None,
        );
        if let Some(mut prack) = prack {
            self.give_credentials(s, Side::Callee, &mut prack);
            self.transactions
                .send_request(self.now.tick, peer, prack, Purpose::Aside);
        }
        true
    }
}
