//! A phone's side of one dialog (RFC 3261 §12), kept apart from the switch's on purpose.

use std::time::Duration;

use bytes::Bytes;
use maskline_media::Tick;
use maskline_switch::sip::compose::{self, RequestParts, SentBy};
use maskline_switch::sip::{HeaderName, Method, Peer, Request, Response, Transport, TxId, view};

use crate::changing::Asking;

/// A 2xx that waits for its ACK.
#[derive(Clone, Debug)]
pub(crate) struct Unacknowledged {
    pub(crate) tx: TxId,
    pub(crate) cseq: u32,
    pub(crate) response: Response,
    pub(crate) interval: Duration,
    pub(crate) gives_up: Tick,
    /// Whether it carries an offer, so that the ACK carries the answer.
    pub(crate) offers: bool,
}

/// How far a dialog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A 2xx made it; its ACK has not come yet.
    Answered,
    /// Acknowledged.
    Confirmed,
    /// Our BYE is out.
    Leaving,
    /// Nothing more will come of it.
    Over,
}

/// One dialog of a phone.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) standing: Standing,
    pub(crate) local_tag: String,
    pub(crate) remote_tag: String,
    call_id: String,
    local: String,
    remote: String,
    pub(crate) local_cseq: u32,
    remote_cseq: u32,
    target: String,
    peer: Peer,
    /// The ACK, for repeated 2xx.
    pub(crate) ack: Option<(Peer, Bytes)>,
    pub(crate) unacknowledged: Option<Unacknowledged>,
    /// The last re-INVITE's number and ACK.
    pub(crate) reinvite: Option<(u32, Option<(Peer, Bytes)>)>,
    /// What we ask for and have no final answer to.
    pub(crate) asking: Option<Asking>,
}

impl Dialog {
    /// Of a 2xx that came to our INVITE.
    pub(crate) fn dialled(invite: &Request, answer: &Response, peer: Peer) -> Option<Self> {
        let sent = &invite.headers;
        let got = &answer.headers;
        Some(Self {
            standing: Standing::Answered,
            local_tag: view::from_tag(sent)?,
            remote_tag: view::to_tag(got)?,
            call_id: view::call_id(sent)?,
            local: view::text(sent, &HeaderName::From)?,
            remote: view::text(got, &HeaderName::To)?,
            local_cseq: view::cseq(sent)?.0,
            remote_cseq: 0,
            target: view::contact(got)?,
            peer,
            ack: None,
            unacknowledged: None,
            reinvite: None,
            asking: None,
        })
    }

    /// Of a 2xx that we give to an INVITE.
    pub(crate) fn called(invite: &Request, local_tag: &str, peer: Peer) -> Option<Self> {
        let got = &invite.headers;
        let to = view::text(got, &HeaderName::To)?;
        Some(Self {
            standing: Standing::Answered,
            local_tag: local_tag.to_owned(),
            remote_tag: view::from_tag(got)?,
            call_id: view::call_id(got)?,
            local: format!("{to};tag={local_tag}"),
            remote: view::text(got, &HeaderName::From)?,
            local_cseq: 0,
            remote_cseq: view::cseq(got)?.0,
            target: view::contact(got)?,
            peer,
            ack: None,
            unacknowledged: None,
            reinvite: None,
            asking: None,
        })
    }

    /// Whether a request of the far end belongs here.
    pub(crate) fn owns(&self, request: &Request) -> bool {
        let headers = &request.headers;
        view::call_id(headers).as_ref() == Some(&self.call_id)
            && view::to_tag(headers).as_ref() == Some(&self.local_tag)
            && view::from_tag(headers).as_ref() == Some(&self.remote_tag)
    }

    /// Takes a request's number; `false`: an old one.
    pub(crate) fn in_order(&mut self, request: &Request) -> bool {
        match view::cseq(&request.headers) {
            Some((number, _)) if number > self.remote_cseq => {
                self.remote_cseq = number;
                true
            }
            _ => false,
        }
    }

    /// Where our requests go: over UDP to the Contact, over a stream where the peer is connected.
    pub(crate) fn next_hop(&self) -> Peer {
        let target = sip_address(&self.target);
        match (self.peer.transport, target) {
            (Transport::Udp, Some(addr)) => Peer { addr, ..self.peer },
            (Transport::Udp, None) | (Transport::Tcp | Transport::Tls, _) => self.peer,
        }
    }

    /// A request without a body, with more headers.
    pub(crate) fn request_with(
        &mut self,
        method: Method,
        sent_by: &SentBy,
        branch: &str,
        extra: &[(HeaderName, String)],
    ) -> Option<Request> {
        self.local_cseq += 1;
        self.compose(method, self.local_cseq, sent_by, branch, None, extra)
    }

    /// A request in this dialog; an ACK has the number of its INVITE.
    pub(crate) fn request(
        &mut self,
        method: Method,
        cseq: Option<u32>,
        sent_by: &SentBy,
        branch: &str,
        sdp: Option<&str>,
    ) -> Option<Request> {
        let cseq = cseq.unwrap_or_else(|| {
            self.local_cseq += 1;
            self.local_cseq
        });
        self.compose(method, cseq, sent_by, branch, sdp, &[])
    }

    fn compose(
        &self,
        method: Method,
        cseq: u32,
        sent_by: &SentBy,
        branch: &str,
        sdp: Option<&str>,
        extra: &[(HeaderName, String)],
    ) -> Option<Request> {
        compose::request(&RequestParts {
            method,
            uri: &self.target,
            routes: &[],
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
}

fn sip_address(uri: &str) -> Option<std::net::SocketAddr> {
    let hosted = uri.strip_prefix("sip:")?;
    let host = hosted.rsplit('@').next()?.split(';').next()?;
    host.parse().ok().or_else(|| {
        let ip = host.parse().ok()?;
        Some(std::net::SocketAddr::new(ip, 5060))
    })
}
