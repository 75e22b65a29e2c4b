//! Two endpoints, one wire, one clock: the driver that a transaction user has to write, in its
//! smallest form. Messages travel as bytes and time is simulated.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::transaction::Dispatch;
use sipx_sip::{
    Limits, Message, Output, Reliability, Request, Response, Timer, Timers, TransactionKey,
    TransactionLayer, TuEvent, parse_datagram,
};

use crate::messages::label;
use Reliability::Unreliable;
use Side::{Alice, Bob};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Alice,
    Bob,
}

pub struct Armed {
    pub at: Duration,
    pub side: Side,
    pub key: TransactionKey,
    pub timer: Timer,
}

/// The driver a transaction user has to write, in its smallest form.
pub struct World {
    pub now: Duration,
    pub reliability: Reliability,
    pub layers: [TransactionLayer; 2],
    pub armed: Vec<Armed>,
    pub fired: Vec<(u128, Timer)>,
    pub on_wire: VecDeque<(Side, Bytes)>,
    /// Every message sent, as `(ms, sender, label)`; lost ones too.
    pub sent: Vec<(u128, Side, String)>,
    pub messages: Vec<Message>,
    /// What reached a transaction user through a transaction.
    pub told: Vec<(Side, TransactionKey, TuEvent)>,
    /// What reached a transaction user past the transactions.
    pub stray: Vec<(Side, Message)>,
    pub ended: Vec<Side>,
    pub losing: Option<Side>,
}

impl World {
    pub fn new(reliability: Reliability) -> Self {
        Self {
            now: Duration::ZERO,
            reliability,
            layers: [
                TransactionLayer::new(Timers::default()),
                TransactionLayer::new(Timers::default()),
            ],
            armed: Vec::new(),
            fired: Vec::new(),
            on_wire: VecDeque::new(),
            sent: Vec::new(),
            messages: Vec::new(),
            told: Vec::new(),
            stray: Vec::new(),
            ended: Vec::new(),
            losing: None,
        }
    }

    pub fn udp() -> Self {
        Self::new(Unreliable)
    }

    pub fn layer(&mut self, side: Side) -> &mut TransactionLayer {
        &mut self.layers[side as usize]
    }

    pub fn send(&mut self, side: Side, request: Request) -> TransactionKey {
        let reliability = self.reliability;
        let (key, outputs) = self.layer(side).send_request(request, reliability).unwrap();
        self.perform(side, &key, outputs);
        self.deliver();
        key
    }

    pub fn respond(&mut self, side: Side, key: &TransactionKey, response: Response) {
        let outputs = self.layer(side).send_response(key, response);
        self.perform(side, key, outputs);
        self.deliver();
    }

    /// An ACK for a 2xx goes to the wire past every transaction.
    pub fn send_direct(&mut self, side: Side, message: Message) {
        self.transmit(side, message);
        self.deliver();
    }

    pub fn transmit(&mut self, side: Side, message: Message) {
        self.sent
            .push((self.now.as_millis(), side, label(&message)));
        if self.losing != Some(side) {
            let to = if side == Alice { Bob } else { Alice };
            self.on_wire.push_back((to, message.to_bytes()));
        }
        self.messages.push(message);
    }

    pub fn perform(&mut self, side: Side, key: &TransactionKey, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(message) => self.transmit(side, *message),
                Output::SetTimer { timer, after } => {
                    self.disarm(side, key, |armed| armed == timer);
                    self.armed.push(Armed {
                        at: self.now + after,
                        side,
                        key: key.clone(),
                        timer,
                    });
                }
                Output::ClearTimer(timer) => self.disarm(side, key, |armed| armed == timer),
                Output::ToTu(event) => self.told.push((side, key.clone(), *event)),
                Output::Terminated(_) => {
                    self.disarm(side, key, |_| true);
                    self.ended.push(side);
                }
                other => panic!("an output the driver does not know: {other:?}"),
            }
        }
    }

    pub fn disarm(&mut self, side: Side, key: &TransactionKey, which: impl Fn(Timer) -> bool) {
        self.armed
            .retain(|a| !(a.side == side && a.key == *key && which(a.timer)));
    }

    pub fn deliver(&mut self) {
        while let Some((side, datagram)) = self.on_wire.pop_front() {
            let message = parse_datagram(datagram, &Limits::datagram()).unwrap();
            let reliability = self.reliability;
            match self.layer(side).receive(message, reliability) {
                Dispatch::Matched { key, outputs } | Dispatch::Created { key, outputs } => {
                    self.perform(side, &key, outputs);
                }
                Dispatch::Unmatched(message) => self.stray.push((side, *message)),
            }
        }
    }

    /// Lets the clock run, firing every timer due on the way, in order.
    pub fn run_to(&mut self, ms: u64) {
        let until = Duration::from_millis(ms);
        while let Some(next) = (0..self.armed.len())
            .filter(|&i| self.armed[i].at <= until)
            .min_by_key(|&i| self.armed[i].at)
        {
            let Armed {
                at,
                side,
                key,
                timer,
            } = self.armed.remove(next);
            self.now = at;
            self.fired.push((at.as_millis(), timer));
            let outputs = self.layer(side).on_timer(&key, timer);
            self.perform(side, &key, outputs);
            self.deliver();
        }
        self.now = until;
    }

    pub fn times_sent(&self, side: Side, what: &str) -> Vec<u128> {
        self.sent
            .iter()
            .filter(|s| s.1 == side && s.2 == what)
            .map(|s| s.0)
            .collect()
    }

    pub fn fired(&self, timer: Timer) -> Vec<u128> {
        self.fired
            .iter()
            .filter(|f| f.1 == timer)
            .map(|f| f.0)
            .collect()
    }

    /// The labels of what a side was told, `TIMEOUT` included.
    pub fn told(&self, side: Side) -> Vec<String> {
        let told = self.told.iter().filter(|t| t.0 == side);
        told.map(|(_, _, event)| match event {
            TuEvent::Request(request) => request.method.to_string(),
            TuEvent::Response(response) => label(&Message::Response((**response).clone())),
            TuEvent::Ack(_) => "ACK in transaction".to_owned(),
            TuEvent::Timeout => "TIMEOUT".to_owned(),
            TuEvent::TransportError => "TRANSPORT".to_owned(),
            other => panic!("an event the driver does not know: {other:?}"),
        })
        .collect()
    }

    /// The last request a side was told of, with the key to answer it by.
    pub fn request_at(&self, side: Side) -> (TransactionKey, Request) {
        let newest = self
            .told
            .iter()
            .rev()
            .find_map(|(at, key, event)| match event {
                TuEvent::Request(request) if *at == side => {
                    Some((key.clone(), (**request).clone()))
                }
                _ => None,
            });
        newest.unwrap()
    }

    pub fn idle(&self) -> bool {
        self.layers.iter().all(TransactionLayer::is_empty) && self.armed.is_empty()
    }
}
