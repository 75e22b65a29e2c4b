//! Answering a trunk that asks for our credentials (RFC 3261 §22.2, §22.3).
//!
//! A refused request is sent again with a new branch and `CSeq`. B's INVITE waits for the journal
//! once more, so that a restarted node cancels the one that rings; it stays the same leg, and no event
//! tells of it. Later requests of a dialog carry credentials at once.

use rand::RngCore;

use super::{Gated, Purpose, Shard};
use crate::config::{Trunk, TrunkId};
use crate::credentials::{Answers, OutboundAuth};
use crate::modification::{Cancel, OwnState};
use crate::session::early::EarlyDialogs;
use crate::session::{CalleeInvite, Session};
use crate::sip::digest::{self, Protected};
use crate::sip::{
    Challenged, HeaderName, LocalTag, Method, Peer, Request, Response, Side, compose, view,
};

impl Shard {
    /// Answers a 401 or 407. `false`: it can't be answered, and is a refusal like any other.
    pub(super) fn answer_challenge(
        &mut self,
        owner: Purpose,
        response: &Response,
        challenged: &Challenged,
    ) -> bool {
        match owner {
            Purpose::Invite(key, attempt) => {
                let mut answered = false;
                self.with(key, |shard, s| {
                    answered = attempt == s.attempts.current
                        && shard.invite_again(s, response, challenged);
                });
                answered
            }
            Purpose::Modify {
                session,
                side,
                cseq,
            } => {
                let is_out = self.sessions.get(&session).is_some_and(|s| {
                    let own = s.party(side).own.as_ref().map(|own| &own.state);
                    matches!(own, Some(OwnState::Sent { cseq: sent, cancel: Cancel::No, .. })
                        if *sent == cseq)
                });
                is_out && self.repeat_in_dialog(owner, response, challenged)
            }
            Purpose::Register(at) => self.register_again(at, response, challenged),
            // A refusal is an answer.
            Purpose::Probe(_) => false,
            Purpose::AdoptedBye(_)
            | Purpose::StillThere(..)
            | Purpose::Aside
            | Purpose::Farewell => self.repeat_in_dialog(owner, response, challenged),
        }
    }

    /// What the challenged request had answered, with the new challenges; `None`: they can't be
    /// answered, which is counted.
    pub(super) fn take_challenges(
        &mut self,
        outbound: Option<&OutboundAuth>,
        response: &Response,
        challenged: &Challenged,
    ) -> Option<Answers> {
        let Some(outbound) = outbound else {
            self.count("challenged_without_credentials");
            return None;
        };
        let mut answers = Answers::of_request(&challenged.request);
        match answers.take(outbound, response, challenged.tries) {
            Ok(()) => Some(answers),
            Err(reason) => {
                self.count(reason);
                None
            }
        }
    }

    fn invite_again(
        &mut self,
        s: &mut Session,
        response: &Response,
        challenged: &Challenged,
    ) -> bool {
        let Some(callee) = s.outbound.as_ref() else {
            return false;
        };
        if !matches!(callee.invite, CalleeInvite::Calling { .. }) {
            return false;
        }
        let outbound = self.outbound_auth(Some(s), Side::Callee, callee.parts.peer, None);
        let Some(answers) = self.take_challenges(outbound.as_ref(), response, challenged) else {
            return false;
        };
        s.callee.answers = answers;
        super::attempts::reclaim(s);
        let branch = self.branch();
        if let Some(callee) = s.outbound.as_mut() {
            callee.parts.branch = branch;
            callee.parts.cseq = callee.parts.cseq.saturating_add(1);
            callee.early = EarlyDialogs::default();
            callee.tries = challenged.tries.saturating_add(1);
            callee.invite = CalleeInvite::Gated;
        }
        let commit = self.save(s);
        self.gate(s, commit, Gated::InviteCallee);
        true
    }

    /// The credentials of B's INVITE, if B's trunk asked for any.
    pub(super) fn invite_credentials(
        &mut self,
        s: &mut Session,
        sdp: &str,
    ) -> Vec<(HeaderName, String)> {
        if s.callee.answers.is_empty() {
            return Vec::new();
        }
        let Some(parts) = s.outbound.as_ref().map(|callee| &callee.parts) else {
            return Vec::new();
        };
        let Some(outbound) = self.outbound_auth(Some(s), Side::Callee, parts.peer, None) else {
            return Vec::new();
        };
        let protected = Protected {
            method: "INVITE",
            uri: &parts.uri,
            body: sdp.as_bytes(),
        };
        let cnonce = self.cnonce();
        s.callee.answers.headers(&outbound, &protected, &cnonce)
    }

    /// Adds credentials to a request within a dialog, if its far side has asked for any before.
    pub(super) fn give_credentials(&mut self, s: &mut Session, side: Side, request: &mut Request) {
        let answers = &s.party(side).answers;
        let of_invite = s.outbound.as_ref().map(|callee| callee.parts.peer);
        let of_dialog = s.party(side).dialog.as_ref().map(|dialog| dialog.peer);
        let peer = of_dialog.or(of_invite);
        let (false, Some(peer)) = (answers.is_empty(), peer) else {
            return;
        };
        if let Some(outbound) = self.outbound_auth(Some(s), side, peer, None) {
            let headers = self.authorize(&outbound, &mut s.party_mut(side).answers, request);
            compose::push_all(request, headers);
        }
    }

