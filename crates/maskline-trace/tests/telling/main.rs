//! A call from its entries to what a person sees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod capture;
mod drawing;

use bytes::Bytes;
use maskline_events::{CallStatus, Party, SessionStatus, Timestamp};
use maskline_media::Side;
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedMessage, TracedSide};
use maskline_trace::Entry;
use uuid::Uuid;

pub const SESSION: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

pub struct Call {
    pub entries: Vec<Entry>,
    pub run: u64,
    pub us: u64,
    pub wall: i64,
    pub transport: Transport,
}

impl Call {
    pub fn new(transport: Transport) -> Self {
        Self {
            entries: Vec::new(),
            run: 1,
            us: 5_000_000,
            wall: 1_767_657_600_000,
            transport,
        }
    }

    pub fn after(&mut self, us: u64) -> &mut Self {
        self.us += us;
        self.wall += i64::try_from(us / 1_000).unwrap();
        self
    }

    fn push(&mut self, what: TraceEvent) -> &mut Self {
        self.entries.push(Entry {
            run: self.run,
            tick_us: self.us,
            at: Timestamp::from_unix_ms(self.wall),
            what,
        });
        self
    }

    pub fn step(&mut self, step: Step) -> &mut Self {
        self.push(TraceEvent::Step(step))
    }

    pub fn message(&mut self, direction: Direction, side: Side, text: &str) -> &mut Self {
        let addr = match side {
            Side::Caller => "192.0.2.10:5060",
            Side::Callee => "198.51.100.9:5062",
        };
        let message = TracedMessage {
            direction,
            side,
            peer: Peer {
                listener: 0,
                transport: self.transport,
                addr: addr.parse().unwrap(),
            },
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            length: text.len(),
        };
        self.push(TraceEvent::Message(message))
    }

    pub fn leg(&mut self, side: TracedSide, source: &str, destination: &str) -> &mut Self {
        let number = |text: &str| Party::Number(text.parse().unwrap());
        self.step(Step::Leg {
            side,
            call_id: Uuid::from_u128(1),
            source: number(source),
            destination: number(destination),
            trunk: Some("carrier".into()),
            sub_account_id: "acme".to_owned(),
        })
    }

    pub fn event(&mut self, side: TracedSide, status: CallStatus) -> &mut Self {
        self.step(Step::Event {
            side,
            status,
            sip_code: 200,
        })
    }
}

pub fn request(method: &str, more: &str) -> String {
    format!(
        "{method} sip:+6560000001@192.0.2.1 SIP/2.0\r\nFrom: \"Al\" <sip:+6591111111@192.0.2.10>;tag=1\r\n\
         To: <sip:+6560000001@192.0.2.1>\r\nCall-ID: a84b4c76e66710\r\nCSeq: 1 {method}\r\n{more}\r\n"
    )
}

pub fn response(status: &str, method: &str, more: &str) -> String {
    format!("SIP/2.0 {status}\r\nCall-ID: a84b4c76e66710\r\nCSeq: 1 {method}\r\n{more}\r\n")
}

/// A call that was answered and that A ended.
pub fn answered(transport: Transport) -> Call {
    use Direction::{In, Out};
    use Side::{Callee, Caller};
    let gate = |what: &'static str| what.into();
    let mut call = Call::new(transport);
    call.message(In, Caller, &request("INVITE", ""))
        .message(Out, Caller, &response("100 Trying", "INVITE", ""))
        .after(200)
        .leg(TracedSide::A, "+6591111111", "+6560000001")
        .event(TracedSide::A, CallStatus::CallReceived)
        .step(Step::Waits {
            what: gate("VCA request"),
        })
        .after(2_500)
        .step(Step::Goes {
            what: gate("VCA request"),
        })
        .step(Step::Asked)
        .after(12_000)
        .step(Step::Answered {
            outcome: "makeCall".into(),
            usable: true,
        })
        .leg(TracedSide::B, "+6560000001", "+6582222222")
        .message(Out, Callee, &request("INVITE", ""))
        .after(1_000_000)
        .message(In, Callee, &response("180 Ringing", "INVITE", ""))
        .after(3_000_000)
        .message(In, Callee, &response("200 OK", "INVITE", ""))
        .message(Out, Callee, &request("ACK", ""))
        .step(Step::Waits {
            what: gate("200 to A"),
        })
        .after(3_000)
        .step(Step::Goes {
            what: gate("200 to A"),
        })
        .message(Out, Caller, &response("200 OK", "INVITE", ""))
        .after(500_000)
        .message(Out, Caller, &response("200 OK", "INVITE", ""))
        .after(1_000)
        .message(In, Caller, &request("ACK", ""))
        .after(72_000_000)
        .message(In, Caller, &request("BYE", "Reason: Q.850;cause=16\r\n"))
        .message(Out, Caller, &response("200 OK", "BYE", ""))
        .event(TracedSide::A, CallStatus::CallDisconnected)
        .event(TracedSide::B, CallStatus::CallDisconnected)
        .message(Out, Callee, &request("BYE", ""))
        .after(2_000)
        .message(In, Callee, &response("200 OK", "BYE", ""))
        .step(Step::Ended {
            status: SessionStatus::Completed,
            error: None,
        });
    call
}
