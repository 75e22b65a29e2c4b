//! Two phones on one wire, without a switch between them: what a phone does is what the RFCs say.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails is the point of a test"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::Tick;
use maskline_phone::{
    Audio, Callee, Caller, Identity, Manners, Outcome, Part, Phone, PhoneAction, PhoneConfig,
    PhoneEvent, PhoneInput,
};
use maskline_switch::sip::compose::SentBy;
use maskline_switch::sip::{Peer, SipTimers, Transport};

const A: &str = "192.0.2.1:5060";
const B: &str = "192.0.2.2:5060";
const LATENCY: Duration = Duration::from_millis(7);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer(text: &str) -> Peer {
    Peer {
        listener: 0,
        transport: Transport::Udp,
        addr: address(text),
    }
}

fn config(at: &str, part: Part, says_hz: f64, hears_hz: f64) -> PhoneConfig {
    PhoneConfig {
        sent_by: SentBy {
            host_port: at.to_owned(),
            transport: Transport::Udp,
        },
        media: SocketAddr::new(address(at).ip(), 40_000),
        identity: Identity {
            user: "+6591234567".to_owned(),
            domain: "phone.example".to_owned(),
            mark: if at == A {
                "alice".to_owned()
            } else {
                "bob".to_owned()
            },
            ..Identity::default()
        },
        timers: SipTimers::default(),
        audio: Some(Audio { says_hz, hears_hz }),
        part,
        credentials: None,
        asks: None,
        manners: Manners::default(),
        patience: Duration::from_secs(60),
    }
}

/// Both phones, and what is on its way.
struct Line {
    now: Tick,
    a: Phone,
    b: Phone,
    underway: BTreeMap<(Tick, u64), (bool, PhoneInput)>,
    count: u64,
    heard_a: Vec<PhoneEvent>,
    heard_b: Vec<PhoneEvent>,
    /// Drops every so many-th signalling message.
    loses_every: Option<u64>,
}

impl Line {
    fn new(a: PhoneConfig, b: PhoneConfig) -> Self {
        Self {
            now: Tick::ZERO,
            a: Phone::new(a, 1),
            b: Phone::new(b, 2),
            underway: BTreeMap::new(),
            count: 0,
            heard_a: Vec::new(),
            heard_b: Vec::new(),
            loses_every: None,
        }
    }

    fn dial(&mut self) {
        let uri = format!("sip:+6581234567@{B}");
        self.a
            .handle(self.now, PhoneInput::Dial { peer: peer(B), uri });
        self.drain();
    }

    fn drain(&mut self) {
        for to_b in [true, false] {
            let from = peer(if to_b { A } else { B });
            loop {
                let phone = if to_b { &mut self.a } else { &mut self.b };
                let Some(action) = phone.poll() else { break };
                self.count += 1;
                let input = match action {
                    PhoneAction::Send { bytes, .. } => {
                        if self
                            .loses_every
                            .is_some_and(|every| self.count.is_multiple_of(every))
                        {
                            continue;
                        }
                        PhoneInput::MessageArrived { peer: from, bytes }
                    }
                    PhoneAction::SendRtp { to, bytes } => {
                        assert_eq!(to.port(), 40_000);
                        PhoneInput::RtpArrived { from: to, bytes }
                    }
                    PhoneAction::Notice(event) => {
                        if to_b {
                            &mut self.heard_a
                        } else {
                            &mut self.heard_b
                        }
                        .push(event);
                        continue;
                    }
                };
                self.underway
                    .insert((self.now + LATENCY, self.count), (to_b, input));
            }
        }
    }

    /// Until this time, or until nothing happens any more.
    fn run_until(&mut self, end: Duration) {
        loop {
            let wire = self.underway.keys().next().map(|(at, _)| *at);
            let next = [wire, self.a.deadline(), self.b.deadline()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= Tick::from_start(end)) else {
                return;
            };
            self.now = next.max(self.now);
            if wire == Some(next) {
                let (_, (to_b, input)) = self.underway.pop_first().unwrap();
                if to_b { &mut self.b } else { &mut self.a }.handle(self.now, input);
            } else if self.a.deadline() == Some(next) {
                self.a.handle(self.now, PhoneInput::DeadlineReached);
            } else {
                self.b.handle(self.now, PhoneInput::DeadlineReached);
            }
            self.drain();
        }
    }
}

fn caller(cancel_after: Option<Duration>, hang_up_after: Option<Duration>) -> PhoneConfig {
    config(
        A,
        Part::Caller(Caller {
            cancel_after,
            hang_up_after,
        }),
        440.0,
        620.0,
    )
}

fn callee(outcome: Outcome) -> PhoneConfig {
    let callee = Callee {
        ring_after: Some(ms(100)),
        outcome,
        hang_up_after: None,
    };
    config(B, Part::Callee(callee), 620.0, 440.0)
}

