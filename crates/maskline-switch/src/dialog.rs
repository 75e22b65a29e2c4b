//! One SIP dialog of ours (RFC 3261 §12), as both sides of a masked call have one each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sipx_sip::{Headers, Request, Response, Uri};

use crate::sip::compose::{self, RequestParts, SentBy};
use crate::sip::{HeaderName, Method, Peer, view};

/// How far `CSeq` jumps when a restarted node takes a dialog over: more than the requests that can
/// have been sent after the last snapshot.
const ADOPTION_CSEQ_JUMP: u32 = 100;

/// A dialog's state, as it is also kept in the journal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// `Call-ID`.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
    /// Our whole `From` value in requests of ours, tag included.
    pub local: String,
    /// The whole `To` value in requests of ours, tag included.
    pub remote: String,
    /// The last `CSeq` number that we used.
    pub local_cseq: u32,
    /// The last `CSeq` number that the peer used.
    pub remote_cseq: u32,
    /// `Route` values of our requests.
    pub routes: Vec<String>,
    /// The Request-URI of our requests: the peer's `Contact`.
    pub target: String,
    /// Where the peer's messages come from; used when the next hop is a name.
    pub peer: Peer,
}

impl Dialog {
    /// The dialog that an INVITE makes when we answer it (RFC 3261 §12.1.1). `None`: the INVITE
    /// lacks what a dialog needs.
    #[must_use]
    pub fn of_caller(invite: &Request, local_tag: &str, peer: Peer) -> Option<Self> {
        let headers = &invite.headers;
        let to = view::text(headers, &HeaderName::To)?;
        Some(Self {
            call_id: view::call_id(headers)?,
            local_tag: local_tag.to_owned(),
            remote_tag: view::from_tag(headers)?,
            local: format!("{to};tag={local_tag}"),
            remote: view::text(headers, &HeaderName::From)?,
            local_cseq: 0,
            remote_cseq: view::cseq(headers)?.0,
            routes: view::record_routes(headers)?,
            target: view::contact(headers)?,
            peer,
        })
    }

    /// The dialog that a 2xx to our INVITE makes (RFC 3261 §12.1.2).
    #[must_use]
    pub fn of_callee(invite: &Request, answer: &Response, peer: Peer) -> Option<Self> {
        let headers = &answer.headers;
        let mut routes = view::record_routes(headers)?;
        routes.reverse();
        Some(Self {
            call_id: view::call_id(&invite.headers)?,
            local_tag: view::from_tag(&invite.headers)?,
            remote_tag: view::to_tag(headers)?,
            local: view::text(&invite.headers, &HeaderName::From)?,
            remote: view::text(headers, &HeaderName::To)?,
            local_cseq: view::cseq(&invite.headers)?.0,
            remote_cseq: 0,
            routes,
            // A 2xx without Contact breaks RFC 3261 §12.1.1; the way that the INVITE went is the
            // best guess.
            target: view::contact(headers).unwrap_or_else(|| view::uri_text(&invite.uri)),
            peer,
        })
    }

    /// Whether a request of the peer belongs to this dialog.
    #[must_use]
    pub fn owns(&self, headers: &Headers) -> bool {
        view::call_id(headers).as_deref() == Some(self.call_id.as_str())
            && view::to_tag(headers).as_deref() == Some(self.local_tag.as_str())
            && view::from_tag(headers).as_deref() == Some(self.remote_tag.as_str())
    }

    /// Takes the `CSeq` of a request of the peer; `false`: it is out of order (RFC 3261 §12.2.2).
    pub fn take_remote_cseq(&mut self, headers: &Headers) -> bool {
        let Some((sequence, _)) = view::cseq(headers) else {
            return false;
        };
        let in_order = sequence > self.remote_cseq || self.remote_cseq == 0;
        if in_order {
            self.remote_cseq = sequence;
        }
        in_order
    }

