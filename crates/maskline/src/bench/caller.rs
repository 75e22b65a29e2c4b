//! The load's near end: starts calls at a steady pace, holds each for the same time, hangs up.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::wire::{Head, host_port, sdp, uri};

const T1: Duration = Duration::from_millis(500);
/// Longest wait for anything: 64·T1.
const PATIENCE: Duration = Duration::from_secs(32);

/// What load is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Where INVITEs go.
    pub(super) towards: SocketAddr,
    /// New calls per second.
    pub(super) per_second: u32,
    /// How many calls in all.
    pub(super) calls: u32,
    /// How long each lasts once it is answered.
    pub(super) hold: Duration,
    /// The first call's number: distinct runs have distinct Call-IDs and callers.
    pub(super) first: u32,
}

/// What became of the calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// INVITEs sent for the first time.
    pub(super) started: u32,
    /// Calls that were answered.
    pub(super) answered: u32,
    /// Calls whose BYE was answered.
    pub(super) completed: u32,
    /// Calls that were refused, or never answered.
    pub(super) failed: u32,
    /// The first refusal's status; 408: nothing came.
    pub(super) first_failure: Option<u16>,
    /// Requests that were sent again.
    pub(super) repeated: u32,
    /// INVITE to 200 of each answered call, in microseconds, sorted.
    pub(super) setup_us: Vec<u32>,
    /// From the first INVITE to the last one.
    pub(super) started_in: Duration,
}

impl Outcome {
    /// A quantile of the time to answer, in milliseconds.
    pub(super) fn setup_ms(&self, quantile: f64) -> f64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list that is far below 2^52 long"
        )]
        let at = ((self.setup_us.len().saturating_sub(1)) as f64 * quantile) as usize;
        self.setup_us
            .get(at)
            .map_or(0.0, |us| f64::from(*us) / 1000.0)
    }
}

enum State {
    Inviting {
        sent: Instant,
    },
    Talking {
        to: String,
        target: String,
        routes: String,
        hop: SocketAddr,
    },
    Leaving,
    Over,
}

/// A request that is repeated until it is answered.
struct Pending {
    call: u32,
    cseq: u8,
    next: Instant,
    wait: Duration,
    gives_up: Instant,
    bytes: Vec<u8>,
    to: SocketAddr,
}

/// Makes the load and waits for the last call's end; `answered` is told of each answered call.
pub(super) fn run(socket: &UdpSocket, load: Load, mut answered: impl FnMut(u32)) -> Outcome {
    let mut run = Run {
        socket,
        load,
        own: socket
            .local_addr()
            .map(|a| a.to_string())
            .unwrap_or_default(),
        states: Vec::with_capacity(load.calls as usize),
        pending: VecDeque::new(),
        byes: VecDeque::new(),
        outcome: Outcome::default(),
        over: 0,
    };
    let begin = Instant::now();
    let gap = Duration::from_secs(1) / load.per_second.max(1);
    let mut buffer = vec![0; 65_535];
    let mut look = begin;
    while run.over < load.calls {
        let mut now = Instant::now();
        while run.outcome.started < load.calls && begin + gap * run.outcome.started <= now {
            run.invite(now);
            run.outcome.started_in = now - begin;
        }
        if let Ok((length, _)) = socket.recv_from(&mut buffer)
            && let Some(head) = buffer.get(..length).and_then(Head::of)
        {
            now = Instant::now();
            let before = run.outcome.answered;
            run.hear(&head, now);
            if run.outcome.answered > before {
                answered(run.outcome.answered);
            }
        }
        while let Some((at, call)) = run.byes.front().copied()
            && at <= now
        {
            run.byes.pop_front();
            run.bye(call, now);
        }
        if now.duration_since(look) > Duration::from_millis(50) {
            look = now;
            run.repeat(now);
        }
    }
    run.outcome.setup_us.sort_unstable();
    run.outcome
}

