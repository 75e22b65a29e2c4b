//! The stored form of a trace: entries one after another, each a JSON head and the message's bytes.
//!
//! Fields are only ever added, so that a trace of an earlier version is read by the next.

use bytes::Bytes;
use maskline_events::Timestamp;
use maskline_media::Side;
use maskline_switch::TraceEntry;
use maskline_switch::sip::Peer;
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedMessage, TracedSide};
use serde::{Deserialize, Serialize};

/// One entry as it is read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which run of the node told it: only within one can ticks be compared.
    pub run: u64,
    /// The monotonic clock, microseconds.
    pub tick_us: u64,
    /// The wall clock.
    pub at: Timestamp,
    /// What happened.
    pub what: TraceEvent,
}

#[derive(Serialize, Deserialize)]
struct Head {
    /// Monotonic clock, microseconds.
    t: u64,
    /// Wall clock, milliseconds since 1970.
    w: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<MessageHead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<Step>,
}

#[derive(Serialize, Deserialize)]
struct MessageHead {
    d: Direction,
    s: TracedSide,
    p: Peer,
    n: usize,
}

/// The stored form of some entries of one session.
#[must_use]
pub fn encode(entries: &[TraceEntry]) -> Vec<u8> {
    let mut blob = Vec::new();
    for entry in entries {
        let tick = entry.at.tick.since_start().as_micros();
        let mut head = Head {
            t: u64::try_from(tick).unwrap_or(u64::MAX),
            w: entry.at.wall.unix_ms(),
            m: None,
            s: None,
        };
        let mut body = Bytes::new();
        match &entry.what {
            TraceEvent::Message(message) => {
                head.m = Some(MessageHead {
                    d: message.direction,
                    s: message.side.into(),
                    p: message.peer,
                    n: message.length,
                });
                body = message.bytes.clone();
            }
            TraceEvent::Step(step) => head.s = Some(step.clone()),
        }
        // Only texts, numbers and lists: they always serialise.
        let head = serde_json::to_vec(&head).unwrap_or_default();
        for part in [&head[..], &body[..]] {
            let length = u32::try_from(part.len()).unwrap_or(0);
            blob.extend_from_slice(&length.to_le_bytes());
            blob.extend_from_slice(part);
        }
    }
    blob
}

/// Reads what [`encode`] wrote, up to the first byte that can't be read.
#[must_use]
pub fn decode(run: u64, blob: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = blob;
    while let Some((head, after)) = part(rest)
        && let Some((body, after)) = part(after)
    {
        rest = after;
        let Ok(head) = serde_json::from_slice::<Head>(head) else {
            continue;
        };
        let what = match (head.m, head.s) {
            (Some(message), _) => TraceEvent::Message(TracedMessage {
                direction: message.d,
                side: match message.s {
                    TracedSide::A => Side::Caller,
                    TracedSide::B => Side::Callee,
                },
                peer: message.p,
                bytes: Bytes::copy_from_slice(body),
                length: message.n,
            }),
            (None, Some(step)) => TraceEvent::Step(step),
            (None, None) => continue,
        };
        entries.push(Entry {
            run,
            tick_us: head.t,
            at: Timestamp::from_unix_ms(head.w),
            what,
        });
    }
    entries
}

fn part(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use maskline_switch::sip::Transport;
    use maskline_switch::{Now, Tick};
    use uuid::Uuid;

    use super::*;

    fn entries() -> Vec<TraceEntry> {
        let entry = |us, what| TraceEntry {
            session_id: Uuid::from_u128(7),
            at: Now {
                tick: Tick::from_start(Duration::from_micros(us)),
                wall: Timestamp::from_unix_ms(1_767_657_600_000),
            },
            what,
        };
        let message = TracedMessage {
            direction: Direction::Out,
            side: Side::Callee,
            peer: Peer {
                listener: 1,
                transport: Transport::Tcp,
                addr: "[2001:db8::1]:5060".parse().unwrap(),
            },
            bytes: Bytes::from_static(b"BYE sip:\xff\0 SIP/2.0\r\n\r\n"),
            length: 9_000,
        };
        vec![
            entry(5, TraceEvent::Step(Step::Asked)),
            entry(6, TraceEvent::Message(message)),
            entry(
                7,
                TraceEvent::Step(Step::Timer {
                    timer: "B rang for too long".into(),
                }),
            ),
        ]
    }

    #[test]
    fn what_was_written_is_read_back() {
        let written = entries();
        let read = decode(3, &encode(&written));
        assert_eq!(read.len(), 3);
        for (read, written) in read.iter().zip(&written) {
            assert_eq!(read.what, written.what);
            assert_eq!((read.run, read.at), (3, written.at.wall));
        }
        assert_eq!(read[1].tick_us, 6);
    }

    #[test]
    fn a_blob_that_is_cut_anywhere_gives_what_is_whole() {
        let blob = encode(&entries());
        for end in 0..blob.len() {
            assert!(decode(1, &blob[..end]).len() < 3);
        }
        let newer = br#"{"t":1,"w":2,"s":{"step":"somethingNew","x":1}}"#;
        let mut blob = u32::try_from(newer.len()).unwrap().to_le_bytes().to_vec();
        blob.extend_from_slice(newer);
        blob.extend_from_slice(&[0; 4]);
        let read = decode(1, &blob);
        assert_eq!(read[0].what, TraceEvent::Step(Step::Unknown));
    }
}
