//! One shard and its dispatcher, driven by bytes: what fuzzing and the torture messages run.
//!
//! Everything that a shard asks for is granted at once, so that a message of one INVITE drives a
//! whole call as far as it goes; then the clock runs until nothing is left to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maskline_events::{Action as FlowAction, Callflow, Timestamp};
use maskline_media::{MediaCommand, MediaEvent, Side};
use maskline_switch::identity::{CalledSource, CallerSource, IdentityRules};
use maskline_switch::sip::framing::{Frame, StreamFramer};
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::{
    Action, CallflowAnswer, Dispatcher, Input, Now, Shard, Tick, Trunk, Verdict, sdp,
};

use crate::scenario::{CallPlan, Scenario};
use crate::site;

/// Steps of the clock after which a run counts as endless.
const MOST_STEPS: usize = 2_000;
/// Largest stream that is pushed at once.
const CHUNK_BYTES: usize = 7;

/// Who sends the bytes: a host of the only trunk.
fn sender(transport: Transport) -> Peer {
    Peer {
        transport,
        addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 5060),
        ..site::switch_as_peer(transport)
    }
}

/// What the switch did with some bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Messages that went back to the sender, in order, each once however often it was sent again.
    pub answers: Vec<Bytes>,
    /// Whether the callee was called.
    pub called: bool,
    /// What was counted, in order: discards of the dispatcher and of the shard.
    pub counted: Vec<&'static str>,
}

impl Handled {
    /// The status of each answer.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let status = |answer: &Bytes| {
            let text = String::from_utf8_lossy(answer.get(..11).unwrap_or_default()).into_owned();
            text.strip_prefix("SIP/2.0 ")?.parse().ok()
        };
        self.answers.iter().filter_map(status).collect()
    }
}

/// A datagram from a trunk's host, and everything that follows from it.
///
/// # Panics
/// When the shard never comes to rest: a run that does not end is what fuzzing looks for.
#[must_use]
pub fn datagram(bytes: &[u8]) -> Handled {
    let mut bench = Bench::new(IdentityRules::default());
    let verdict = bench.dispatcher.datagram(sender(Transport::Udp), bytes);
    bench.take(verdict);
    bench.rest();
    bench.handled
}

/// Lines of an INVITE's head, by which a trunk with every rule looks for both numbers.
///
/// # Panics
/// As [`datagram`].
#[must_use]
pub fn headers(lines: &[u8]) -> Handled {
    let rules = IdentityRules {
        caller_from: vec![
            CallerSource::RemotePartyId,
            CallerSource::PPreferredIdentity,
            CallerSource::PAssertedIdentity,
            CallerSource::From,
        ],
        called_from: vec![
            CalledSource::Diversion,
            CalledSource::PCalledPartyId,
            CalledSource::To,
            CalledSource::RequestUri,
        ],
        country_code: Some("65".to_owned()),
        national_prefix: "0".to_owned(),
        strip: vec!["9".to_owned(), "*31#".to_owned()],
        ..IdentityRules::default()
    };
    let mut bytes = format!(
        "INVITE sip:{}@198.18.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKh\r\n\
         Max-Forwards: 70\r\nCall-ID: headers\r\nCSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.9>\r\n\
         Content-Type: application/sdp\r\n",
        site::virtual_number(0)
    )
    .into_bytes();
    bytes.extend_from_slice(lines);
    bytes.extend_from_slice(
        b"\r\n\r\nv=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
          m=audio 4000 RTP/AVP 0\r\n",
    );
    let mut bench = Bench::new(rules);
    let verdict = bench.dispatcher.datagram(sender(Transport::Udp), &bytes);
    bench.take(verdict);
    bench.rest();
    bench.handled
}

/// A stream's bytes from a trunk's host, in small chunks.
///
/// # Panics
/// As [`datagram`].
#[must_use]
pub fn stream(bytes: &[u8]) -> Handled {
    let mut bench = Bench::new(IdentityRules::default());
    let mut framer = StreamFramer::default();
    'stream: for chunk in bytes.chunks(CHUNK_BYTES) {
        framer.push(chunk);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(frame))) => {
                    let verdict = bench.dispatcher.frame(sender(Transport::Tcp), None, frame);
                    bench.take(verdict);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    bench.rest();
    bench.handled
}

/// A session description as an offer, towards both sides, and as an answer.
///
/// # Panics
/// When what we write of it can't be read again, or holds an address that is not ours.
pub fn description(bytes: &[u8]) {
    let Ok(offer) = sdp::parse(bytes) else {
        return;
    };
    let ours = sdp::Local {
        address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
        second: None,
        srtp: None,
        port: 30_000,
        session_id: 1,
        version: 1,
    };
    for transcoding in [sdp::Transcoding::Off, sdp::Transcoding::On] {
        both_ways(&offer, &ours, transcoding);
    }
}

