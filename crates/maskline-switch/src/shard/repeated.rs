//! INVITEs that are no new call: a copy that reaches us by another way, and one that left here and
//! comes back.

use std::collections::{BTreeMap, VecDeque};

use maskline_media::Tick;
use sipx_sip::headers::Via;

use crate::config::Listener;
use crate::sip::{LocalTag, Request, tag, view};

/// Most INVITEs that are remembered; the oldest is forgotten first.
const MOST: usize = 50_000;

/// What all copies of a request share (RFC 3261 §8.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shared {
    call_id: Box<str>,
    from_tag: Box<str>,
    cseq: u32,
}

impl Shared {
    fn of(request: &Request) -> Option<Self> {
        let headers = &request.headers;
        Some(Self {
            call_id: view::call_id(headers)?.into(),
            from_tag: view::from_tag(headers)?.into(),
            cseq: view::cseq(headers)?.0,
        })
    }
}

/// The INVITEs that became calls lately. A copy comes within the 64·T1 for which its sender repeats
/// it.
#[derive(Debug, Default)]
pub(super) struct TakenInvites {
    taken: BTreeMap<Shared, Tick>,
    order: VecDeque<(Tick, Shared)>,
}

impl TakenInvites {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Remembers an INVITE until `until`, which never goes back from call to call.
    pub(super) fn remember(&mut self, invite: &Request, until: Tick) {
        let Some(shared) = Shared::of(invite) else {
            return;
        };
        self.taken.insert(shared.clone(), until);
        self.order.push_back((until, shared));
        while self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    /// Whether this INVITE, which is of no transaction of ours, is a copy of one that is.
    pub(super) fn holds(&self, invite: &Request) -> bool {
        Shared::of(invite).is_some_and(|shared| self.taken.contains_key(&shared))
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

    fn forget_oldest(&mut self) {
        if let Some((until, shared)) = self.order.pop_front()
            && self.taken.get(&shared) == Some(&until)
        {
            self.taken.remove(&shared);
        }
    }
}

/// Whether an INVITE outside of any dialog is one that left here: it has a From tag of ours, or went
/// through one of our sockets with a branch of ours.
pub(super) fn comes_back(invite: &Request, listeners: &[Listener]) -> bool {
    let headers = &invite.headers;
    view::from_tag(headers).is_some_and(|tag| LocalTag::parse(&tag).is_some())
        || headers
            .typed_all::<Via>()
            .filter_map(Result::ok)
            .any(|via| {
                let ours = |branch: &[u8]| {
                    tag::shard_of_branch(&String::from_utf8_lossy(branch)).is_some()
                };
                via.branch().is_some_and(ours) && {
                    let sent_by = format!("{}:{}", via.host, via.port.unwrap_or(5060));
                    listeners
                        .iter()
                        .any(|listener| listener.sent_by.host_port.eq_ignore_ascii_case(&sent_by))
                }
            })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sip::compose::SentBy;
    use crate::sip::{Message, Peer, Transport, wire};

    fn invite(from_tag: &str, call_id: &str, cseq: u32, vias: &str) -> Request {
        let text = format!(
            "INVITE sip:x@y SIP/2.0\r\n{vias}From: <sip:x@y>;tag={from_tag}\r\nTo: <sip:x@y>\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        let peer = Peer {
            listener: 0,
            transport: Transport::Udp,
            addr: "192.0.2.1:5060".parse().unwrap(),
        };
        match wire::read_datagram(text.as_bytes(), peer) {
            Ok(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n";

    #[test]
    fn a_copy_shares_from_tag_call_id_and_sequence_and_is_known_for_a_while() {
        let mut taken = TakenInvites::default();
        let at = |seconds| Tick::from_start(Duration::from_secs(seconds));
        taken.remember(&invite("a", "c", 1, VIA), at(32));
        let other_way = "Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKy\r\n";
        assert!(taken.holds(&invite("a", "c", 1, other_way)));
        for other in [
            invite("b", "c", 1, VIA),
            invite("a", "d", 1, VIA),
            invite("a", "c", 2, VIA),
        ] {
            assert!(!taken.holds(&other));
        }
        taken.on_deadline(at(31));
        assert!(taken.holds(&invite("a", "c", 1, VIA)));
        assert_eq!(taken.deadline(), Some(at(32)));
        taken.on_deadline(at(32));
        assert!(!taken.holds(&invite("a", "c", 1, VIA)) && taken.is_empty());
    }

    #[test]
    fn as_many_invites_are_remembered_as_there_is_room_for() {
        let mut taken = TakenInvites::default();
        for cseq in 0..60_000 {
            taken.remember(&invite("a", "c", cseq, VIA), Tick::ZERO);
        }
        assert_eq!(taken.taken.len(), MOST);
        assert!(taken.holds(&invite("a", "c", 59_999, VIA)));
        assert!(!taken.holds(&invite("a", "c", 0, VIA)));
    }

    #[test]
    fn an_invite_that_left_here_is_known_by_its_tag_or_by_its_way() {
        let listeners = [Listener {
            sent_by: SentBy {
                host_port: "198.18.0.1:5060".to_owned(),
                transport: Transport::Udp,
            },
            bound: "198.18.0.1:5060".parse().unwrap(),
        }];
        let ours = "m0.b.0000000000000007.00000000000000aa";
        let way = |sent_by: &str, branch: &str| {
            format!("{VIA}Via: SIP/2.0/UDP {sent_by};branch={branch}\r\n")
        };
        let branch = "z9hG4bKm0.000000000000000100000001";
        for (from_tag, vias, expected) in [
            ("x", VIA.to_owned(), false),
            (ours, VIA.to_owned(), true),
            ("x", way("198.18.0.1", branch), true),
            ("x", way("198.18.0.1:5060", branch), true),
            ("x", way("198.18.0.1:5061", branch), false),
            ("x", way("198.18.0.2", branch), false),
            ("x", way("198.18.0.1", "z9hG4bKother"), false),
            (
                "x",
                format!(
                    "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx, SIP/2.0/TCP 198.18.0.1;branch={branch}\r\n"
                ),
                true,
            ),
        ] {
            let call = invite(from_tag, "c", 1, &vias);
            assert_eq!(comes_back(&call, &listeners), expected, "{from_tag} {vias}");
        }
    }
}