#[test]
fn each_hears_the_others_tone_and_keys() {
    let mut line = Line::new(
        caller(None, Some(ms(3_000))),
        callee(Outcome::Answer(ms(500))),
    );
    line.dial();
    line.run_until(ms(1_500));
    line.a.handle(line.now, PhoneInput::Press('7'));
    line.a.handle(line.now, PhoneInput::Press('#'));
    line.run_until(ms(3_000));
    assert!(line.a.is_talking() && line.b.is_talking());
    let (a, b) = (line.a.report(), line.b.report());
    assert!(a.tone_share > 0.9, "{a:?}");
    assert!(b.tone_share > 0.9, "{b:?}");
    assert!(
        b.packets_received > 100 && a.packets_received > 100,
        "{a:?} {b:?}"
    );
    assert_eq!(
        (b.digits.as_str(), b.shows.as_deref()),
        ("7#", Some("+6591234567"))
    );
    line.run_until(Duration::from_secs(200));
    assert!(line.a.is_idle() && line.b.is_idle());
    assert!(!line.a.report().patience_ran_out);
    let ends = [
        PhoneEvent::Dialled,
        PhoneEvent::Ringing,
        PhoneEvent::Talking,
    ];
    assert_eq!(line.heard_a[..3], ends);
    assert_eq!(line.heard_a[3], PhoneEvent::HungUp { by_us: true });
    assert_eq!(
        line.heard_b.last(),
        Some(&PhoneEvent::HungUp { by_us: false })
    );
}

#[test]
fn a_call_is_made_and_ended_although_messages_are_lost() {
    for every in 2..9 {
        let mut line = Line::new(
            caller(None, Some(ms(3_000))),
            callee(Outcome::Answer(ms(500))),
        );
        line.a = Phone::new(
            PhoneConfig {
                audio: None,
                ..caller(None, Some(ms(3_000)))
            },
            every,
        );
        line.loses_every = Some(every);
        line.dial();
        line.run_until(Duration::from_secs(300));
        assert!(
            line.a.is_idle() && line.b.is_idle(),
            "one of {every} is lost"
        );
        let talked = (line.a.report().talked, line.b.report().talked);
        assert_eq!(talked, (true, true), "one of {every} is lost");
    }
}

#[test]
fn a_cancelled_call_ends_with_487_on_both_sides() {
    let mut line = Line::new(caller(Some(ms(900)), None), callee(Outcome::Ignore));
    line.dial();
    line.run_until(Duration::from_secs(100));
    assert!(line.a.is_idle() && line.b.is_idle());
    let statuses = (line.a.report().final_status, line.b.report().final_status);
    assert_eq!(statuses, (Some(487), Some(487)));
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let mut b = callee(Outcome::Ignore);
    b.manners.answers_when_cancelled = true;
    let mut line = Line::new(caller(Some(ms(900)), None), b);
    line.dial();
    line.run_until(Duration::from_secs(100));
    assert!(line.a.is_idle() && line.b.is_idle());
    assert!(!line.a.report().talked && line.b.report().talked);
}

#[test]
fn a_second_answer_of_a_fork_is_hung_up_and_the_first_goes_on() {
    let mut b = callee(Outcome::Answer(ms(500)));
    b.manners.forks = true;
    let mut line = Line::new(caller(None, Some(ms(3_000))), b);
    line.dial();
    line.run_until(ms(3_000));
    assert!(line.a.is_talking() && line.b.is_talking());
    line.run_until(Duration::from_secs(100));
    assert!(line.a.is_idle() && line.b.is_idle());
    assert_eq!(line.a.report().dialogs, 2);
}

#[test]
fn an_answer_that_is_never_acknowledged_is_given_up_after_64_t1() {
    let mut a = caller(None, None);
    a.manners.never_acknowledges = true;
    let mut line = Line::new(a, callee(Outcome::Answer(ms(500))));
    line.dial();
    line.run_until(ms(32_000));
    assert!(!line.b.is_over());
    line.run_until(Duration::from_secs(100));
    assert!(line.a.is_idle() && line.b.is_idle());
    assert!(line.b.report().never_acknowledged);
}

#[test]
fn a_hold_silences_the_held_party_until_it_is_taken_back() {
    let mut line = Line::new(caller(None, None), callee(Outcome::Answer(ms(500))));
    line.dial();
    line.run_until(ms(2_000));
    line.a.handle(line.now, PhoneInput::Hold(true));
    line.drain();
    line.run_until(ms(2_500));
    let held = line.b.report().packets_sent;
    line.run_until(ms(4_000));
    assert_eq!(line.b.report().packets_sent, held);
    line.a.handle(line.now, PhoneInput::Hold(false));
    line.drain();
    line.run_until(ms(5_000));
    assert!(line.b.report().packets_sent > held + 20);
}

#[test]
fn a_silent_callee_is_given_up_by_timer_b() {
    let mut line = Line::new(caller(None, None), callee(Outcome::Silence));
    line.dial();
    line.run_until(Duration::from_secs(33));
    assert!(line.a.is_idle());
    assert_eq!(line.heard_a, [PhoneEvent::Dialled, PhoneEvent::Lost]);
}