fn both_ways(offer: &sdp::MediaDescription, ours: &sdp::Local, transcoding: sdp::Transcoding) {
    let towards = sdp::towards_callee(offer, transcoding);
    let written = sdp::write_offer(ours, &towards, offer.ptime_ms, offer.direction);
    if towards.iter().any(|codec| codec.name.is_voice()) {
        let read = sdp::parse(written.as_bytes());
        assert!(
            read.is_ok_and(|read| read.rtp.ip() == ours.address),
            "our own offer can't be read: {written}"
        );
        // The answer of a callee that takes everything.
        if let Ok(answer) = sdp::parse(written.as_bytes())
            && let Some(agreed) = sdp::negotiate(offer, &answer, transcoding)
        {
            let direction = offer.direction.answered();
            let answered = sdp::write_answer(
                ours,
                offer,
                &agreed.codecs(Side::Caller),
                offer.ptime_ms,
                direction,
            );
            assert!(
                sdp::parse(answered.as_bytes()).is_ok(),
                "our own answer can't be read: {answered}"
            );
        }
    }
}

struct Bench {
    dispatcher: Dispatcher,
    shard: Shard,
    now: Duration,
    handled: Handled,
}

impl Bench {
    fn new(identity: IdentityRules) -> Self {
        let scenario = Scenario {
            both_families: true,
            ..Scenario::calm(CallPlan::default())
        };
        let trunk = Trunk {
            allow: "192.0.2.0/24".parse().into_iter().collect(),
            identity,
            ..Trunk::new("torture", sender(Transport::Udp).addr)
        };
        let trunks: Arc<[Trunk]> = Arc::new([trunk]);
        let mut shard = Shard::new(site::switch_config(&scenario, 0, &trunks), [7; 32]);
        shard.handle(
            now(Duration::ZERO),
            Input::DirectoryChanged(site::directory_by_first_trunk(1)),
        );
        Self {
            dispatcher: Dispatcher::new(trunks, 1),
            shard,
            now: Duration::ZERO,
            handled: Handled::default(),
        }
    }

    fn take(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Deliver { arrival, .. } => self.hear(Input::MessageArrived(arrival)),
            Verdict::Refuse { response, reason } => {
                self.handled.answers.push(response);
                self.handled.counted.push(reason);
            }
            Verdict::Discard { reason } => self.handled.counted.push(reason),
        }
    }

    fn hear(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.shard.handle(now(self.now), input);
            while let Some(action) = self.shard.poll() {
                inputs.extend(self.grant(action));
            }
        }
    }

    /// Does what the shard asks; everything succeeds.
    fn grant(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send { bytes, .. } => {
                if bytes.starts_with(b"INVITE ") {
                    self.handled.called = true;
                } else if bytes.starts_with(b"SIP/2.0 ") && !self.handled.answers.contains(&bytes) {
                    self.handled.answers.push(bytes);
                }
                None
            }
            Action::Commit { id, .. } => Some(Input::Committed(vec![id])),
            Action::AskCallflow { session, .. } => Some(Input::CallflowAnswered {
                session,
                answer: connect(),
            }),
            Action::Admit {
                session,
                side,
                trunk,
                ..
            } => Some(Input::Admission {
                session,
                side,
                trunk,
                result: Ok(()),
            }),
            Action::Media(command) => match command {
                MediaCommand::Open { key, .. } => Some(Input::Media(MediaEvent::Opened {
                    key,
                    caller_port: 20_000,
                    callee_port: 20_002,
                    address: None,
                })),
                // No call is adopted here.
                MediaCommand::Resume { .. }
                | MediaCommand::ProgramCaller { .. }
                | MediaCommand::ProgramCallee { .. }
                | MediaCommand::Press { .. }
                | MediaCommand::Play { .. }
                | MediaCommand::StopPlaying { .. }
                | MediaCommand::Close { .. } => command
                    .answer_without_session(maskline_media::OpenFailure::Unavailable)
                    .map(Input::Media),
            },
            Action::Count(reason) => {
                self.handled.counted.push(reason);
                None
            }
            Action::Occupy { .. }
            | Action::Release { .. }
            | Action::TargetsDown(_)
            | Action::TrunkRegistered { .. }
            | Action::Trace(_)
            | Action::Warn { .. }
            | Action::Ended { .. } => None,
        }
    }

    /// Lets the clock run until the shard waits for nothing.
    fn rest(&mut self) {
        for _ in 0..MOST_STEPS {
            let Some(at) = self.shard.deadline() else {
                return;
            };
            self.now = self.now.max(at.since(Tick::ZERO));
            self.hear(Input::DeadlineReached);
        }
        assert!(
            self.shard.deadline().is_none(),
            "the shard never comes to rest"
        );
    }
}

fn now(elapsed: Duration) -> Now {
    let ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    Now {
        tick: Tick::from_start(elapsed),
        wall: Timestamp::from_unix_ms(1_800_000_000_000 + ms),
    }
}

/// The endpoint's answer: connect to a callee who never answers.
fn connect() -> CallflowAnswer {
    let number = |text: String| maskline_events::Msisdn::parse(&text).ok();
    let parties = number(site::virtual_number(0)).zip(number(site::phone_number(0, Side::Callee)));
    let actions = parties.map(|(source, destination)| {
        vec![FlowAction::MakeCall {
            source,
            destination,
            call_recording: false,
        }]
    });
    CallflowAnswer::Callflow(Callflow {
        client_action_id: None,
        actions: actions.unwrap_or_default(),
    })
}
