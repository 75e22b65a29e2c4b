//! Digest credentials on both ends of a phone: it may ask for them, and it may be asked.

use maskline_switch::OutboundAuth;
use maskline_switch::credentials::Answers;
use maskline_switch::sip::digest::{self, Algorithm, Given, Ha1, Protected};
use maskline_switch::sip::{
    Challenged, HeaderName, Method, Request, Response, TxId, compose, view,
};
use rand::RngCore;

use crate::phone::{Call, Phone, Purpose};

/// The protection space that a phone names.
const REALM: &str = "phone.example";

/// What a phone asks for before it takes a call.
#[derive(Clone, Debug)]
pub struct Asks {
    /// 407 as a proxy would, instead of 401.
    pub proxy: bool,
    /// MD5 alone, instead of both algorithms.
    pub only_md5: bool,
    /// The first right answer is refused as stale.
    pub stale_once: bool,
    /// A BYE is asked as well.
    pub asks_bye: bool,
    /// Changes of the call are asked as well, each with a nonce of its own.
    pub asks_changes: bool,
    /// Whose password.
    pub username: String,
    /// The password.
    pub password: String,
}

/// What a phone that asks remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    nonce: Option<String>,
    highest: u32,
    was_stale: bool,
    /// The `CSeq` number and the credentials of the INVITE that was let in last.
    let_in: Option<(u32, Vec<(HeaderName, String)>)>,
}

impl Phone {
    /// Whether a request is refused for its credentials; it is answered then.
    pub(crate) fn asks(&mut self, tx: TxId, request: &Request) -> bool {
        let Some(asks) = self.config.asks.clone() else {
            return false;
        };
        let in_dialog = view::to_tag(&request.headers).is_some();
        let method = if request.method == Method::Invite && !in_dialog {
            "INVITE"
        } else if request.method == Method::Bye && asks.asks_bye {
            "BYE"
        } else if request.method == Method::Invite && asks.asks_changes {
            "INVITE"
        } else if request.method == Method::Update && asks.asks_changes {
            "UPDATE"
        } else {
            return false;
        };
        let is_change = in_dialog && request.method != Method::Bye;
        let cseq = view::cseq(&request.headers).map_or(0, |(cseq, _)| cseq);
        let ha1 = |algorithm| Ha1::new(algorithm, &asks.username, REALM, &asks.password);
        let right = Given::read_all(&request.headers, asks.proxy)
            .into_iter()
            .find(|given| {
                given.realm == REALM
                    && Some(&given.nonce) == self.asked.nonce.as_ref()
                    && given.count > self.asked.highest
                    && given.proves(&ha1(given.algorithm), method)
            });
        let mut stale = "";
        if let Some(given) = right {
            // Each change needs a nonce that was given for it.
            let is_fresh = !is_change || self.asked.highest == 0;
            if !is_fresh {
                stale = ", stale=true";
            } else if self.asked.was_stale || !asks.stale_once {
                self.asked.highest = given.count;
                if method == "INVITE" {
                    self.asked.let_in = Some((cseq, digest::credentials(&request.headers)));
                }
                return false;
            } else {
                self.asked.was_stale = true;
                stale = ", stale=true";
            }
        }
        self.report.asked += 1;
        self.report.asked_changes += usize::from(is_change);
        let nonce = self.new_word("n");
        self.asked.highest = 0;
        self.asked.nonce = Some(nonce.clone());
        let (status, name) = if asks.proxy {
            (407, HeaderName::ProxyAuthenticate)
        } else {
            (401, HeaderName::WwwAuthenticate)
        };
        let algorithms: &[_] = if asks.only_md5 {
            &[Algorithm::Md5]
        } else {
            &[Algorithm::Md5, Algorithm::Sha256]
        };
        let challenges: Vec<_> = algorithms
            .iter()
            .map(|algorithm| {
                let algorithm = algorithm.as_str();
                let value = format!(
                    "Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm={algorithm}, \
                     qop=\"auth\"{stale}"
                );
                (name.clone(), value)
            })
            .collect();
        self.answer(tx, request, status, &challenges, None);
        true
    }

    /// An ACK to a 2xx carries what its INVITE carried.
    pub(crate) fn look_at_ack(&mut self, ack: &Request) {
        let cseq = view::cseq(&ack.headers).map(|(cseq, _)| cseq);
        if let Some((number, credentials)) = &self.asked.let_in
            && cseq == Some(*number)
            && *credentials != digest::credentials(&ack.headers)
        {
            self.report.bare_ack = true;
        }
    }

    /// Sends a refused INVITE again with credentials. `false`: it is not sent again.
    pub(crate) fn answer_challenge(
        &mut self,
        owner: Purpose,
        response: &Response,
        challenged: &Challenged,
    ) -> bool {
        let (Purpose::Invite, Call::Calling(mut calling)) = (owner, self.call) else {
            return false;
        };
        let Some(credentials) = self.config.credentials.clone() else {
            return false;
        };
        if calling.given_up {
            return false;
        }
        let Some((cseq, request)) = self.with_credentials(&credentials, response, challenged)
        else {
            return false;
        };
        let sent = self.transactions.send_again(
            self.now,
            challenged.peer,
            request,
            Purpose::Invite,
            challenged.tries.saturating_add(1),
        );
        let Some(tx) = sent else {
            return false;
        };
        self.invite_cseq = cseq;
        self.invite = Some(tx);
        calling.tx = tx;
        calling.provisional = false;
        self.call = Call::Calling(calling);
        true
    }

    fn with_credentials(
        &mut self,
        credentials: &OutboundAuth,
        response: &Response,
        challenged: &Challenged,
    ) -> Option<(u32, Request)> {
        let refused = &challenged.request;
        let mut answers = Answers::of_request(refused);
        answers.take(credentials, response, challenged.tries).ok()?;
        let uri = view::uri_text(&refused.uri);
        let protected = Protected {
            method: "INVITE",
            uri: &uri,
            body: refused.body(),
        };
        let cnonce = format!("{:016x}", self.rng.next_u64());
        let headers = answers.headers(credentials, &protected, &cnonce);
        let cseq = view::cseq(&refused.headers)?.0 + 1;
        let branch = self.new_branch();
        let sent_by = &self.config.sent_by;
        Some((
            cseq,
            compose::again(refused, sent_by, &branch, cseq, headers)?,
        ))
    }
}
