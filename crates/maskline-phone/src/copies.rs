//! INVITEs that are no new call: a copy of the phone's own that took another way, and one that looks
//! as if the switch had sent it.

use maskline_switch::sip::{HeaderName, Request, Response};

use crate::phone::{Call, Phone, Purpose};

/// What a tag of the switch looks like.
const TAG_OF_THE_SWITCH: &str = "m0.b.00000000000000aa.00000000000000bb";

impl Phone {
    /// Sends what the manners ask for, once the switch has the INVITE itself in hand.
    pub(crate) fn send_copies(&mut self) {
        let Call::Calling(calling) = self.call else {
            return;
        };
        let manners = self.config.manners;
        for (wanted, echo) in [(manners.merges, false), (manners.echoes, true)] {
            let peer = self.transactions.peer(calling.tx);
            let original = self.transactions.request(calling.tx).cloned();
            let (true, Some(original), Some(peer)) = (wanted, original, peer) else {
                continue;
            };
            if let Some(copy) = self.another(original, echo) {
                self.transactions
                    .send_request(self.now, peer, copy, Purpose::Copy);
            }
        }
    }

    /// The same request by another branch; an echo has a From tag of the switch and another Call-ID.
    fn another(&mut self, mut invite: Request, echo: bool) -> Option<Request> {
        let sent_by = &self.config.sent_by;
        let via = format!(
            "SIP/2.0/{} {}",
            sent_by.transport.as_str(),
            sent_by.host_port
        );
        let branch = self.new_word("copy");
        let via = format!("{via};branch=z9hG4bK{branch};rport");
        let mut replaced = vec![(HeaderName::Via, via)];
        if echo {
            let from = format!("<sip:+6500000000@switch.example>;tag={TAG_OF_THE_SWITCH}");
            replaced.push((HeaderName::From, from));
            replaced.push((HeaderName::CallId, self.new_word("c")));
        }
        for (name, value) in replaced {
            let header = maskline_switch::sip::compose::header(&name, value)?;
            invite.headers.remove_first(&name);
            invite.headers.push_front(header);
        }
        Some(invite)
    }

    pub(crate) fn on_copy_response(&mut self, response: &Response) {
        let status = response.status.code();
        if status >= 200 {
            self.report.copies.push(status);
        }
    }
}
