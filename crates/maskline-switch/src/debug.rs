//! What `Debug` shows of what holds messages or parts of them: where a call stands, and no number,
//! name or body. Whoever prints one into a log gives nobody away.

use std::fmt;

use crate::dialog::Dialog;
use crate::dispatch::Arrival;
use crate::io::{JournalRecord, RecordedEvent};
use crate::modification::Acknowledged;
use crate::session::early::{HeardEarly, Provisional};
use crate::session::{
    Callee, CalleeInvite, CallerInvite, InviteParts, PartyDialog, Pending2xx, Session,
};
use crate::shard::Shard;
use crate::sip::Message;

impl fmt::Debug for InviteParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteParts")
            .field("branch", &self.branch)
            .field("cseq", &self.cseq)
            .field("peer", &self.peer)
            .field("trunk", &self.trunk)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CallerInvite {
    /// Call-IDs may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerInvite")
            .field("cseq", &self.cseq)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Dialog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialog")
            .field("local_tag", &self.local_tag)
            .field("local_cseq", &self.local_cseq)
            .field("remote_cseq", &self.remote_cseq)
            .field("routes", &self.routes.len())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callee")
            .field("parts", &self.parts)
            .field("invite", &self.invite)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CalleeInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gated => f.write_str("Gated"),
            Self::Calling { tx, provisional } => f
                .debug_struct("Calling")
                .field("tx", tx)
                .field("provisional", provisional)
                .finish(),
            Self::Cancelling { tx, sent } => f
                .debug_struct("Cancelling")
                .field("tx", tx)
                .field("sent", sent)
                .finish(),
            Self::Answered { ack, peer } => f
                .debug_struct("Answered")
                .field("acknowledged", &ack.is_some())
                .field("peer", peer)
                .finish(),
            Self::Ended => f.write_str("Ended"),
        }
    }
}

impl fmt::Debug for Pending2xx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending2xx")
            .field("tx", &self.tx)
            .field("cseq", &self.cseq)
            .field("gives_up", &self.gives_up)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledged")
            .field("cseq", &self.cseq)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PartyDialog {
    /// Our descriptions may hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartyDialog")
            .field("dialog", &self.dialog)
            .field("owed_bye", &self.owed_bye)
            .field("sdp_version", &self.sdp_version)
            .field("holding", &self.holding)
            .field("srtp", &self.srtp)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HeardEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeardEarly")
            .field("is_answer", &self.is_answer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Provisional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisional")
            .field("status", &self.status)
            .field("describes", &self.sdp.is_some())
            .finish()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("id", &self.id)
            .field("stage", &self.stage)
            .field("outbound", &self.outbound)
            .field("caller", &self.caller.dialog)
            .field("callee", &self.callee.dialog)
            .field("media", &self.media)
            .field("status", &self.status)
            .field("gates", &self.gates)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("sessions", &self.sessions())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.message {
            Message::Request(request) => {
                String::from_utf8_lossy(request.method.as_bytes()).into_owned()
            }
            Message::Response(response) => response.status.code().to_string(),
        };
        f.debug_struct("Arrival")
            .field("peer", &self.peer)
            .field("trunk", &self.trunk)
            .field("what", &what)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JournalRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot.as_ref().map(Vec::len);
        f.debug_struct("JournalRecord")
            .field("session_id", &self.session_id)
            .field("snapshot_bytes", &snapshot)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RecordedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedEvent")
            .field("event_id", &self.event_id)
            .field("ordinal", &self.ordinal)
            .field("webhook_type", &self.webhook_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sip::{Peer, Transport, wire};
    use crate::{Shard, SwitchConfig, TrunkId};

    const NUMBER: &str = "98887777";

    fn peer() -> Peer {
        Peer {
            listener: 0,
            transport: Transport::Udp,
            addr: ([192, 0, 2, 1], 5060).into(),
        }
    }

    #[track_caller]
    fn assert_hides(shown: &impl fmt::Debug) {
        for text in [format!("{shown:?}"), format!("{shown:#?}")] {
            assert!(!text.contains(NUMBER), "{text}");
            assert!(text.len() > 20, "{text}");
        }
    }

    #[test]
    fn no_number_is_in_what_is_kept_of_an_invite_or_a_dialog() {
        let uri = format!("<sip:+65{NUMBER}@192.0.2.1>");
        let parts = InviteParts {
            uri: uri.clone(),
            branch: "z9hG4bK".to_owned(),
            from: uri.clone(),
            to: uri.clone(),
            extra: vec![("P-Asserted-Identity".to_owned(), uri.clone())],
            call_id: NUMBER.to_owned(),
            cseq: 1,
            session_expires: 0,
            session_least: 0,
            peer: peer(),
            trunk: "carrier".to_owned(),
        };
        assert_hides(&parts);
        let caller = CallerInvite {
            vias: vec![NUMBER.to_owned()],
            from: uri.clone(),
            to: uri.clone(),
            call_id: NUMBER.to_owned(),
            cseq: "1 INVITE".to_owned(),
            terms: vec![("Contact".to_owned(), uri.clone())],
            peer: peer(),
        };
        assert_hides(&caller);
        let dialog = Dialog {
            call_id: NUMBER.to_owned(),
            local_tag: "a".to_owned(),
            remote_tag: NUMBER.to_owned(),
            local: uri.clone(),
            remote: uri.clone(),
            local_cseq: 1,
            remote_cseq: 0,
            routes: vec![uri.clone()],
            target: uri,
            peer: peer(),
        };
        assert_hides(&dialog);
    }

    #[test]
    fn no_number_is_in_what_shows_an_arrival_or_a_shard_that_has_it() {
        let text = format!(
            "INVITE sip:+65{NUMBER}@x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
             From: <sip:+65{NUMBER}@y>;tag=a\r\nTo: <sip:{NUMBER}@y>\r\nCall-ID: {NUMBER}\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        let arrival = Arrival {
            peer: peer(),
            trunk: TrunkId(0),
            message: wire::read_datagram(text.as_bytes(), peer()).unwrap(),
            raw: text.clone().into(),
        };
        assert_hides(&arrival);
        let event = RecordedEvent {
            event_id: uuid::Uuid::nil(),
            ordinal: 1,
            webhook_type: maskline_events::WebhookType::Vcs,
            at: maskline_events::Timestamp::from_unix_ms(0),
            body: text,
        };
        assert_hides(&JournalRecord {
            session_id: uuid::Uuid::nil(),
            sub_account_id: "account".to_owned(),
            snapshot: Some(NUMBER.as_bytes().to_vec()),
            events: vec![event],
        });
        let mut shard = Shard::new(SwitchConfig::default(), [0; 32]);
        let now = crate::Now {
            tick: crate::Tick::ZERO,
            wall: maskline_events::Timestamp::from_unix_ms(0),
        };
        shard.handle(now, crate::Input::MessageArrived(Box::new(arrival)));
        assert_hides(&shard);
    }
}