struct Run<'a> {
    socket: &'a UdpSocket,
    load: Load,
    own: String,
    states: Vec<State>,
    pending: VecDeque<Pending>,
    byes: VecDeque<(Instant, u32)>,
    outcome: Outcome,
    over: u32,
}

impl Run<'_> {
    fn invite(&mut self, now: Instant) {
        let call = self.outcome.started;
        let id = self.load.first + call;
        let body = sdp(42_000);
        let text = format!(
            "INVITE sip:{number}@{towards} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKi{id};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{caller}@{own}>;tag=c{id}\r\nTo: <sip:{number}@{towards}>\r\n\
             Call-ID: {call}.{id}@bench\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@{own}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}",
            number = super::VIRTUAL,
            towards = self.load.towards,
            own = self.own,
            caller = super::caller_number(id),
            length = body.len(),
        );
        self.states.push(State::Inviting { sent: now });
        self.outcome.started += 1;
        self.request(call, 1, text.into_bytes(), self.load.towards, now);
    }

    fn request(&mut self, call: u32, cseq: u8, bytes: Vec<u8>, to: SocketAddr, now: Instant) {
        self.send(&bytes, to);
        self.pending.push_back(Pending {
            call,
            cseq,
            next: now + T1,
            wait: T1,
            gives_up: now + PATIENCE,
            bytes,
            to,
        });
    }

    fn send(&self, bytes: &[u8], to: SocketAddr) {
        // A datagram that the kernel drops is repeated like one that the network drops.
        let _ = self.socket.send_to(bytes, to);
    }

    fn hear(&mut self, head: &Head<'_>, now: Instant) {
        let call = head.value("Call-ID").split('.').next();
        let Some(call) = call.and_then(|call| call.parse::<u32>().ok()) else {
            return;
        };
        let Some(status) = head.status() else {
            if head.method() == "BYE" {
                self.told_goodbye(call, head);
            }
            return;
        };
        let invites = head.value("CSeq").ends_with("INVITE");
        let Some(state) = self.states.get_mut(call as usize) else {
            return;
        };
        match (state, status) {
            (State::Inviting { .. }, 100..=199) if invites => self.settle(call, 1),
            (State::Inviting { sent }, 200..=299) if invites => {
                let setup = now.duration_since(*sent).as_micros();
                self.outcome
                    .setup_us
                    .push(u32::try_from(setup).unwrap_or(u32::MAX));
                self.outcome.answered += 1;
                self.settle(call, 1);
                self.talk(call, head, now);
            }
            // The ACK was lost.
            (State::Talking { .. }, 200..=299) if invites => self.acknowledge(call),
            (State::Inviting { .. }, _) if invites => {
                self.settle(call, 1);
                self.refused(call, status, head);
            }
            (State::Leaving, 200..=299) if !invites => {
                self.settle(call, 2);
                self.outcome.completed += 1;
                self.end(call);
            }
            (State::Leaving, 300..) if !invites => {
                self.settle(call, 2);
                self.fail(call, status);
            }
            _ => {}
        }
    }

    fn talk(&mut self, call: u32, head: &Head<'_>, now: Instant) {
        let target = uri(head.value("Contact")).to_owned();
        let mut routes: Vec<&str> = head
            .values("Record-Route")
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        routes.reverse();
        let first = routes.first().map_or(target.as_str(), |route| uri(route));
        let hop = host_port(first).parse().unwrap_or(self.load.towards);
        let routes = routes
            .iter()
            .map(|route| format!("Route: {route}\r\n"))
            .collect();
        if let Some(state) = self.states.get_mut(call as usize) {
            *state = State::Talking {
                to: head.value("To").to_owned(),
                target,
                routes,
                hop,
            };
        }
        self.acknowledge(call);
        self.byes.push_back((now + self.load.hold, call));
    }

    fn acknowledge(&self, call: u32) {
        if let Some((bytes, hop)) = self.in_dialog(call, "ACK", 1) {
            self.send(&bytes, hop);
        }
    }

    fn bye(&mut self, call: u32, now: Instant) {
        if let Some((bytes, hop)) = self.in_dialog(call, "BYE", 2) {
            if let Some(state) = self.states.get_mut(call as usize) {
                *state = State::Leaving;
            }
            self.request(call, 2, bytes, hop, now);
        }
    }

    fn in_dialog(&self, call: u32, method: &str, cseq: u8) -> Option<(Vec<u8>, SocketAddr)> {
        let State::Talking {
            to,
            target,
            routes,
            hop,
        } = self.states.get(call as usize)?
        else {
            return None;
        };
        let id = self.load.first + call;
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{id};rport\r\n{routes}\
             Max-Forwards: 70\r\nFrom: <sip:{caller}@{own}>;tag=c{id}\r\nTo: {to}\r\n\
             Call-ID: {call}.{id}@bench\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            own = self.own,
            caller = super::caller_number(id),
        );
        Some((text.into_bytes(), *hop))
    }

    /// The other side hung up, which it should not: the call is lost, and answered.
    fn told_goodbye(&mut self, call: u32, head: &Head<'_>) {
        let mut text = "SIP/2.0 200 OK\r\n".to_owned();
        for via in head.values("Via") {
            text.push_str(&format!("Via: {via}\r\n"));
        }
        text.push_str(&format!(
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {}\r\nContent-Length: 0\r\n\r\n",
            head.value("From"),
            head.value("To"),
            head.value("Call-ID"),
            head.value("CSeq")
        ));
        self.send(text.as_bytes(), self.load.towards);
        self.fail(call, 487);
    }

    fn refused(&mut self, call: u32, status: u16, head: &Head<'_>) {
        let id = self.load.first + call;
        let text = format!(
            "ACK sip:{number}@{towards} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKi{id};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{caller}@{own}>;tag=c{id}\r\nTo: {to}\r\n\
             Call-ID: {call}.{id}@bench\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            number = super::VIRTUAL,
            towards = self.load.towards,
            own = self.own,
            caller = super::caller_number(id),
            to = head.value("To"),
        );
        self.send(text.as_bytes(), self.load.towards);
        self.fail(call, status);
    }

    fn fail(&mut self, call: u32, status: u16) {
        if !matches!(self.states.get(call as usize), Some(State::Over)) {
            self.outcome.failed += 1;
            self.outcome.first_failure.get_or_insert(status);
            self.end(call);
        }
    }

    fn end(&mut self, call: u32) {
        if let Some(state) = self.states.get_mut(call as usize) {
            *state = State::Over;
            self.over += 1;
        }
    }

    fn settle(&mut self, call: u32, cseq: u8) {
        // Answers come nearly in order: the one looked for is near the front.
        if let Some(at) = self
            .pending
            .iter()
            .position(|pending| pending.call == call && pending.cseq == cseq)
        {
            self.pending.remove(at);
        }
    }

    fn repeat(&mut self, now: Instant) {
        let (mut late, mut again) = (Vec::new(), Vec::new());
        for pending in self.pending.iter_mut().filter(|p| p.next <= now) {
            if pending.gives_up <= now {
                late.push((pending.call, pending.cseq));
                continue;
            }
            pending.wait = (pending.wait * 2).min(T1 * 8);
            pending.next = now + pending.wait;
            again.push((pending.bytes.clone(), pending.to));
        }
        for (bytes, to) in again {
            self.outcome.repeated += 1;
            self.send(&bytes, to);
        }
        for (call, cseq) in late {
            self.settle(call, cseq);
            self.fail(call, 408);
        }
        // An INVITE that only got a 1xx is waited for as long.
        let patience = PATIENCE * 2;
        let lost: Vec<u32> = (0u32..)
            .zip(&self.states)
            .filter(|(_, state)| {
                matches!(state, State::Inviting { sent } if now.duration_since(*sent) > patience)
            })
            .map(|(call, _)| call)
            .collect();
        for call in lost {
            self.fail(call, 408);
        }
    }
}