    /// Takes a new remote target from a target refresh (RFC 3261 §12.2.1.2).
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Some(contact) = view::contact(headers) {
            self.target = contact;
        }
    }

    /// Prepares a dialog from a snapshot for this run: requests of ours are numbered above those of
    /// the earlier run, the peer's last one may come again because its transaction is lost, and a
    /// stream that the peer opened is gone.
    pub fn adopt(&mut self) {
        self.local_cseq = self.local_cseq.saturating_add(ADOPTION_CSEQ_JUMP);
        self.remote_cseq = self.remote_cseq.saturating_sub(1);
        if let Some(way) = self.second_way() {
            self.peer = way;
        }
    }

    /// Where requests of ours go: the first route or the target when it is an address, else where
    /// the peer's messages come from.
    ///
    /// A stream that the peer opened is used again for the same host (as RFC 5923 has it), and the
    /// peer's transport is kept unless the URI names another.
    #[must_use]
    pub fn next_hop(&self) -> Peer {
        let Some(uri) = self.first_uri() else {
            return self.peer;
        };
        match view::address_of(&uri, self.peer.transport) {
            Some(addr) if !self.peer.transport.is_stream() => Peer { addr, ..self.peer },
            Some(addr) if addr.ip() != self.peer.addr.ip() => Peer { addr, ..self.peer },
            _ => self.peer,
        }
    }

    /// Where the peer listens, if [`Self::next_hop`] is a stream to another of its ports: a peer
    /// may close the stream that it opened, and then its source port leads nowhere.
    #[must_use]
    pub fn second_way(&self) -> Option<Peer> {
        let hop = self.next_hop();
        if !hop.transport.is_stream() {
            return None;
        }
        let default = hop.transport.default_port();
        let port = self.first_uri()?.port().unwrap_or(default);
        let addr = SocketAddr::new(hop.addr.ip(), port);
        (addr != hop.addr).then_some(Peer { addr, ..hop })
    }

    /// The URI that requests of ours go to first.
    fn first_uri(&self) -> Option<Uri> {
        let uri = match self.routes.first() {
            Some(route) => route.trim_matches(['<', '>']),
            None => self.target.as_str(),
        };
        Uri::parse(bytes::Bytes::copy_from_slice(uri.as_bytes())).ok()
    }

    /// The next request in this dialog.
    pub fn request(&mut self, method: Method, sent_by: &SentBy, branch: &str) -> Option<Request> {
        self.request_with(method, sent_by, branch, &[], None)
    }

    /// As [`Self::request`], with more headers and an SDP body.
    pub fn request_with(
        &mut self,
        method: Method,
        sent_by: &SentBy,
        branch: &str,
        extra: &[(HeaderName, String)],
        sdp: Option<&str>,
    ) -> Option<Request> {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.compose(method, self.local_cseq, sent_by, branch, extra, sdp)
    }

    /// The ACK to a 2xx of this `CSeq` number (RFC 3261 §13.2.2.4).
    #[must_use]
    pub fn ack(
        &self,
        cseq: u32,
        sent_by: &SentBy,
        branch: &str,
        sdp: Option<&str>,
    ) -> Option<Request> {
        self.compose(Method::Ack, cseq, sent_by, branch, &[], sdp)
    }

    fn compose(
        &self,
        method: Method,
        cseq: u32,
        sent_by: &SentBy,
        branch: &str,
        extra: &[(HeaderName, String)],
        sdp: Option<&str>,
    ) -> Option<Request> {
        let (uri, routes) = self.routed();
        compose::request(&RequestParts {
            method,
            uri: &uri,
            routes: &routes,
            sent_by,
            branch,
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq,
            sdp,
            extra,
        })
    }

    /// Request-URI and Route values: a first hop without `lr` is a strict router, which wants
    /// itself in the Request-URI (RFC 3261 §12.2.1.1).
    fn routed(&self) -> (String, Vec<String>) {
        match self.routes.split_first() {
            Some((first, rest)) if !is_loose(first) => {
                let mut routes = rest.to_vec();
                routes.push(format!("<{}>", self.target));
                (first.trim_matches(['<', '>']).to_owned(), routes)
            }
            _ => (self.target.clone(), self.routes.clone()),
        }
    }
}

fn is_loose(route: &str) -> bool {
    route
        .trim_matches(['<', '>'])
        .split(';')
        .skip(1)
        .any(|param| {
            let name = param.split('=').next().unwrap_or_default();
            name.eq_ignore_ascii_case("lr")
        })
}