    fn authorize(
        &mut self,
        outbound: &OutboundAuth,
        answers: &mut Answers,
        request: &Request,
    ) -> Vec<(HeaderName, String)> {
        let method = String::from_utf8_lossy(request.method.as_bytes()).into_owned();
        let protected = Protected {
            method: &method,
            uri: &view::uri_text(&request.uri),
            body: request.body(),
        };
        answers.headers(outbound, &protected, &self.cnonce())
    }

    /// Sends a request of a dialog again. Its session may be gone: what is needed is in the request.
    fn repeat_in_dialog(
        &mut self,
        owner: Purpose,
        response: &Response,
        challenged: &Challenged,
    ) -> bool {
        let Challenged {
            request,
            peer,
            second_way,
            tries,
        } = challenged;
        // RFC 3261 §22.1: a CANCEL is not sent again.
        if request.method == Method::Cancel {
            return false;
        }
        let tag = view::from_tag(&request.headers).and_then(|tag| LocalTag::parse(&tag));
        let (side, session) = match tag {
            Some(tag) => (tag.side, self.sessions.get(&tag.session).map(Box::as_ref)),
            None => return false,
        };
        let outbound = self.outbound_auth(session, side, *peer, Some(request));
        let Some(mut answers) = self.take_challenges(outbound.as_ref(), response, challenged)
        else {
            return false;
        };
        let (Some(outbound), Some((mut cseq, _))) = (outbound, view::cseq(&request.headers)) else {
            return false;
        };
        let credentials = self.authorize(&outbound, &mut answers, request);
        let call_id = view::call_id(&request.headers);
        if let Some(session) = tag.and_then(|tag| self.sessions.get_mut(&tag.session)) {
            let remote_tag = view::to_tag(&request.headers).unwrap_or_default();
            let early = session
                .outbound
                .as_mut()
                .and_then(|callee| callee.early.with_tag_mut(&remote_tag))
                .map(|early| &mut early.dialog);
            let party = match side {
                Side::Caller => &mut session.caller,
                Side::Callee => &mut session.callee,
            };
            let dialog = party.dialog.as_mut().or(early);
            if let Some(dialog) = dialog.filter(|dialog| Some(&dialog.call_id) == call_id.as_ref())
            {
                cseq = cseq.max(dialog.local_cseq);
                dialog.local_cseq = cseq.saturating_add(1);
                party.answers = answers;
                if request.method == Method::Invite {
                    party.reinvite_credentials.clone_from(&credentials);
                }
            }
        }
        let sent_by = self.sent_by(*peer);
        let branch = self.branch();
        let cseq = cseq.saturating_add(1);
        let Some(again) = compose::again(request, &sent_by, &branch, cseq, credentials) else {
            return false;
        };
        let owner = match owner {
            Purpose::Modify { session, side, .. } => Purpose::Modify {
                session,
                side,
                cseq,
            },
            Purpose::Invite(..)
            | Purpose::Probe(_)
            | Purpose::AdoptedBye(_)
            | Purpose::Register(_)
            | Purpose::StillThere(..)
            | Purpose::Aside
            | Purpose::Farewell => owner,
        };
        let tries = tries.saturating_add(1);
        let sent = self
            .transactions
            .send_again(self.now.tick, *peer, again, owner, tries);
        if let (Purpose::Modify { session, side, .. }, Some(tx)) = (owner, sent)
            && let Some(session) = self.sessions.get_mut(&session)
            && let Some(own) = session.party_mut(side).own.as_mut()
        {
            own.state = OwnState::Sent {
                tx,
                cseq,
                provisional: false,
                cancel: Cancel::No,
            };
        }
        if let (Some(tx), Some(way)) = (sent, second_way) {
            self.transactions.set_second_way(tx, *way);
        }
        sent.is_some()
    }

    /// Our credentials towards a party's trunk. When the session is gone, or one of its snapshots
    /// named no trunk, the address tells it, and the user name that a request already gave.
    fn outbound_auth(
        &self,
        s: Option<&Session>,
        side: Side,
        peer: Peer,
        request: Option<&Request>,
    ) -> Option<OutboundAuth> {
        let trunks = &self.config.trunks;
        let named = s.filter(|_| side == Side::Callee).and_then(|s| {
            let name = &s.outbound.as_ref()?.parts.trunk;
            trunks.iter().find(|trunk| trunk.name == *name)
        });
        if let Some(trunk) = named {
            return trunk.auth.outbound.clone();
        }
        let with_credentials = || {
            (0..=u16::MAX)
                .map(TrunkId)
                .zip(trunks.iter())
                .filter_map(|(id, trunk)| Some((id, trunk, trunk.auth.outbound.as_ref()?)))
        };
        let ip = peer.addr.ip();
        let knows = |id, trunk: &Trunk| self.targets.has(id, ip) || trunk.allows(ip);
        let given = request.and_then(|request| digest::username(&request.headers));
        let by_user = with_credentials()
            .find(|(id, trunk, auth)| knows(*id, trunk) && Some(&auth.username) == given.as_ref());
        let by_address = || {
            with_credentials()
                .find(|(id, ..)| self.targets.of(*id).iter().any(|it| it.addr == peer.addr))
        };
        let by_host = || with_credentials().find(|(id, trunk, _)| knows(*id, trunk));
        by_user
            .or_else(by_address)
            .or_else(by_host)
            .map(|(.., auth)| auth.clone())
    }

    /// A client's nonce: random, of hexadecimal digits.
    pub(super) fn cnonce(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }
}
