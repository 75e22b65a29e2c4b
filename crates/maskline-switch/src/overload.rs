//! What is taken while messages wait for a shard: a pure decision about one message and the queue.
//!
//! What would open something new is refused before the queue is long; what belongs to a call is
//! taken for longer, because refusing it saves nothing. A trunk's share is as much of the queue as is
//! still free: one alone may fill half of it with new calls, two a third each, and however many
//! flood it, the next one finds room.

use bytes::Bytes;

use crate::dispatch::Arrival;
use crate::sip::{Message, Method, view, wire};

/// Seconds that whoever is refused for overload is asked to wait (RFC 3261 §20.33).
pub const RETRY_AFTER_SECONDS: &str = "5";

/// How much waits for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFill {
    /// Messages that wait.
    pub waiting: usize,
    /// Those among them that came by the trunk of the message that is weighed.
    pub of_trunk: usize,
    /// Messages that may wait.
    pub capacity: usize,
}

/// What a message is to the calls that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It asks for something new: an INVITE, OPTIONS or any other request outside of a dialog.
    Opens,
    /// It belongs to what there is: a request within a dialog, ACK, CANCEL, any response.
    Belongs,
}

/// Why a message is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// Next to nothing is free.
    Queue,
    /// The message's trunk has its share of the queue.
    TrunkShare,
}

impl Overload {
    /// The reason, for the counter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Queue => "overload",
            Self::TrunkShare => "overload_of_trunk",
        }
    }
}

impl Weight {
    /// What an arrival is.
    #[must_use]
    pub fn of(arrival: &Arrival) -> Self {
        match &arrival.message {
            Message::Response(_) => Self::Belongs,
            Message::Request(request) => {
                if matches!(request.method, Method::Ack | Method::Cancel)
                    || view::to_tag(&request.headers).is_some()
                {
                    Self::Belongs
                } else {
                    Self::Opens
                }
            }
        }
    }
}

impl QueueFill {
    /// Whether the queue takes one message more.
    ///
    /// # Errors
    /// Why not. What [`Weight::Opens`] is then refused with [`refusal`]; what [`Weight::Belongs`]
    /// waits, or is lost as it would be in any other queue on its way.
    pub fn take(self, weight: Weight) -> Result<(), Overload> {
        let free = self.capacity.saturating_sub(self.waiting);
        let (room, share) = match weight {
            Weight::Opens => (free > self.capacity / 16, free),
            Weight::Belongs => (free > 0, free.saturating_mul(3)),
        };
        if !room {
            Err(Overload::Queue)
        } else if self.of_trunk >= share {
            Err(Overload::TrunkShare)
        } else {
            Ok(())
        }
    }
}

/// The 503 with `Retry-After` for a request that is not taken; it keeps no state. `None` for what is
/// not answered so.
#[must_use]
pub fn refusal(arrival: &Arrival) -> Option<Bytes> {
    match (&arrival.message, Weight::of(arrival)) {
        (Message::Request(request), Weight::Opens) => {
            wire::refuse_for_now(request, RETRY_AFTER_SECONDS)
        }
        (Message::Request(_) | Message::Response(_), _) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::TrunkId;
    use crate::sip::{Peer, Transport};

    const CAPACITY: usize = 100;

    fn fill(waiting: usize, of_trunk: usize) -> QueueFill {
        QueueFill {
            waiting,
            of_trunk,
            capacity: CAPACITY,
        }
    }

    fn arrival(text: &str) -> Arrival {
        let peer = Peer {
            listener: 0,
            transport: Transport::Udp,
            addr: "192.0.2.1:5060".parse().unwrap(),
        };
        Arrival {
            peer,
            trunk: TrunkId(0),
            message: wire::read_datagram(text.as_bytes(), peer).unwrap(),
            raw: Bytes::new(),
        }
    }

    fn request(method: &str, to_tag: &str) -> Arrival {
        arrival(&format!(
            "{method} sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
             From: <sip:x@y>;tag=a\r\nTo: <sip:x@y>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ))
    }

    #[test]
    fn what_opens_something_is_refused_from_half_on_and_what_belongs_to_a_call_passes() {
        let (queue, share) = (Err(Overload::Queue), Err(Overload::TrunkShare));
        for (waiting, of_trunk, opens, belongs) in [
            (0, 0, Ok(()), Ok(())),
            (49, 49, Ok(()), Ok(())),
            (50, 50, share, Ok(())),
            (74, 74, share, Ok(())),
            (75, 75, share, share),
            // Of another trunk, when one has its share or more.
            (75, 0, Ok(()), Ok(())),
            (75, 24, Ok(()), Ok(())),
            (75, 25, share, Ok(())),
            (93, 0, Ok(()), Ok(())),
            (94, 0, queue, Ok(())),
            (99, 0, queue, Ok(())),
            (100, 0, queue, queue),
            (200, 0, queue, queue),
        ] {
            let fill = fill(waiting, of_trunk);
            assert_eq!(fill.take(Weight::Opens), opens, "{fill:?}");
            assert_eq!(fill.take(Weight::Belongs), belongs, "{fill:?}");
        }
        // However small it is, a queue takes something.
        for capacity in 1..4 {
            let empty = QueueFill {
                waiting: 0,
                of_trunk: 0,
                capacity,
            };
            assert_eq!(empty.take(Weight::Opens), Ok(()));
            assert_eq!(empty.take(Weight::Belongs), Ok(()));
        }
    }

    /// As much as a trunk can get into the queue, beside what is in it.
    fn flood(of_trunk: &mut usize, others: usize, weight: Weight) {
        while fill(*of_trunk + others, *of_trunk).take(weight).is_ok() {
            *of_trunk += 1;
        }
    }

    #[test]
    fn however_many_trunks_flood_the_queue_the_next_one_finds_room() {
        for weight in [Weight::Opens, Weight::Belongs] {
            let mut waiting = 0;
            for trunk in 0..4 {
                assert_eq!(fill(waiting, 0).take(weight), Ok(()), "{trunk}");
                let mut of_trunk = 0;
                flood(&mut of_trunk, waiting, weight);
                waiting += of_trunk;
            }
        }
    }

    #[test]
    fn only_requests_outside_of_dialogs_open_something_and_are_refused_with_503() {
        for (method, to_tag, opens) in [
            ("INVITE", "", true),
            ("OPTIONS", "", true),
            ("REGISTER", "", true),
            ("DANCE", "", true),
            ("INVITE", ";tag=b", false),
            ("BYE", ";tag=b", false),
            ("UPDATE", ";tag=b", false),
            ("ACK", ";tag=b", false),
            ("ACK", "", false),
            ("CANCEL", "", false),
        ] {
            let arrival = request(method, to_tag);
            assert_eq!(Weight::of(&arrival) == Weight::Opens, opens, "{method}");
            let refused = refusal(&arrival).map(|it| String::from_utf8_lossy(&it).into_owned());
            assert_eq!(refused.is_some(), opens, "{method}");
            if let Some(text) = refused {
                assert!(text.starts_with("SIP/2.0 503 "), "{text}");
                assert!(text.contains("\r\nRetry-After: 5\r\n"), "{text}");
            }
        }
        let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
             From: <sip:x@y>;tag=a\r\nTo: <sip:x@y>;tag=b\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
             Content-Length: 0\r\n\r\n";
        assert_eq!(Weight::of(&arrival(response)), Weight::Belongs);
    }
}
