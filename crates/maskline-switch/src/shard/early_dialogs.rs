//! B's provisional answers: the early dialogs that they make, and the PRACK to a reliable one
//! (RFC 3262 §4).

use super::{Purpose, Shard};
use crate::sdp::MediaDescription;
use crate::session::Session;
use crate::session::early::{EarlyDescription, EarlyDialog};
use crate::sip::extensions::{self, Received};
use crate::sip::{HeaderName, LocalTag, Method, Request, Response, Side, TxId, compose, view};

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
            let callee = s.outbound.as_ref();
            let Some(dialog) = callee.and_then(|callee| self.callee_dialog(callee, response))
            else {
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
        let said = self.answer_in(s, Side::Callee, response.body());
        let Some(rseq) = extensions::reliable_number(response) else {
            let callee = s.outbound.as_mut();
            let early = callee.and_then(|callee| callee.early.with_tag_mut(&tag));
            if let Some((early, media)) = early.zip(said) {
                early.describe(media, false);
            }
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
        if let Some(media) = said {
            early.describe(media, true);
        }
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

    /// B's answer to our offer: what a reliable provisional of the dialog described, else what its
    /// 2xx does. One without a description means that of an unreliable provisional.
    pub(super) fn answer_of_callee(
        &mut self,
        s: &Session,
        response: &Response,
    ) -> Option<MediaDescription> {
        let early = view::to_tag(&response.headers)
            .and_then(|tag| s.outbound.as_ref()?.early.with_tag(&tag)?.described.clone());
        match early {
            Some(EarlyDescription::Answer(media)) => Some(media),
            Some(EarlyDescription::Preview(media)) if response.body().is_empty() => Some(media),
            Some(EarlyDescription::Preview(_)) | None => {
                self.answer_in(s, Side::Callee, response.body())
            }
        }
    }

    /// Answers what B asks in an early dialog. `false`: it is in none.
    pub(super) fn answer_early(&mut self, tx: TxId, request: &Request) -> bool {
        // Whoever is called can't end its early dialog by BYE (RFC 3261 §15), nor invite in it.
        if !matches!(
            request.method,
            Method::Update | Method::Info | Method::Options
        ) {
            return false;
        }
        let ours = view::to_tag(&request.headers).and_then(|tag| LocalTag::parse(&tag));
        let Some(ours) = ours.filter(|tag| tag.side == Side::Callee) else {
            return false;
        };
        let mut answered = false;
        self.with(ours.session, |shard, s| {
            if s.callee.dialog.is_some() {
                return;
            }
            let early = s
                .outbound
                .as_mut()
                .and_then(|callee| callee.early.owner_of(&request.headers));
            if let Some(early) = early {
                answered = true;
                shard.answer_in_early(early, tx, request);
            }
        });
        answered
    }

    fn answer_in_early(&mut self, early: &mut EarlyDialog, tx: TxId, request: &Request) {
        if !early.dialog.take_remote_cseq(&request.headers) {
            self.count("cseq_out_of_order");
            self.respond(tx, request, 500, None, &[]);
        } else if request.method == Method::Update && !request.body().is_empty() {
            // What A hears by now is settled by the answer: it may ask again after its 200.
            self.refuse_for_now(tx, request);
        } else {
            if request.method == Method::Update {
                early.dialog.refresh_target(&request.headers);
            }
            let extra = [
                (
                    HeaderName::Contact,
                    self.sent_by(early.dialog.peer).contact(),
                ),
                (HeaderName::Allow, compose::ALLOW.to_owned()),
            ];
            self.respond(tx, request, 200, None, &extra);
        }
    }
}
